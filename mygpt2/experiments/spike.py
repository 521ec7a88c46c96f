"""Steps whose loss stands out above its neighbourhood. Pure: columns in, findings out.

A loss is held against the level of the steps before it, on its way down to that of the steps after: in a descent the
middle of both, where the loss stays higher afterwards the level before alone, and before a fall the level before as
well, so that a lowered rate makes no spike of the steps ahead of it. How much a loss varies is taken robustly from the
differences of neighbours, and from what the levels leave. Warm-up is not judged: there the loss falls too steeply.

Only rises are looked for. What falls at once and stays down is `ripples.jumps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[Any]
NEAR = 16  # steps on a side whose median is the level there
FAR = 48  # steps on a side that tell how much the loss varies
EVERY = 8  # steps between two looks at how much it varies
LIMIT = 6.0  # robust deviations; of normal noise 200,000 steps have none, tests/experiments/test_spike.py
LEAST = 1e-3  # of the level: what varies less than this is not told apart
APART = 8  # ordinary steps that end an episode
NORMAL = 0.6744897501960817  # the median of |x| of a standard normal x


@dataclass(frozen=True)
class Judged:
    """The steps (n,) that can be judged, ascending: their loss, what the neighbourhood gives, and the deviations z.

    z is infinite where the loss is no number.
    """

    step: NDArray[np.int64]
    loss: Floats
    expected: Floats
    z: Floats

    def at(self, step: int) -> int | None:
        """The place of a step; None for one that was not judged."""
        place = int(np.searchsorted(self.step, step))
        return place if place < len(self.step) and self.step[place] == step else None


@dataclass(frozen=True)
class Spike:
    """An episode of steps that stand out, from `first` to `last`; `step` is the worst of them."""

    step: int
    first: int
    last: int
    loss: float
    expected: float
    z: float


def judge(step: NDArray[np.int64], loss: Floats, warmup: int = 0) -> Judged:
    """Every step of a run that has enough neighbours. `step` (n,) ascending, `loss` (n,) in nats, NaN where it is none.

    Not judged: the warm-up, the first NEAR steps, and runs of fewer than 2 NEAR.
    """
    finite = np.isfinite(loss)
    at, value = step[finite], loss[finite].astype(np.float64)
    expected, sigma = _neighbourhood(value)
    z = np.divide(value - expected, sigma, out=np.zeros(len(value)), where=sigma > 0)
    kept = (np.arange(len(value)) >= NEAR) & (at > warmup) & (len(value) >= 2 * NEAR)
    odd = ~finite & (np.cumsum(finite) >= NEAR) & (step > warmup)
    before = np.maximum(np.cumsum(finite) - 1, 0)[odd]
    join = np.concatenate
    found = (
        join([at[kept], step[odd]]),
        join([value[kept], loss[odd]]),
        join([expected[kept], value[before] if len(value) else np.zeros(0)]),
        join([z[kept], np.full(int(odd.sum()), np.inf)]),
    )
    order = np.argsort(found[0], kind="stable")
    return Judged(*(column[order] for column in found))


def spikes(judged: Judged, limit: float = LIMIT) -> list[Spike]:
    """The episodes, in their order."""
    places = np.flatnonzero(judged.z > limit)
    if not len(places):
        return []
    groups = np.split(places, np.flatnonzero(np.diff(places) > APART) + 1)
    return [_episode(judged, group) for group in groups]


def _episode(judged: Judged, places: NDArray[np.intp]) -> Spike:
    worst = places[int(np.argmax(judged.z[places]))]
    first, last = judged.step[places[0]], judged.step[places[-1]]
    figures = (float(column[worst]) for column in (judged.loss, judged.expected, judged.z))
    return Spike(int(judged.step[worst]), int(first), int(last), *figures)


def _neighbourhood(loss: Floats) -> tuple[Floats, Floats]:
    """(expected (n,), standard deviation (n,)) of a finite loss (n,)."""
    n = len(loss)
    if n < 2 * NEAR:
        return loss.copy(), np.zeros(n)
    medians = np.median(sliding_window_view(loss, NEAR), axis=1)  # [i]: of loss[i : i + NEAR]
    at = np.arange(n)
    before = medians[np.clip(at - NEAR, 0, n - NEAR)]
    earlier = medians[np.clip(at - 2 * NEAR, 0, n - NEAR)]
    after = np.where(at + NEAR < n, medians[np.clip(at + 1, 0, n - NEAR)], before)
    going = before + (before - earlier) * (NEAR + 1) / (2 * NEAR)
    expected = np.minimum(before, np.maximum((before + after) / 2, going))
    sigma = np.maximum(_spread(np.abs(np.diff(loss)) / np.sqrt(2), n), _spread(np.abs(loss - expected)[NEAR:], n))
    return expected, np.maximum(sigma, LEAST * np.abs(expected))


def _spread(sizes: Floats, n: int) -> Floats:
    """(n,): the standard deviation that the median of sizes around each of n places tells."""
    width = min(2 * FAR, len(sizes))
    medians = np.median(sliding_window_view(sizes, width)[::EVERY], axis=1) / NORMAL
    return medians[np.clip((np.arange(n) - (n - len(sizes)) - width // 2) // EVERY, 0, len(medians) - 1)]
