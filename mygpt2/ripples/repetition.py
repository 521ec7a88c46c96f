"""Was the same data read again? Then the loss is like itself one pass later, more than at any lag near by.

The ripple is removed first, and the residual whitened by its null, so that neither a wave nor slow drift makes lags
alike. Where the pass is known, that lag is tested; else all lags are, and their number is paid for. What is like itself
because of a few events is not data: stretches of the overlap must agree. Means over several neighbouring lags are
tried too, for a pass that is not a whole number of steps, and for data that came again in a slightly different order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, special

from mygpt2.ripples.detrend import robust_scale
from mygpt2.ripples.log import Floats
from mygpt2.ripples.null import Null
from mygpt2.ripples.spectrum import Transform

FEWEST_PASSES, MOST_PASSES = 1.1, 8.0  # whoever reads more passes has a period, which the search for combs sees
LEAST_LAG, LEAST_OVERLAP = 8, 48  # cells
WIDTHS = (1, 2, 4, 8)  # lags taken together
NEIGHBOURS = 128  # lags that tell how alike lags are by chance
OUTLIER = 3.0  # deviations beyond which a step does not count for more
STRETCHES, AGREE = 8, 0.75  # of the overlap; the share of them that must be alike
ALPHA_KNOWN, ALPHA_FEW, ALPHA = 0.01, 1e-3, 1e-4  # of a lag that was told, of a few, of all
LEAST = 0.15  # correlation
SEVERAL = 0.6  # of the surprise at a lag, with which a whole part of that lag is the pass instead


@dataclass(frozen=True)
class Repetition:
    """`lag` in cells; `correlation` there, `near_by` at lags around, `thirds` at one and two thirds of it.

    `known`: the pass was known, not looked for. `lags`: the first and last that were tried; `limit`: the correlation
    that would have been found, at half of the log.
    """

    found: bool
    lag: float
    known: bool
    correlation: float
    near_by: float
    thirds: tuple[float, float]
    p_value: float
    passes: float
    lags: tuple[float, float]
    limit: float


def autocorrelation(y: Floats, weight: Floats, lags: int | None = None) -> Floats:
    """(lags + 1,), to half of the series unless told: the correlation of y with itself at each lag, by the pairs of
    cells that have data.
    """
    count = (len(y) // 2 if lags is None else lags) + 1
    products, pairs, _ = _products(y, weight > 0, count)
    covariance = np.divide(products, pairs, out=np.zeros(count), where=pairs > 0.5)
    return covariance / covariance[0] if covariance[0] > 0 else covariance


def _products(y: Floats, present: np.ndarray, count: int) -> tuple[Floats, Floats, float]:
    """(sums of products of y with itself at each lag (count,), of how many pairs (count,), variance of y)."""
    x = np.where(present, y - y[present].mean(), 0.0)
    size = fft.next_fast_len(2 * len(y), real=True)
    products = fft.irfft(np.abs(fft.rfft(x, size)) ** 2, size)[:count]
    pairs = fft.irfft(np.abs(fft.rfft(present.astype(np.float64), size)) ** 2, size)[:count]
    return products, pairs, float(np.mean(x[present] ** 2))


def repetition(
    rest: Floats, transform: Transform, null: Null, *, pass_cells: float | None, period_cells: float | None,
    drifting: Sequence[float] = (),
) -> Repetition | None:  # fmt: skip
    """The test on a residual without its line (n,); None where the log is too short or nothing can be tried.

    `drifting`: periods in cells of ripples that the residual still has here and there.
    """
    n, weight = len(rest), transform.weight
    shortest, longest = max(LEAST_LAG, math.ceil(n / MOST_PASSES)), min(int(n / FEWEST_PASSES), n - LEAST_OVERLAP)
    first, last, level = (shortest, longest, ALPHA)
    if pass_cells is not None:
        first, last, level = math.floor(0.99 * pass_cells) - 1, math.ceil(1.01 * pass_cells) + 1, ALPHA_KNOWN
    white = _white(rest, transform, null)
    if null.variance <= 0 or np.ptp(white) == 0 or first < LEAST_LAG or last > longest or last - first < 2:
        return None
    raw = autocorrelation(rest, weight, longest + 1)
    surprise = _surprise(white, weight, longest + 1)
    tried = [*_sharp(surprise, first, last, white)]
    lags = [pass_cells] if pass_cells is not None else _multiples(period_cells, first, last)
    tried += _broad(raw, null, n, lags, rest)
    lag, p, series = min(tried, key=lambda one: one[1])
    p = min(1.0, 2 * p)
    value, near = _interpolated(raw, lag), _near_by(raw, lag)
    found = (
        p < (max(level, ALPHA_FEW) if lag in lags else level) and value - near > LEAST and _agree(series, weight, lag)
    )
    if period_cells is not None and pass_cells is None:  # a period that drifts is like itself one period on
        found = found and value - _interpolated(raw, period_cells) > LEAST
    found = found and not any(_one_of_many(surprise, lag, period) for period in drifting)
    thirds = (_interpolated(raw, lag / 3), _interpolated(raw, 2 * lag / 3))
    needed = float(-special.ndtri(level / (2 * len(WIDTHS) * (last - first)))) / math.sqrt(n / 2)
    return Repetition(
        found, lag, pass_cells is not None, value, near, thirds, p, n / lag, (first, last), max(LEAST, needed)
    )  # fmt: skip


def recurring(y: Floats, weight: Floats, period: float, p: float) -> Repetition:
    """What a comb says of data that is read again every few steps, many times: its period (cells) is the pass."""
    raw = autocorrelation(y, weight)
    value, near = _interpolated(raw, period), _near_by(raw, period)
    thirds = (_interpolated(raw, period / 3), _interpolated(raw, 2 * period / 3))
    return Repetition(True, period, False, value, near, thirds, p, len(y) / period, (period, period), 0.0)


def _white(rest: Floats, transform: Transform, null: Null) -> Floats:
    """The residual (n,) with the null's spectrum divided out, and no step beyond OUTLIER deviations."""
    n, present = len(rest), transform.weight > 0
    centred = np.where(present, rest - rest[present].mean(), 0.0)
    gain = np.sqrt(np.divide(1.0, null.power, out=np.zeros_like(null.power), where=null.power > 0))
    white = np.where(present, fft.irfft(fft.rfft(centred, transform.size) * gain, transform.size)[:n], 0.0)
    scale = robust_scale(white[present])
    return np.clip(white / scale, -OUTLIER, OUTLIER) if scale > 0 else np.zeros(n)


def _surprise(white: Floats, weight: Floats, lags: int) -> Floats:
    """(lags + 1,): how far the likeness at each lag is above that of its neighbours, in deviations."""
    products, pairs, variance = _products(white, weight > 0, lags + 1)
    found = products / (variance * np.sqrt(np.maximum(pairs, 1.0)))
    blocks = np.array_split(found[1:], max(1, lags // NEIGHBOURS))
    centre = np.cumsum([len(block) for block in blocks]) - len(blocks[0]) / 2
    middle = np.interp(np.arange(lags + 1), centre, [float(np.median(block)) for block in blocks])
    spread = np.interp(np.arange(lags + 1), centre, [robust_scale(block) for block in blocks])
    return np.asarray((found - middle) / np.maximum(1.0, spread))


def _sharp(surprise: Floats, first: int, last: int, white: Floats) -> Iterator[tuple[float, float, Floats]]:
    """(lag, chance, series) of the lag most alike, or few lags together; of one pass where several are."""
    sums = np.r_[0.0, np.cumsum(surprise)]
    for width in WIDTHS:
        mean = (sums[first + width : last + 1] - sums[first : last + 1 - width]) / math.sqrt(width)
        if not len(mean):
            continue
        top = float(mean.max())
        at = first + int(np.argmax(mean))
        inside = np.maximum(surprise[at : at + width], 1e-9)
        lag = float(at + inside @ np.arange(width) / inside.sum())
        for part in range(int(lag / first), 1, -1):
            begin = int(lag / part) - width
            if begin >= first and surprise[begin : begin + 2 * width + 2].max() > SEVERAL * top / math.sqrt(width):
                lag = float(begin + int(np.argmax(surprise[begin : begin + 2 * width + 2])))
                break
        yield lag, min(1.0, len(WIDTHS) * (last - first) * float(special.ndtr(-top))), white


def _multiples(period: float | None, first: int, last: int) -> list[float]:
    """Whole numbers of a period among the lags: what is read again starts again with a file."""
    if period is None:
        return []
    return [m * period for m in range(max(2, math.ceil(first / period)), int(last / period) + 1)]


def _broad(raw: Floats, null: Null, n: int, lags: list[float], rest: Floats) -> list[tuple[float, float, Floats]]:
    """The same of a few lags, by the residual itself: a slow likeness, which whitening would take away.

    Its error is Bartlett's under the null, or what lags near by differ by.
    """
    memory = fft.irfft(null.power[:: max(1, len(null.power) // 4096)])
    memory = memory[: len(memory) // 2] / memory[0]
    spread = math.sqrt(1 + 2 * float(np.sum(memory[1:] ** 2)))
    found = []
    for lag in lags:
        around = raw[_around(raw, lag)]
        error = max(spread / math.sqrt(max(1.0, n - lag)), float(around.std()))
        alone = float(special.ndtr(-(_interpolated(raw, lag) - float(np.median(around))) / error))
        found.append((lag, -math.expm1(len(lags) * math.log1p(-min(alone, 1 - 1e-12))), rest))
    return found


def _one_of_many(surprise: Floats, lag: float, period: float) -> bool:
    """Whether lags a period less and a period more are as likely: then it is the period that makes them so."""
    slack = max(2, round(0.03 * period))
    beside = []
    for place in (round(lag - period), round(lag + period)):
        part = surprise[max(1, place - slack) : place + slack + 1]
        beside.append(float(part.max()) if len(part) else 0.0)
    at = surprise[max(1, int(lag) - 1) : int(lag) + 3]
    return min(beside) > SEVERAL * float(at.max(initial=0.0))


def _around(raw: Floats, lag: float) -> np.ndarray:
    places = np.rint(lag * np.r_[np.linspace(0.6, 0.9, 60), np.linspace(1.1, 1.4, 60)])
    return np.unique(places[places < len(raw)].astype(np.int64))


def _near_by(raw: Floats, lag: float) -> float:
    return float(np.median(raw[_around(raw, lag)]))


def _agree(series: Floats, weight: Floats, lag: float) -> bool:
    """Whether the overlap is alike along its whole length."""
    at = round(lag)
    both = (weight[:-at] > 0) & (weight[at:] > 0)
    products = np.where(both, series[:-at] * series[at:], 0.0)
    sums = np.array([part.sum() for part in np.array_split(products, STRETCHES)])
    return bool(np.mean(sums > 0) >= AGREE and np.sort(sums)[:-1].sum() > 0.5 * sums.sum())


def _interpolated(correlation: Floats, lag: float) -> float:
    """At a lag between two cells, the larger of both: the peak is narrower than a cell."""
    low = min(int(lag), len(correlation) - 2)
    return float(max(correlation[low], correlation[low + 1]))
