"""Where along an axis the loss is lowest: a parabola about the best arm, on the axis' logarithm.

The interval has two sources. Documents are drawn again in blocks, and the parabola found anew each time; and where more
than three arms lie about the best, one through the best three and one fitted to up to five of them both count, as
neither is the law. It is about these models: another pair of seeds may lead elsewhere. A parabola says nothing about
arms that are far worse, such as one that diverged: then only the neighbours of the best bound the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt2.experiments.intervals import Documents
from mygpt2.experiments.scores import Floats, Scores

DRAWS = 400
LEVEL = 0.05
SURE = 1 - LEVEL / 2  # share of the draws from which on it is said that an optimum lies outside the grid
FEWEST = 3  # arms
FAR = 0.5  # nats above the best, beyond which an arm is left out of a parabola


@dataclass(frozen=True)
class Optimum:
    """`value` of the axis; None where it lies `outside` the grid ("below", "above"), or between neighbours that are too
    far off for a parabola. `low` and `high` bound it, None where the grid does not. `share_outside`: of the draws;
    `fitted`: arms that the parabolas rest on."""

    value: float | None
    low: float | None
    high: float | None
    outside: str
    share_outside: float
    fitted: int

    def to_json(self) -> dict[str, Any]:
        return vars(self).copy()


def optimum(
    values: Sequence[float], arms: Sequence[Sequence[Scores]], seed: int = 0, grid: Sequence[float] = ()
) -> Optimum | None:
    """Of arms with ascending positive values, each scored under the same pairs of seeds. None of fewer than three.

    `grid`: the values of all arms. Beside the best one may be an arm that lost before, or diverged: then the optimum
    lies between, and not outside.
    """
    if len(values) < FEWEST or min(values) <= 0:
        return None
    targets = arms[0][0].targets
    nll = np.stack([np.mean([each.nll for each in scores], axis=0) for scores in arms])
    x, losses = np.log(np.asarray(values, float)), nll.sum(1) / targets.sum()
    best = int(losses.argmin())
    if best in (0, len(x) - 1):
        return _at_the_edge(values, nll, targets, best, seed, grid or values)
    near = losses - losses[best] <= FAR
    if not near[best - 1] or not near[best + 1]:
        return Optimum(None, values[best - 1], values[best + 1], "", 0.0, 0)
    drawn = Documents(nll, targets).drawn_again(DRAWS, np.random.default_rng(seed))
    window = _about(near, best)
    found = [_vertices(x, drawn)]
    if window.stop - window.start > FEWEST:
        found.append(_fitted(x[window], drawn[:, window]))
    every = np.sort(np.concatenate(found))
    cut = int(LEVEL / 2 * len(every))
    low, high = (float(v) for v in every[[cut, len(every) - 1 - cut]])
    at = float(_vertices(x, losses[None])[0])
    return Optimum(_value(at), _value(min(low, at)), _value(max(high, at)), "", float(np.mean(~np.isfinite(every))),
                   window.stop - window.start)  # fmt: skip


def _at_the_edge(
    values: Sequence[float], nll: Floats, targets: Floats, best: int, seed: int, grid: Sequence[float]
) -> Optimum:
    """The best is the first or the last of the arms: outside the grid, unless arms lie beyond that are gone."""
    below = best == 0
    gone = [v for v in grid if (v < values[0] if below else v > values[-1])]
    if gone:
        between = (max(gone), values[1]) if below else (values[-2], min(gone))
        return Optimum(None, *between, "", 0.0, 0)
    drawn = Documents(nll, targets).drawn_again(DRAWS, np.random.default_rng(seed))
    share = float(np.mean(drawn[:, best] < np.delete(drawn, best, 1).min(1)))
    sure = share >= SURE
    low, high = (None, values[1]) if below else (values[-2], None)
    return Optimum(None, low if sure else None, high if sure else None, "below" if below else "above", share, 0)


def _about(near: Floats, best: int) -> slice:
    """Up to two arms on either side of the best, as far as all between are near."""
    start, stop = best, best + 1
    while start > max(0, best - 2) and near[start - 1]:
        start -= 1
    while stop < min(len(near), best + 3) and near[stop]:
        stop += 1
    return slice(start, stop)


def _vertices(x: Floats, losses: Floats) -> Floats:
    """(n,) for x (arms,) ascending and losses (n, arms): the parabola's lowest point through the best arm and the two
    beside it; minus or plus infinity where the best arm is the first or the last one."""
    best = losses.argmin(1)
    inside = np.clip(best, 1, len(x) - 2)
    rows = np.arange(len(losses))
    a, b, c = (x[inside + k] for k in (-1, 0, 1))
    fa, fb, fc = (losses[rows, inside + k] for k in (-1, 0, 1))
    over = (b - a) ** 2 * (fb - fc) - (b - c) ** 2 * (fb - fa)
    under = (b - a) * (fb - fc) - (b - c) * (fb - fa)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(under == 0, b, b - 0.5 * over / under)
    found = np.clip(found, a, c)
    return np.where(best == 0, -np.inf, np.where(best == len(x) - 1, np.inf, found))


def _fitted(x: Floats, losses: Floats) -> Floats:
    """(n,) lowest points of parabolas fitted to all arms by least squares, within their range."""
    curve, slope, _ = np.polyfit(x - x.mean(), losses.T, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(curve > 0, x.mean() - slope / (2 * curve), x[losses.argmin(1)])
    return np.clip(at, x[0], x[-1])


def _value(log: float) -> float | None:
    return float(np.exp(log)) if np.isfinite(log) else None
