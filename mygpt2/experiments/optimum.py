"""Where along an axis the loss is lowest: a parabola through the best arm and its neighbours, on the axis' logarithm.

The interval is that of the text: documents are drawn again in blocks, the best arm and its parabola are found anew each
time. It is about these models; another pair of seeds may lead elsewhere.
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
FEWEST = 3  # arms


@dataclass(frozen=True)
class Optimum:
    """`value` of the axis, None where it lies outside the grid; `low` and `high` bound it, None where the grid has
    no bound. `outside`: "below", "above" or ""; `share_outside`: of the draws."""

    value: float | None
    low: float | None
    high: float | None
    outside: str
    share_outside: float

    def to_json(self) -> dict[str, Any]:
        return vars(self).copy()


def optimum(values: Sequence[float], arms: Sequence[Sequence[Scores]], seed: int = 0) -> Optimum | None:
    """Of arms with ascending positive values, each scored under the same pairs of seeds. None of fewer than three."""
    if len(values) < FEWEST or min(values) <= 0:
        return None
    targets = arms[0][0].targets
    nll = np.stack([np.mean([each.nll for each in scores], axis=0) for scores in arms])
    x = np.log(np.asarray(values, float))
    at = float(vertex(x, (nll.sum(1) / targets.sum())[None])[0])
    drawn = vertex(x, Documents(nll, targets).drawn_again(DRAWS, np.random.default_rng(seed)))
    low, high = np.sort(drawn)[[int(LEVEL / 2 * DRAWS), DRAWS - 1 - int(LEVEL / 2 * DRAWS)]]
    outside = "" if np.isfinite(at) else "below" if at < 0 else "above"
    return Optimum(_value(at), _value(float(low)), _value(float(high)), outside, float(np.mean(~np.isfinite(drawn))))


def vertex(x: Floats, losses: Floats) -> Floats:
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


def _value(log: float) -> float | None:
    return float(np.exp(log)) if np.isfinite(log) else None
