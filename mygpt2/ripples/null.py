"""What a residual without any ripple looks like: autoregressive, with drift, and at no frequency quieter than it is.

White noise is never the null: what a batch is made of changes slowly, so that losses of neighbouring steps are alike.
The autoregression is fitted after the candidate was removed (Levinson-Durbin on the sample's autocovariance, order by
Schwarz's criterion). Slow drift is redder than a short autoregression can be, and steepest where periods are longest:
a random walk is added where the lowest frequencies are likelier with it. Where the residual's typical power, by the
median of a band of frequencies, is still above the null's, the null is raised to it. A line moves no median.

All of it is for many series at once, (B, n): the law of the highest score needs hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from mygpt2.ripples.log import Floats
from mygpt2.ripples.spectrum import Transform

NORMAL = 1.959964  # deviations: a two-sided interval at 95 %
MOST_ORDER = 24
BAND = 1.5  # widest band, as a ratio of frequencies
LEAST_BAND = 8  # independent frequencies of a band
FASTEST, SLOWEST = 64, 2  # cycles of a series between which drift is looked for; a trend takes most of the slowest
CORNERS = np.r_[0.0, np.geomspace(1.0, FASTEST, 19)]  # cycles
SURPRISE, PENALTY = 12.0, 1.0  # in units of the null, and of log likelihood
NEAR = 1.0  # cycles per series around a line that are left out of the bands


@dataclass(frozen=True)
class Null:
    """y[t] = sum coefficients[i] y[t - 1 - i] + noise of `variance`; and its power at the transform's frequencies.

    `power` (m,) is what the transform's reduction has in the mean, halved: white noise of variance v has power v.
    """

    coefficients: Floats
    variance: float
    power: Floats

    @property
    def deviation(self) -> float:
        """Standard deviation of the whole noise, by its spectrum."""
        return float(np.sqrt(np.mean(self.power)))


@dataclass(frozen=True)
class Nulls:
    """Of B series: `coefficients` (B, p) with zeros beyond each one's order (B,), `variance` (B,), `power` (B, m)."""

    coefficients: Floats
    order: np.ndarray
    variance: Floats
    power: Floats

    def one(self, row: int) -> Null:
        """The null of one of the series."""
        return Null(self.coefficients[row, : self.order[row]], float(self.variance[row]), self.power[row])

    def put(self, to: np.ndarray, other: Nulls, which: np.ndarray) -> None:
        """Takes the nulls of other series in place of these."""
        for name in ("coefficients", "order", "variance", "power"):
            getattr(self, name)[to] = getattr(other, name)[which]


def autocovariance(y: Floats, weight: Floats, lags: int) -> Floats:
    """(B, lags + 1) of the cells that have data, each lag by the pairs it has; tapered where there are few."""
    present = weight > 0
    n = y.shape[-1]
    x = np.where(present, y - y[:, present].mean(axis=1, keepdims=True), 0.0)
    sums = np.stack([np.einsum("bi,bi->b", x[:, : n - k], x[:, k:]) for k in range(lags + 1)], axis=1)
    if present.all():
        return sums / n
    w = present.astype(np.float64)
    pairs = np.array([w[: n - k] @ w[k:] for k in range(lags + 1)])
    taper = 1 - np.arange(lags + 1) / n
    return np.divide(sums, pairs, out=np.zeros_like(sums), where=pairs > 0) * taper


def autoregression(y: Floats, weight: Floats, most: int = MOST_ORDER) -> tuple[Floats, np.ndarray, Floats]:
    """(coefficients (B, most), orders (B,), variances of the noise (B,)) of y (B, n).

    Of the orders up to `most` the one that Schwarz's criterion prefers; coefficients beyond it are zero.
    """
    n = int(np.count_nonzero(weight))
    most = max(0, min(most, n // 12))
    r = autocovariance(y, weight, most)
    rows = len(y)
    a = np.zeros((rows, most))
    alive = r[:, 0] > 0
    variance = np.where(alive, r[:, 0], 0.0)
    best, order, least = a.copy(), np.zeros(rows, np.int64), variance.copy()
    score = n * np.log(np.where(alive, variance, 1.0))
    for k in range(1, most + 1):
        before = a[:, : k - 1]
        ahead = r[:, k] - np.einsum("bi,bi->b", before, r[:, k - 1 : 0 : -1])
        reflection = np.divide(ahead, variance, out=np.zeros(rows), where=alive)
        alive = alive & (np.abs(reflection) < 1)  # with gaps the estimate need not be a covariance
        reflection = np.where(alive, reflection, 0.0)
        a[:, : k - 1] = before - reflection[:, None] * before[:, ::-1]
        a[:, k - 1] = reflection
        variance = variance * (1 - reflection**2)
        now = n * np.log(np.where(alive, variance, 1.0)) + k * np.log(n)
        better = alive & (now < score)
        for known, new in ((score, now), (order, k), (least, variance), (best, a)):
            known[better] = new if isinstance(new, int) else new[better]
    return best, order, least


def fit_nulls(transform: Transform, y: Floats, power: Floats, lines: Floats | None, most: int = MOST_ORDER) -> Nulls:
    """The nulls of series y (B, n), from which lines were removed, with their reductions / 2 (B, m).

    `lines` (B,): the lines' frequencies, near which the power says nothing. `most`: the highest order.
    """
    coefficients, order, variance = autoregression(y, transform.weight, most)
    response = fft.rfft(np.concatenate([np.ones((len(y), 1)), -coefficients], axis=1), transform.size)
    level = variance[:, None] / np.maximum(response.real**2 + response.imag**2, 1e-12)
    ratio = np.divide(power, level, out=np.zeros_like(power), where=level > 0)
    at = np.arange(power.shape[1]) * transform.n / transform.size  # cycles
    cycles = np.arange(1, transform.n // 2)
    if len(cycles) >= LEAST_BAND:
        values = ratio[:, np.minimum(np.rint(cycles * (transform.size / transform.n)).astype(np.int64), len(at) - 1)]
        if lines is not None:
            values[np.abs(cycles - (lines * transform.n)[:, None]) < NEAR] = np.nan
        corner = _drift(cycles, values)[:, None]
        values = values / (1 + (corner / cycles) ** 2)
        level = level * (1 + (corner / np.maximum(at, 1.0)) ** 2) * _raised(cycles, values, at)
    return Nulls(coefficients, order, variance, level)


def _drift(cycles: np.ndarray, ratio: Floats) -> Floats:
    """Where a random walk (B,) is as strong as the rest, in cycles of the series; 0 for none.

    It has 1 + (corner / cycles) ** 2 times the power. The corner is that of the highest likelihood (Whittle's) of
    `ratio` (B, cycles), NaN left out, in which no number counts for more than SURPRISE times what was expected; none
    is taken unless it is likelier by PENALTY.
    """
    low = (cycles >= SLOWEST) & (cycles <= FASTEST)
    x = ratio[:, low]
    model = 1 + (CORNERS[:, None] / cycles[low]) ** 2
    cost = np.empty((len(x), len(CORNERS)))
    for i, expected in enumerate(model):
        cost[:, i] = np.nansum(np.minimum(x / expected, SURPRISE) + np.log(expected), axis=1)
    cost[:, 1:] += PENALTY
    return CORNERS[np.argmin(cost, axis=1)]


def _raised(cycles: np.ndarray, ratio: Floats, at: Floats) -> Floats:
    """By what factor (B, m), at least 1, the bands' medians of `ratio` (B, cycles) are above a null's; interpolated
    in the logarithm of cycles to `at` (m,).
    """
    centres, factors = [], []
    for start, stop in bands(cycles):
        centres.append(np.log(cycles[start:stop]).mean())
        factors.append(_median(ratio[:, start:stop]) / np.log(2))
    heights = np.log(np.maximum(np.stack(factors, axis=1), 1.0))
    return np.exp(_interpolated(np.log(np.maximum(at, at[1])), np.array(centres), heights))


def bands(cycles: np.ndarray) -> list[tuple[int, int]]:
    """The bands as ranges of `cycles`: of at least LEAST_BAND, and no wider than a ratio of BAND."""
    found = []
    start = 0
    while start < len(cycles):
        stop = max(start + LEAST_BAND, int(np.searchsorted(cycles, cycles[start] * BAND)))
        if len(cycles) - stop < LEAST_BAND:
            stop = len(cycles)
        found.append((start, stop))
        start = stop
    return found


def _median(values: Floats) -> Floats:
    """(B,): the medians of rows, NaN left out; 0 for a row without numbers."""
    known = values.shape[1] - np.count_nonzero(np.isnan(values), axis=1)
    ordered, row = np.sort(values, axis=1), np.arange(len(values))  # NaN last
    middle = (ordered[row, np.maximum(known - 1, 0) // 2] + ordered[row, known // 2]) / 2
    return np.where(known > 0, middle, 0.0)


def _interpolated(at: Floats, centres: Floats, heights: Floats) -> Floats:
    """(B, m): between the heights (B, bands) at the centres, and as the outermost beyond them."""
    right = np.clip(np.searchsorted(centres, at), 1, max(1, len(centres) - 1))
    if len(centres) == 1:
        return np.repeat(heights, len(at), axis=1)
    share = np.clip((at - centres[right - 1]) / (centres[right] - centres[right - 1]), 0.0, 1.0)
    return heights[:, right - 1] * (1 - share) + heights[:, right] * share
