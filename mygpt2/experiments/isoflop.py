"""The best size for a given compute: minima of parabolas through cells of equal compute.

Hoffmann et al. 2022 (arXiv 2203.15556, approach 2): for one compute C = 6 N D the losses of several sizes lie about a
parabola in log N. A ladder's sizes are measured at equal budgets of tokens, not of compute; so each size's loss at C is
read from the straight line between its two neighbouring budgets in log D and log L, and never from outside of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mygpt2.experiments.fit import Cells, Floats

SLICES = 4  # computes, evenly apart in their logarithm
FEWEST = 3  # sizes that a parabola takes
FLOPS = 6.0  # per parameter and token (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)


@dataclass(frozen=True)
class Slice:
    """One compute in FLOP, and the sizes and losses read there. `best` is the minimum's N where it lies among them; low
    and high are its range when one size is left out (None with three sizes, which leave nothing to check it by)."""

    compute: float
    n: Floats
    loss: Floats
    best: float | None
    low: float | None
    high: float | None

    @property
    def words(self) -> str:
        if self.best is None:
            return "the best size lies outside of the ladder's"
        if self.low is None:
            return "three sizes determine the parabola exactly: its error is not known"
        return ""

    def to_json(self) -> dict[str, object]:
        return {**vars(self), "n": self.n.tolist(), "loss": self.loss.tolist(), "words": self.words}


def slices(cells: Cells) -> list[Slice]:
    """Parabolas at computes that three sizes or more were measured around, ascending; none where no three overlap."""
    lines = {n: _line(cells, n) for n in np.unique(cells.n)}
    lines = {n: line for n, line in lines.items() if len(line[0]) > 1}
    lows, highs = np.array([line[0][0] for line in lines.values()]), np.array([line[0][-1] for line in lines.values()])
    edges = np.unique(np.concatenate([lows, highs]))
    covered = [c for c in edges if ((lows <= c) & (c <= highs)).sum() >= FEWEST]
    if not covered or covered[-1] <= covered[0]:
        return []
    found = (_slice(float(c), lines) for c in np.linspace(covered[0], covered[-1], SLICES))
    return [one for one in found if one is not None]


def _line(cells: Cells, n: float) -> tuple[Floats, Floats]:
    """(log computes, log losses) of one size, ascending."""
    own = cells.n == n
    order = np.argsort(cells.d[own])
    return np.log(FLOPS * n * cells.d[own][order]), np.log(cells.loss[own][order])


def _slice(log_compute: float, lines: dict[float, tuple[Floats, Floats]]) -> Slice | None:
    slack = 1e-9  # an edge of the range is a measured cell
    inside = {n: line for n, line in lines.items() if line[0][0] - slack <= log_compute <= line[0][-1] + slack}
    if len(inside) < FEWEST:
        return None
    n = np.array(list(inside))
    loss = np.exp([np.interp(log_compute, *line) for line in inside.values()])
    best, low, high = _minimum(n, loss), None, None
    if best is not None and len(n) > FEWEST:
        others = [_minimum(np.delete(n, i), np.delete(loss, i), free=True) for i in range(len(n))]
        known = [one for one in others if one is not None]
        low, high = (min(known), max(known)) if len(known) == len(n) else (0.0, np.inf)
    return Slice(float(np.exp(log_compute)), n, loss, best, low, high)


def _minimum(n: Floats, loss: Floats, free: bool = False) -> float | None:
    """Where the parabola in log n is lowest; None where it is not bent upwards or, unless `free`, beyond the sizes."""
    middle = np.log(n).mean()
    bend, slope, _ = np.polyfit(np.log(n) - middle, loss, 2)
    if bend <= 0:
        return None
    best = float(np.exp(np.clip(middle - slope / (2 * bend), -700, 700)))
    return best if free or n.min() <= best <= n.max() else None
