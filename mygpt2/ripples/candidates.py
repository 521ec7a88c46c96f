"""The periods that the layout of the data offers, each tested as such: on the place of every row in the data where a
trace says it, else on time.

A candidate is a fixed question, so that no search over periods is to be paid for. The test is a regression on the
sine and cosine of the place, in the frequency domain with the null's power as the variance of each frequency
(Whittle's likelihood). It asks for the candidate's own period: a cycle of a third of a file has no power at a file's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from mygpt2.ripples.comb import FEWEST_CYCLES, comb_score, fold, spectrum
from mygpt2.ripples.layout import EVENTS, Layout
from mygpt2.ripples.log import Floats, Grid, Log
from mygpt2.ripples.null import Null
from mygpt2.ripples.spectrum import Transform

FEWEST = 1.5  # cycles that a candidate must have in the log
SHORTEST = 2.2  # cells
TOLERANCE = 0.02  # of a period, within which a found one is called a candidate's
MOST_PARTS = 12  # a file is looked for in so many equal parts


@dataclass(frozen=True)
class Candidate:
    """A known period and what the test said. `reason` is why it could not be tested, else empty.

    `ratio` is the found period as a share of this one; `fits` whether they are the same.
    """

    name: str
    period_tokens: float | None
    period_steps: float | None
    tested_on: str
    p_value: float | None
    amplitude: float | None
    ratio: float | None = None
    fits: bool = False
    reason: str = ""


def regression(y: Floats, transform: Transform, null: Null, wave: np.ndarray) -> tuple[float, float]:
    """(p, semi-amplitude) of y (n,) on the complex wave (n,), the null's power being the noise."""
    n = len(y)
    weight = transform.weight
    columns = np.stack([wave.real, wave.imag])
    columns = columns - (columns @ weight / weight.sum())[:, None]
    centred = y - weight @ y / weight.sum()
    f = np.arange(2, n // 2) / n
    level = np.interp(f, transform.frequency, null.power) * weight.sum()
    z = fft.rfft(centred * weight)[2 : n // 2]
    x = fft.rfft(columns * weight, axis=1)[:, 2 : n // 2]
    normal = np.real((x / level) @ x.conj().T)
    right = np.real((x.conj() / level) @ z)
    solution = np.linalg.lstsq(normal, right, rcond=None)[0]
    explained = float(right @ solution)  # half of a chi-squared number with two degrees of freedom
    fitted = solution @ columns
    return math.exp(-max(0.0, explained)), float(np.sqrt(2 * np.average(fitted**2, weights=weight)))


def measure(
    log: Log, grid: Grid, y: Floats, transform: Transform, null: Null, waves: dict[str, np.ndarray]
) -> list[Candidate]:
    """Every candidate of the log's layout, tested. `waves`: by name, the mean wave of each cell's rows, complex."""
    per_step = log.tokens_per_step
    found = []
    for name, period, unit in log.layout.periods():
        tokens = period if unit == "tokens" else period * per_step if per_step else None
        steps = period if unit == "steps" else period / per_step if per_step else None
        if steps is None:
            found.append(_untested(name, tokens, steps, "the log does not say how many tokens a step has"))
            continue
        cells = steps / grid.steps_per_cell
        if len(grid) < FEWEST * cells:
            found.append(_untested(name, tokens, steps, "longer than the log allows"))
        elif cells < SHORTEST:
            found.append(_untested(name, tokens, steps, "shorter than the log can show"))
        else:
            at = np.arange(len(grid)) / cells
            wave = waves.get(name, np.exp(2j * np.pi * np.mod(at, 1.0)))
            p, amplitude = regression(y, transform, null, wave)
            place = "the place of every row" if name in waves else "time"
            found.append(Candidate(name, tokens, steps, place, p, amplitude))
    return found


def measure_events(log: Log, grid: Grid, y: Floats, transform: Transform, null: Null) -> dict[str, Candidate]:
    """The candidates of what is done at intervals, by name, tested on all harmonics: what an event does is short."""
    found = {}
    for name, steps, unit in log.layout.periods():
        cells = steps / grid.steps_per_cell
        if name in EVENTS and unit == "steps" and len(grid) >= FEWEST_CYCLES * cells and cells >= 6:
            p = math.exp(-comb_score(transform, spectrum(transform, y, null), cells)[0])
            amplitude = float(np.ptp(fold(y, transform.weight, cells)[0])) / 2
            tokens = steps * log.tokens_per_step if log.tokens_per_step else None
            found[name] = Candidate(name, tokens, steps, "all harmonics", min(1.0, p), amplitude)
    return found


def _untested(name: str, tokens: float | None, steps: float | None, reason: str) -> Candidate:
    return Candidate(name, tokens, steps, "", None, None, reason=reason)


def compare(candidates: list[Candidate], period_steps: float, interval_steps: tuple[float, float]) -> list[Candidate]:
    """The candidates with how the found period stands to them; of those that fit, the nearest, and what equals it."""
    slack = max(TOLERANCE, (interval_steps[1] - interval_steps[0]) / period_steps)
    known = [(c, period_steps / c.period_steps) for c in candidates if c.period_steps]
    near = [(abs(math.log(ratio)), c.name) for c, ratio in known if abs(ratio - 1) <= slack]
    best = min(near)[0] + 1e-9 if near else -1.0
    fitting = {name for distance, name in near if distance <= best}
    named = {c.name: ratio for c, ratio in known}
    return [replace(c, ratio=named.get(c.name), fits=c.name in fitting and c.p_value is not None) for c in candidates]


def place_in_file(layout: Layout, period_tokens: float | None) -> tuple[float | None, int | None]:
    """(period as a share of a file, n if that is the n-th part of one, 2 to MOST_PARTS), None where unknown."""
    if not layout.file_period or not period_tokens:
        return None, None
    share = period_tokens / layout.file_period
    parts = round(1 / share) if share < 1 else 0
    exact = 2 <= parts <= MOST_PARTS and abs(share * parts - 1) <= TOLERANCE
    return share, parts if exact else None
