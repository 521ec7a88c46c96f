"""What is left of a loss without its descent: a robust curve in log tokens, or the loss of a reference run, is taken
away.

The curve is a polynomial of degree four in the logarithm of tokens, with the learning rate beside it where it is
known and a few kinks where the loss has them, fitted with Huber's weights so that spikes do not pull it. A reference
run with the same data order shares nearly all of the noise: the difference has some twenty times less of it. The
ripple that both have goes with it; a reference in another order keeps it.
"""

from __future__ import annotations

import numpy as np

from mygpt2.ripples.jumps import falls
from mygpt2.ripples.log import Curve, Floats, Log

DEGREE = 4
HUBER = 1.345  # standard deviations within which a residual counts in full (95 % efficient for normal noise)
ROUNDS = 8
SPIKE = 6.0  # standard deviations beyond which a residual is held back
STRETCHES, MOST_KINKS, KINK = 160, 3, 0.25
MOST_KNOTS = 20_000  # points the curve is fitted to; longer logs are averaged first
WARMUP_SHARE = 0.05  # left out where a log does not say how long its warm-up was: the descent is too steep for a curve


def without_warmup(log: Log) -> tuple[Log, int]:
    """The log without its warm-up, and how many of its points that were.

    What is left out is the warm-up where it is known, and the first twentieth of the run in any case.
    """
    n = len(log)
    if n < 3:
        return log, 0
    share = WARMUP_SHARE if log.warmup != 0 else 0.0  # 0: a range that a person chose
    begin = log.step[0] + share * (log.step[-1] - log.step[0])
    begin = max(begin, float(log.warmup or 0))
    first = int(np.searchsorted(log.step, begin))
    if first == 0 or n - first < n / 2:
        return log, 0
    return log.between(log.step[first], None), first


def basis(log: Log) -> Floats:
    """Columns (n, DEGREE + 1 or + 2) of the trend at the log's points."""
    x = np.log(log.tokens if log.tokens is not None else log.step - min(0.0, log.step[0]) + 1.0)
    columns = [np.polynomial.chebyshev.chebvander(_scaled(x), DEGREE)]
    if log.rate is not None and np.ptp(log.rate) > 1e-3 * np.abs(log.rate).max():
        columns.append(_scaled(log.rate)[:, None])
    return np.concatenate(columns, axis=1)


def _scaled(x: Floats) -> Floats:
    """To [-1, 1]."""
    low, high = float(x.min()), float(x.max())
    return 2 * (x - low) / (high - low) - 1 if high > low else np.zeros(len(x))


def with_kinks(columns: Floats, x: Floats, y: Floats) -> Floats:
    """The columns with a hinge for each kink of the curve, three at most: a rate that begins to fall bends the loss.

    `x` (n,) is where the points are.
    """
    at = _scaled(x)
    if (stairs := falls(columns, y[None])[0]) is not None:
        columns = np.column_stack([columns, stairs])
    return np.column_stack([columns, *(np.maximum(0.0, at - knot) for knot in kinks(columns, x, y[None])[0])])


def kinks(columns: Floats, x: Floats, y: Floats) -> list[list[float]]:
    """Where each of series y (B, n) has kinks, of x scaled to [-1, 1].

    A hinge is taken where it explains KINK of what the columns left of the medians of some hundred stretches; a
    ripple of many cycles has no such place.
    """
    found: list[list[float]] = [[] for _ in y]
    n = y.shape[1]
    if n < 2 * STRETCHES:
        return found
    every = n // STRETCHES
    whole = STRETCHES * every
    place = _scaled(x)[:whole].reshape(STRETCHES, every).mean(1)
    knots = place[6:-6:4]
    q = np.linalg.qr(columns[:whole].reshape(STRETCHES, every, -1).mean(1))[0]
    rest = np.median(y[:, :whole].reshape(-1, STRETCHES, every), axis=2)
    rest = rest - (rest @ q) @ q.T
    hinges = np.maximum(0.0, place - knots[:, None])
    hinges = np.repeat((hinges - (hinges @ q) @ q.T)[None], len(y), axis=0)  # (B, knots, stretches)
    rows = np.arange(len(y))
    for _ in range(MOST_KINKS):
        size = np.maximum((hinges**2).sum(2), 1e-12)
        along = np.einsum("bs,bks->bk", rest, hinges)
        gain = along**2 / size
        best = np.argmax(gain, axis=1)
        kept = gain[np.arange(len(rows)), best] > KINK * (rest**2).sum(1)
        rows, rest, hinges, best, size = rows[kept], rest[kept], hinges[kept], best[kept], size[kept]
        if not len(rows):
            break
        for row, knot in zip(rows, knots[best], strict=True):
            found[row].append(float(knot))
        own = np.arange(len(rows))
        unit = hinges[own, best] / np.sqrt(size[own, best])[:, None]
        rest = rest - np.einsum("bs,bs->b", rest, unit)[:, None] * unit
        hinges = hinges - np.einsum("bks,bs->bk", hinges, unit)[:, :, None] * unit[:, None]
    return found


def without_trend(columns: Floats, x: Floats, y: Floats, bends: bool = True) -> Floats:
    """Series y (B, n) without what the columns, and with `bends` the hinges of each one's kinks, explain by least
    squares.
    """
    q = np.linalg.qr(columns)[0]
    rest = y - (y @ q) @ q.T
    at = _scaled(x)
    if not bends:
        return rest
    for row, (knots, stairs) in enumerate(zip(kinks(columns, x, y), falls(columns, y), strict=True)):
        if stairs is not None:
            wide = with_kinks(columns, x, y[row])
        elif knots:
            wide = np.column_stack([columns, *(np.maximum(0.0, at - knot) for knot in knots)])
        if knots or stairs is not None:
            own = np.linalg.qr(wide)[0]
            rest[row] = y[row] - own @ (own.T @ y[row])
    return rest


def robust_trend(columns: Floats, y: Floats) -> Floats:
    """The curve (n,) through y in the span of `columns`, by iterated least squares with Huber's weights."""
    every = max(1, len(y) // MOST_KNOTS)
    whole = len(y) // every * every
    short = columns[:whole].reshape(-1, every, columns.shape[1]).mean(1)
    mean = y[:whole].reshape(-1, every).mean(1)
    weight = np.ones(len(mean))
    solution = np.zeros(columns.shape[1])
    for _ in range(ROUNDS):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(short * root, mean * root[:, 0], rcond=None)[0]
        residual = mean - short @ solution
        scale = robust_scale(residual)
        if scale <= 0:
            break
        weight = 1 / np.maximum(1.0, np.abs(residual) / (HUBER * scale))
    return columns @ solution


def robust_scale(x: Floats) -> float:
    """Standard deviation from the median of the absolute deviations, for normal noise."""
    return float(np.median(np.abs(x - np.median(x))) / 0.6745) if len(x) else 0.0


def detrend(log: Log) -> tuple[Floats, Floats, int]:
    """(residual (n,), trend (n,), spikes held back) of a log with at least a few points."""
    x = log.tokens if log.tokens is not None else log.step
    trend = robust_trend(with_kinks(basis(log), x, log.loss), log.loss)
    residual, spikes = _held_back(log.loss - trend)
    return residual, trend, spikes


def _held_back(residual: Floats) -> tuple[Floats, int]:
    limit = SPIKE * robust_scale(residual)
    if limit <= 0:
        return residual, 0
    spikes = int((np.abs(residual) > limit).sum())
    return np.clip(residual, -limit, limit), spikes


def against(log: Log, reference: Log) -> tuple[Log, Floats, Floats, int]:
    """(log of the common steps, residual, trend, spikes) of the difference to a reference run.

    What is left of the difference is detrended too: runs differ by a slowly changing amount.
    """
    _, mine, its = np.intersect1d(log.step, reference.step, assume_unique=True, return_indices=True)
    common = log.at(mine)
    difference = common.loss - reference.loss[its]
    trend = robust_trend(basis(common), difference) if len(common) > 2 * DEGREE else np.zeros(len(common))
    residual, spikes = _held_back(difference - trend)
    return common, residual, trend + reference.loss[its], spikes


def detrend_curve(curve: Curve) -> Floats:
    """A validation curve without its descent (n,)."""
    plain = Log("", curve.step, curve.loss)
    return curve.loss - robust_trend(basis(plain), curve.loss)
