"""The statistics of one log, in order: signal, search over the whole run and over windows, the line with its intervals.

What is found over the whole run counts if each third of the run has it in the same phase; what is strong only for a
while, or drifts, is found in windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mygpt2.progress import Progress, silent
from mygpt2.ripples.bootstrap import Estimate, estimate
from mygpt2.ripples.comb import Comb, find_comb
from mygpt2.ripples.detrend import against, basis, detrend, without_trend, without_warmup
from mygpt2.ripples.log import Floats, Grid, Log, make_grid
from mygpt2.ripples.null import NORMAL
from mygpt2.ripples.search import LONGEST_SURROGATE, Found, Law, Trend, law_of, search
from mygpt2.ripples.sliding import Window, apart, drift, slide, without_drift
from mygpt2.ripples.spectrum import Line, Transform, fit_line

FEWEST_POINTS = 64
ALPHA = 0.05
SAME_PERIOD = 0.04  # neighbouring windows whose periods differ by less are one stretch


@dataclass(frozen=True)
class Segment:
    """A stretch of cells [start, stop) with the line that stands out in it and its chance under the null."""

    start: int
    stop: int
    period: float  # cells
    amplitude: float
    p_value: float


@dataclass(frozen=True)
class Study:
    """All that was computed at full resolution. `p_value` is that of the whole search, windows included.

    `main` is the stretch that `fitted` describes: the whole run, or the windows that stand out. `kept` is the log
    without its warm-up, `residual` and `trend` are at its points, `y` (n,) on the grid.
    """

    kept: Log
    skipped: int
    spikes: int
    residual: Floats
    trend: Floats
    grid: Grid
    y: Floats
    transform: Transform
    found: Found
    law: Law
    whole_p: float
    p_value: float
    windows: list[Window]
    segments: list[Segment]
    main: tuple[int, int]
    fitted: Estimate
    fit_power: Found  # the search of the main stretch
    raw: Floats  # y with everything that recurs
    comb: Comb | None  # what recurs without being a wave; `y` and `windows` are without it unless it is the main line

    @property
    def significant(self) -> bool:
        return self.p_value < ALPHA

    @property
    def recurs(self) -> Comb | None:
        """The comb where it is the main line."""
        return self.comb if self.comb is not None and self.fitted.line is self.comb.line else None

    @property
    def whole(self) -> bool:
        """The line is that of the whole run."""
        return self.main == (0, len(self.y))


def why_not(log: Log, residual: Floats | None = None) -> str:
    """Why nothing can be said of a log, or of its residual; empty where something can."""
    if not len(log):
        return "The log has no step with a finite loss, so that nothing can be said of ripples."
    if len(log) < FEWEST_POINTS:
        return (
            f"The log has {len(log)} usable points; a ripple cannot be told from chance with fewer than "
            f"{FEWEST_POINTS}. Log more steps, or log each of them."
        )
    if np.ptp(log.loss) == 0:
        return f"The loss is {log.loss[0]:g} at every step: a constant has no ripple, and no noise to judge one by."
    scale = float(np.abs(log.loss).max())
    bend = float(np.median(np.abs(np.diff(log.loss, 2))))
    if bend < 1e-12 * scale or (residual is not None and float(residual.std()) < 1e-9 * max(scale, 1e-300)):
        return "The loss is a smooth curve without any noise: there is nothing to judge a ripple by."
    return ""


def study(log: Log, reference: Log | None = None, seed: int = 0, progress: Progress = silent) -> Study | str:
    """The statistics, or in words why there are none."""
    if said := why_not(log):
        return said
    kept, skipped = without_warmup(log)
    if reference is not None:
        kept, residual, trend, spikes = against(kept, reference)
    else:
        residual, trend, spikes = detrend(kept)
    if said := why_not(kept, residual):
        return said
    grid = make_grid(kept)
    y = grid.average(residual)
    transform = Transform(grid.weight)
    found = search(transform, y)
    comb = find_comb(transform, y, found.null, known_periods(kept, grid))
    whole, cells = y, np.arange(len(y), dtype=np.float64)
    if comb is not None and persists(y, grid.weight, comb.line):
        y = np.where(grid.weight > 0, y - comb.line.at(cells), 0.0)
        found = search(transform, y)
    else:
        comb = None
    law = law_of(transform, found.null.power, _trend(grid, kept, reference is None), seed, progress)
    whole_p = law.chance(found.score)
    windows = slide(y, grid.weight, progress)
    window_p, segments = _segments(windows, seed, progress)
    first = _estimate(y, grid.weight, found, seed)
    lasts = persists(y, grid.weight, first.line)
    if not lasts:
        whole_p = 1.0 if windows else max(whole_p, 0.5)
    p = -math.expm1(2 * math.log1p(-min(whole_p, window_p, 1 - 1e-12))) if windows else whole_p
    main, fitted, power = (0, len(y)), first, found
    if segments and window_p < ALPHA and whole_p >= ALPHA:
        main, fitted, power = _of_segment(y, grid.weight, segments, seed)
    if comb is not None and (p >= ALPHA or _variance(comb.line, cells) > _variance(fitted.line, cells)):
        y, p, main, segments = whole, comb.p_value, (0, len(whole)), []
        fitted, found = _of_comb(comb, replace(found, power=transform.reduction(y) / 2), transform)
        power = found
    return Study(
        kept, skipped, spikes, residual, trend, grid, y, transform, found, law, whole_p, p, windows, segments, main,
        fitted, power, whole, comb,
    )  # fmt: skip


def known_periods(log: Log, grid: Grid) -> tuple[float, ...]:
    """Of what is done at intervals, in cells."""
    found = (log.layout.eval_interval, log.layout.save_interval)
    return tuple(dict.fromkeys(steps / grid.steps_per_cell for steps in found if steps))


def _variance(line: Line, cells: Floats) -> float:
    return float(np.var(line.at(cells)))


def _of_comb(comb: Comb, rest: Found, transform: Transform) -> tuple[Estimate, Found]:
    """The comb as the main line, judged by the null of what is left without it."""
    place = min(round(comb.line.frequency * transform.size), len(rest.null.power) - 1)
    error = NORMAL * math.sqrt(2 * float(rest.null.power[place]) / transform.total)
    amplitude = comb.line.amplitude
    fitted = Estimate(comb.line, comb.period_interval, (max(0.0, amplitude - error), amplitude + error))
    return fitted, replace(rest, frequency=comb.line.frequency, score=comb.score, harmonics=comb.harmonics)


def _trend(grid: Grid, kept: Log, bends: bool) -> Trend:
    """What is done to the log's loss, for surrogates: these have its cells, or fewer that are as evenly spread."""
    columns = np.column_stack([grid.average(column) for column in basis(kept).T])
    present = np.flatnonzero(grid.weight)
    n = min(len(grid), LONGEST_SURROGATE)
    chosen = present if n == len(grid) else present[np.linspace(0, len(present) - 1, n).round().astype(int)]
    places = present if n == len(grid) else np.arange(n)

    def trend(y: Floats) -> Floats:
        rest = np.zeros_like(y)
        rest[:, places] = without_trend(columns[chosen], chosen.astype(np.float64), y[:, places], bends)
        return rest

    return trend


def _estimate(y: Floats, weight: Floats, found: Found, seed: int) -> Estimate:
    order = len(found.null.coefficients)
    memory = max(1, order) if not order else max(order, math.ceil(-3 / math.log(_slowest(found))))
    return estimate(y, weight, found, min(memory, len(y) // 24 + 1), seed)


def _slowest(found: Found) -> float:
    """The largest root of the autoregression: what a shock is multiplied by at each step, in the end."""
    roots = np.roots(np.r_[1.0, -found.null.coefficients])
    return float(np.clip(np.abs(roots).max() if len(roots) else 0.0, 0.05, 0.999))


def persists(y: Floats, weight: Floats, line: Line) -> bool:
    """Whether each third of the series has the line in the same phase, be it weaker: the slope of y on it is positive.

    The bend of a curve that no trend followed looks like a few cycles somewhere; a ripple comes again.
    """
    wave = line.at(np.arange(len(y)))
    bounds = np.linspace(0, len(y), 4).astype(int)
    slopes = []
    for start, stop in pairwise(bounds):
        w, part = weight[start:stop], wave[start:stop]
        if np.count_nonzero(w) < 8:
            return True
        part = part - (w @ part) / w.sum()
        own = y[start:stop] - (w @ y[start:stop]) / w.sum()
        slopes.append(float((w * part) @ own / ((w * part) @ part)))
    return min(slopes) > 0.05


def _segments(windows: list[Window], seed: int, progress: Progress) -> tuple[float, list[Segment]]:
    """(chance of the best of the windows that share no data, stretches that stand out one by one)."""
    alone = apart(windows)
    if not alone:
        return 1.0, []
    best = max(alone, key=lambda window: window.found.score)
    law = law_of(best.transform, _typical([window.found.null.power for window in alone]), _drift, seed, progress)
    chances = [law.chance(w.found.score) if persists(w.values, w.transform.weight, _line(w)) else 1.0 for w in alone]
    p = -math.expm1(len(alone) * math.log1p(-min(min(chances), 1 - 1e-12)))
    segments: list[Segment] = []
    for window, chance in zip(alone, chances, strict=True):
        if chance >= ALPHA / len(alone):
            continue
        new = Segment(window.start, window.stop, 1 / window.found.frequency, window.amplitude, chance)
        last = segments[-1] if segments else None
        if last and new.start <= last.stop + 3 and _alike(new, last):
            share = (last.stop - last.start) / (new.stop - last.start)
            segments[-1] = Segment(
                last.start, new.stop, share * last.period + (1 - share) * new.period,
                share * last.amplitude + (1 - share) * new.amplitude, min(last.p_value, new.p_value),
            )  # fmt: skip
        else:
            segments.append(new)
    return p, segments


def _typical(levels: list[Floats]) -> Floats:
    """The usual shape (m,) of some nulls' power: what one of them says of drift is little, and its line is no noise."""
    return np.asarray(np.exp(np.median([np.log(level / level.mean()) for level in levels], axis=0)))


def _drift(y: Floats) -> Floats:
    """What is done to a window, for surrogates."""
    q = np.linalg.qr(drift(y.shape[1]))[0]
    return y - (y @ q) @ q.T


def _alike(one: Segment, other: Segment) -> bool:
    """Whether two stretches have the same period, as far as the shorter can tell."""
    cycles = min((s.stop - s.start) / s.period for s in (one, other))
    return abs(math.log(one.period / other.period)) < max(SAME_PERIOD, 0.5 / cycles)


def _line(window: Window) -> Line:
    return fit_line(window.values, window.transform.weight, window.found.frequency)


def _of_segment(
    y: Floats, weight: Floats, segments: list[Segment], seed: int
) -> tuple[tuple[int, int], Estimate, Found]:
    """The stretch in which the line explains most, with its estimate."""
    best = max(segments, key=lambda s: s.amplitude**2 * (s.stop - s.start))
    part, present = y[best.start : best.stop], weight[best.start : best.stop]
    values = without_drift(part, present)
    found = search(Transform(present), values)
    return (best.start, best.stop), _estimate(values, present, found, seed), found
