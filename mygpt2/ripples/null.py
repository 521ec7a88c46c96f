"""What a residual without any ripple looks like: autoregressive, and at no frequency quieter than the residual is.

White noise is never the null: what a batch is made of changes slowly, so that losses of neighbouring steps are alike.
The autoregression is fitted after the candidate was removed (Levinson-Durbin on the sample's autocovariance, order by
Schwarz's criterion). Slow drift is redder than a short autoregression can be: where the residual's typical power, by
the median of a band of frequencies, is above the null's, the null is raised to it. A line moves no median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from mygpt2.ripples.log import Floats
from mygpt2.ripples.spectrum import Transform

MOST_ORDER = 24
BAND = 1.5  # widest band, as a ratio of frequencies
LEAST_BAND = 8  # independent frequencies of a band
NEAR = 1.5  # cycles per series around a line that are left out of the bands


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


def autocovariance(y: Floats, weight: Floats, lags: int) -> Floats:
    """(lags + 1,) of the cells that have data, each lag by the pairs it has; tapered where there are few."""
    present = weight > 0
    x = np.where(present, y - y[present].mean(), 0.0)
    if present.all():
        return np.array([x[: len(x) - k] @ x[k:] for k in range(lags + 1)]) / len(x)
    w = present.astype(np.float64)
    pairs = np.array([w[: len(w) - k] @ w[k:] for k in range(lags + 1)])
    sums = np.array([x[: len(x) - k] @ x[k:] for k in range(lags + 1)])
    taper = 1 - np.arange(lags + 1) / len(x)
    return np.divide(sums, pairs, out=np.zeros(lags + 1), where=pairs > 0) * taper


def autoregression(y: Floats, weight: Floats, most: int = MOST_ORDER) -> tuple[Floats, float]:
    """(coefficients, variance of the noise), of the order up to `most` that Schwarz's criterion prefers."""
    n = int(np.count_nonzero(weight))
    most = min(most, n // 12)
    r = autocovariance(y, weight, most)
    if r[0] <= 0:
        return np.zeros(0), 0.0
    a, variance = np.zeros(0), float(r[0])
    best = (n * np.log(variance), a, variance)
    for k in range(1, most + 1):
        reflection = (r[k] - a @ r[k - 1 : 0 : -1]) / variance if k > 1 else r[1] / variance
        if not abs(reflection) < 1:  # gaps can make a covariance that is none
            break
        a = np.r_[a - reflection * a[::-1], reflection]
        variance *= 1 - reflection**2
        score = n * np.log(variance) + k * np.log(n)
        if score < best[0]:
            best = (score, a, variance)
    return best[1], best[2]


def fit_null(transform: Transform, y: Floats, power: Floats, lines: list[float], most: int = MOST_ORDER) -> Null:
    """The null of y (n,), from which lines were removed, with its reduction / 2 at the transform's frequencies.

    `lines`: the frequencies near which the power says nothing, the lines' own and their harmonics'. `most`: the
    highest order.
    """
    coefficients, variance = autoregression(y, transform.weight, most)
    response = fft.rfft(np.r_[1.0, -coefficients], transform.size)
    level = variance / np.maximum(np.abs(response) ** 2, 1e-12)
    if variance <= 0:
        return Null(coefficients, variance, np.zeros(len(level)))
    return Null(coefficients, variance, level * _raised(transform, power / level, lines))


def _raised(transform: Transform, ratio: Floats, lines: list[float]) -> Floats:
    """By what factor, at least 1, the bands' medians of `ratio` are above a null's; interpolated in log frequency."""
    per_cycle = transform.size / transform.n
    cycles = np.arange(1, transform.n // 2)
    near = np.zeros(len(cycles), bool)
    for frequency in lines:
        near |= np.abs(cycles - frequency * transform.n) < NEAR
    cycles = cycles[~near]
    values = ratio[np.minimum(np.rint(cycles * per_cycle).astype(np.int64), len(ratio) - 1)]
    centres, factors = [], []
    start = 0
    while start < len(cycles):
        stop = max(start + LEAST_BAND, int(np.searchsorted(cycles, cycles[start] * BAND)))
        if len(cycles) - stop < LEAST_BAND:
            stop = len(cycles)
        centres.append(np.log(cycles[start:stop]).mean())
        factors.append(np.median(values[start:stop]) / np.log(2))
        start = stop
    if not centres:
        return np.ones(len(ratio))
    at = np.log(np.maximum(np.arange(len(ratio)), 1) / per_cycle)
    return np.exp(np.interp(at, centres, np.log(np.maximum(factors, 1.0))))


def surrogate(null: Null, n: int, rng: np.random.Generator) -> Floats:
    """(n,) of the null's autoregression, after a run-in that lets it forget its beginning."""
    run_in = 20 * (1 + len(null.coefficients))
    noise = rng.standard_normal(n + run_in) * np.sqrt(null.variance)
    return signal.lfilter([1.0], np.r_[1.0, -null.coefficients], noise)[run_in:]
