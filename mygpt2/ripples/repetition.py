"""Was the same data read again? Then the loss is like itself at exactly one pass, more than its periods explain.

The line is removed first. What is left correlates with itself at the pass, above what it does at lags near by (a
residual of slow drift is like itself at all of them) and above Bartlett's error under the null. Where the pass is not
known, whole numbers of the found period are tried, and their number is paid for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft, special

from mygpt2.ripples.log import Floats
from mygpt2.ripples.null import Null

FEWEST_PASSES = 1.25
LEAST_LAG = 8  # cells
ALPHA = 0.01


@dataclass(frozen=True)
class Repetition:
    """`lag` in cells; `correlation` there, `near_by` at lags around, `thirds` at one and two thirds of it."""

    found: bool
    lag: float
    known: bool  # the pass was known, not looked for
    correlation: float
    near_by: float
    thirds: tuple[float, float]
    p_value: float
    passes: float

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "thirds": list(self.thirds)}


def autocorrelation(y: Floats, weight: Floats) -> Floats:
    """(n // 2 + 1,): the correlation of y with itself at each lag, by the pairs of cells that have data."""
    n = len(y)
    present = weight > 0
    x = np.where(present, y - y[present].mean(), 0.0)
    size = fft.next_fast_len(2 * n, real=True)
    products = fft.irfft(np.abs(fft.rfft(x, size)) ** 2, size)[: n // 2 + 1]
    pairs = fft.irfft(np.abs(fft.rfft(present.astype(float), size)) ** 2, size)[: n // 2 + 1]
    covariance = np.divide(products, pairs, out=np.zeros(n // 2 + 1), where=pairs > 0.5)
    return covariance / covariance[0] if covariance[0] > 0 else covariance


def repetition(
    rest: Floats, weight: Floats, null: Null, *, pass_cells: float | None, period_cells: float | None
) -> Repetition | None:
    """The test on a residual without its line (n,); None where the log is too short or nothing can be tried."""
    n = len(rest)
    if null.variance <= 0:
        return None
    correlation = autocorrelation(rest, weight)
    memory = fft.irfft(null.power[:: max(1, len(null.power) // 4096)])
    memory = memory[: len(memory) // 2] / memory[0]
    spread = math.sqrt(1 + 2 * float(np.sum(memory[1:] ** 2)))
    if pass_cells is not None:
        lags = [pass_cells] if LEAST_LAG <= pass_cells <= n / FEWEST_PASSES else []
    elif period_cells is not None:
        most = int(n / 2 / period_cells)
        lags = [m * period_cells for m in range(2, most + 1) if m * period_cells >= LEAST_LAG]
    else:
        lags = []
    tried = [_at(correlation, rest, weight, lag, spread) for lag in lags if lag < n - 16]
    if not tried:
        return None
    lag, (value, near, error) = max(
        zip(lags, tried, strict=False), key=lambda pair: (pair[1][0] - pair[1][1]) / pair[1][2]
    )
    alone = float(special.ndtr(-(value - near) / error))
    p = -math.expm1(len(tried) * math.log1p(-min(alone, 1 - 1e-12)))
    thirds = tuple(_interpolated(correlation, lag * k / 3) for k in (1, 2))
    found = p < ALPHA and value - near > 0.1
    if pass_cells is None and found and period_cells is not None:  # a period that drifts is like itself one period on
        found = value > _interpolated(correlation, period_cells) + 2 * error
    return Repetition(found, lag, pass_cells is not None, value, near, (thirds[0], thirds[1]), p, n / lag)


def _at(correlation: Floats, rest: Floats, weight: Floats, lag: float, spread: float) -> tuple[float, float, float]:
    """(correlation at a lag, its median near by, its error)."""
    n = len(rest)
    value = _interpolated(correlation, lag) if lag < len(correlation) - 1 else _late(rest, weight, lag)
    around = np.unique(np.rint(lag * np.r_[np.linspace(0.6, 0.9, 60), np.linspace(1.1, 1.4, 60)]).astype(np.int64))
    around = around[around < len(correlation)]
    values = correlation[around] if len(around) else np.zeros(1)
    return value, float(np.median(values)), max(spread / math.sqrt(max(1.0, n - lag)), float(values.std()))


def _interpolated(correlation: Floats, lag: float) -> float:
    """At a lag between two cells, the larger of both: the peak is narrower than a cell."""
    low = min(int(lag), len(correlation) - 2)
    return float(max(correlation[low], correlation[low + 1]))


def _late(rest: Floats, weight: Floats, lag: float) -> float:
    """The correlation at a lag beyond half of the log."""
    best = -1.0
    for whole in (math.floor(lag), math.ceil(lag)):
        both = (weight[:-whole] > 0) & (weight[whole:] > 0)
        if both.sum() > 8:
            best = max(best, float(np.corrcoef(rest[:-whole][both], rest[whole:][both])[0, 1]))
    return best
