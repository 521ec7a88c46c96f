"""How much of a step's excess loss its worst rows explain, held against the rows of the steps before it. Pure.

The rows of a batch differ widely as they are, so that a step's worst row says little. Rank by rank the sorted losses
are held against the mean of those of the steps nearby: the differences add up to exactly what the batch's mean lies
above theirs, a few odd rows hold nearly all of it, and a model that has become worse spreads it over all ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.experiments.spike import NORMAL

Floats = NDArray[Any]
ODD = 4.0  # robust deviations above the rows nearby
FEW = 0.25  # of the rows: more of them are no exceptions
MOST = 0.5  # of the excess, which the odd rows must explain to be its cause


@dataclass(frozen=True)
class Shares:
    """What the rows of a step say of its excess.

    `excess`: the mean loss above that of the rows nearby, in nats. `odd`: how many rows stand out among those nearby.
    `explained`: the share of the excess in the worst `counted` rows, which are the odd ones, or a tenth where there
    are none. `usual`: the mean and the standard deviation of the rows nearby.
    """

    rows: int
    excess: float
    odd: int
    counted: int
    explained: float | None
    usual: tuple[float, float]
    steps: int

    @property
    def of_few(self) -> bool:
        """Whether a few rows made the step."""
        return self.explained is not None and 0 < self.odd <= max(1.0, FEW * self.rows) and self.explained >= MOST


def shares(loss: Floats, nearby: Sequence[Floats]) -> Shares | None:
    """`loss` (rows,) of a step, `nearby` the same of steps beside it; None without one of as many rows.

    Rows whose loss is no number are the worst there are.
    """
    size = len(loss)
    others = [np.sort(rows)[::-1] for rows in nearby if len(rows) == size and np.isfinite(rows).all()]
    if not size or not others:
        return None
    every = np.concatenate(others)
    middle = float(np.median(every))
    sigma = float(np.median(np.abs(every - middle)) / NORMAL)
    usual = float(every.mean()), sigma
    broken = int((~np.isfinite(loss)).sum())
    odd = broken + int((loss[np.isfinite(loss)] > middle + ODD * sigma).sum())
    counted = odd or max(1, round(0.1 * size))
    if broken:
        return Shares(size, float("nan"), odd, counted, 1.0, usual, len(others))
    above = np.sort(loss)[::-1] - np.mean(others, axis=0)
    excess = float(above.mean())
    explained = float(above[:counted].sum() / above.sum()) if excess > 0 else None
    return Shares(size, excess, odd, counted, explained, usual, len(others))


def common(places: Sequence[Sequence[Hashable]]) -> tuple[Hashable, int] | None:
    """The document that most of some rows touch, and how many do; None unless it is in two rows and half of them."""
    count = Counter(place for row in places for place in dict.fromkeys(row))
    if not count:
        return None
    found, rows = count.most_common(1)[0]
    return (found, rows) if rows > 1 and 2 * rows >= len(places) else None
