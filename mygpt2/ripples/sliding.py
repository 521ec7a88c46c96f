"""The spectrum in windows that slide over the run, since periods drift, and what of it stands out in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mygpt2.progress import Progress, silent
from mygpt2.ripples.log import Floats
from mygpt2.ripples.search import Found, search, search_all
from mygpt2.ripples.spectrum import SHORTEST, Transform, fit_line

WINDOWS = 8  # of a run, side by side; they slide by a quarter of their length
SHORTEST_WINDOW = 128  # cells
COLUMNS = 72  # periods shown


@dataclass(frozen=True)
class Window:
    """A stretch [start, stop) of the cells with the best line in it."""

    start: int
    stop: int
    transform: Transform
    values: Floats
    found: Found

    @property
    def amplitude(self) -> float:
        """Semi-amplitude of the best line's fundamental."""
        return fit_line(self.values, self.transform.weight, self.found.frequency).amplitude


def slide(y: Floats, weight: Floats, progress: Progress = silent) -> list[Window]:
    """The windows of a series, those with less than half of their cells left out; none for a short series.

    Every fourth one touches the one before: those share no data.
    """
    length = len(y) // WINDOWS
    if length < SHORTEST_WINDOW:
        return []
    full = Transform(np.ones(length))
    whole: list[tuple[int, Floats]] = []  # where windows without gaps begin, and their values
    found = []
    for quarter in range(4 * (WINDOWS - 1) + 1):
        start = quarter * length // 4
        part, present = y[start : start + length], weight[start : start + length]
        if np.count_nonzero(present) < length / 2 or np.ptp(part[present > 0]) == 0:
            continue
        centred = without_drift(part, present)
        if (present == 1).all():
            whole.append((start, centred))
        else:
            transform = Transform(present)
            found.append(Window(start, start + length, transform, centred, search(transform, centred)))
    values = np.array([centred for _, centred in whole]).reshape(-1, length)
    for (start, centred), best in zip(whole, search_all(full, values, progress), strict=True):
        found.append(Window(start, start + length, full, centred, best))
    return sorted(found, key=lambda window: window.start)


def drift(length: int) -> Floats:
    """Columns (length, 3) of what is slow in a window."""
    return np.polynomial.legendre.legvander(np.linspace(-1, 1, length), 2)


def without_drift(values: Floats, weight: Floats) -> Floats:
    """A window's values without their parabola, 0 where there is no data."""
    columns = drift(len(values)) * np.sqrt(weight)[:, None]
    fitted = drift(len(values)) @ np.linalg.lstsq(columns, values * np.sqrt(weight), rcond=None)[0]
    return np.where(weight > 0, values - fitted, 0.0)


def apart(windows: list[Window]) -> list[Window]:
    """Those that share no data."""
    kept: list[Window] = []
    for window in windows:
        if not kept or window.start >= kept[-1].stop - 3:
            kept.append(window)
    return kept


def picture(windows: list[Window]) -> tuple[Floats, Floats]:
    """(periods in cells (COLUMNS + 1,) between the columns, semi-amplitude (windows, COLUMNS)) for display.

    Each cell of the picture is the largest amplitude of its periods: thinned for the eye alone.
    """
    if not windows:
        return np.zeros(0), np.zeros((0, 0))
    length = windows[0].transform.n
    edges = np.geomspace(SHORTEST, length / 3, COLUMNS + 1)
    rows = []
    for window in windows:
        transform, power = window.transform, window.found.power
        amplitude = np.sqrt(np.maximum(4 * power / transform.total, 0.0))
        first = np.clip(np.ceil(transform.size / edges[1:]).astype(int), 1, len(power) - 1)
        last = np.clip(np.floor(transform.size / edges[:-1]).astype(int), first, len(power) - 1)
        rows.append([amplitude[a : b + 1].max() for a, b in zip(first, last, strict=True)])
    return edges, np.array(rows)
