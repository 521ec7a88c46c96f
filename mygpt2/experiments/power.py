"""What would decide: how many replicates, or tokens of text, resolve a difference of a given size.

A spread that was seen over few replicates may be far from the true one. The numbers here are averaged over what the
true one may be, given the one seen (its fiducial law, s² nu / chi²), so that nine in ten who follow them find what they
look for; a plain formula with the spread seen would promise that to too many.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import chdtri, nctdtr, ndtr

from mygpt2.experiments.estimate import quantile

POWER = 0.9
MOST = 10_000  # replicates; whoever needs more will not run them
NODES = 200  # of the law of the spread


def replicates_needed(effect: float, spread: float, seen: int, level: float, power: float = POWER) -> int | None:
    """Replicates in all, those seen included, after which a two-sided test of `level` finds `effect` with `power`.

    `spread` is the standard deviation of the difference over the `seen` >= 2 replicates. None for more than MOST.
    """
    if seen < 2:
        raise ValueError("one replicate shows no spread")
    effect = abs(effect)
    if effect == 0.0:
        return None
    if spread == 0.0:
        return seen
    spreads = _spreads(seen - 1) * spread

    def enough(n: int) -> bool:
        return float(np.mean(_power(effect / spreads * math.sqrt(n), n - 1, level))) >= power

    return _least(enough, seen)


def effect_found(spread: float, seen: int, level: float, power: float = POWER) -> float | None:
    """The size that so many replicates find with `power`, from their own spread; None for fewer than two."""
    if seen < 2 or spread == 0.0:
        return None
    spreads = _spreads(seen - 1) * spread

    def enough(effect: float) -> bool:
        return float(np.mean(_power(effect / spreads * math.sqrt(seen), seen - 1, level))) >= power

    high = spread
    while not enough(high):
        high *= 2
    low = 0.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def tokens_needed(
    effect: float, error: float, tokens: int, freedom: float, level: float, power: float = POWER
) -> int | None:
    """Tokens of text in all after which the difference of two models is found, where `tokens` of it gave `error`.

    Documents are as they were: the error falls with the root of their number. None where nothing was seen to differ.
    """
    if effect == 0.0:
        return None
    wanted = abs(effect) / (quantile(1 - level / 2, freedom) + quantile(power, freedom))
    times = (error / wanted) ** 2
    return math.ceil(tokens * times) if times < 1e9 else None


def power_of(effect: float, spread: float, n: int, level: float) -> float:
    """Chance that n replicates of a known spread find the effect at a two-sided level."""
    return float(_power(np.array([abs(effect) / spread * math.sqrt(n)]), n - 1, level)[0])


@lru_cache(maxsize=64)
def _spreads(freedom: int) -> np.ndarray:
    """What the true spread may be for a seen one of 1: equally likely values."""
    tails = (np.arange(NODES) + 0.5) / NODES
    return np.sqrt(freedom / chdtri(freedom, tails))


def _power(away: np.ndarray, freedom: int, level: float) -> np.ndarray:
    """Chance that |t| exceeds its bound where the true mean lies `away` errors from zero."""
    bound = quantile(1 - level / 2, freedom)
    sure = away > 8 * (bound + 5)  # an estimated spread is never eight times the true one
    found = 1 - nctdtr(freedom, np.where(sure, 0.0, away), bound)
    found = np.where(sure, 1.0, found)
    near = ndtr((away - bound) / math.sqrt(1 + bound**2 / (2 * freedom)))  # where the series gives up
    return np.where(np.isfinite(found), found, near)


def _least(enough: object, start: int) -> int | None:
    """The least n from `start` on that is enough, for what stays enough; None for more than MOST."""
    assert callable(enough)
    if enough(start):
        return start
    low, high = start, start
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
