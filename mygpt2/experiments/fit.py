"""The law L(N, D) = E + A / N^alpha + B / D^beta through the cells of a ladder.

N is parameters, D tokens, L nats per token. Hoffmann et al. 2022 (arXiv 2203.15556, approach 3, appendix D.3) fit it by
the Huber loss of log residuals, from a grid of starts. Besiroglu et al. 2024 (arXiv 2404.10102) fitted their data again
and found two faults: the optimiser had stopped early, as its loss was a mean, whose steps fell under the tolerance; and
the intervals were far too narrow. So here the loss is a sum, and minimised until no step lowers it.

Many fits (starts, cells left out, documents drawn again) are made as one array: P problems, each over C cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DELTA = 1e-3  # of log residuals, where squares turn into absolute values: Hoffmann et al. 2022
HUBER = 1.345  # standard deviations; there the loss keeps 95 % of the precision of squares: Holland and Welsch 1977
EXPONENTS = (0.02, 2.5)  # bounds of alpha and beta; published ones lie between 0.05 and 0.5
NO_E = 1e-6  # nats; E is bounded by 0
ITERATIONS, FIRST_LOOK = 80, 25  # steps at most, and those after which only the KEPT best starts go on
KEPT = 6
GRID = (0.15, 0.4, 1.0)  # of alpha and beta, from which fits start
E_SHARES = (0.3, 0.6, 0.85)  # of the lowest loss, from which E starts
FEWEST_SIZES, FEWEST_BUDGETS, FEWEST_CELLS = 3, 3, 7  # five numbers, one cell left out, one to be wrong about


@dataclass(frozen=True)
class Cells:
    """Measured losses: n, d, loss (C,), in parameters, tokens and nats per token."""

    n: Floats
    d: Floats
    loss: Floats

    def __len__(self) -> int:
        return len(self.loss)

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Geometric means of n and d: about them A and alpha, B and beta are least entangled."""
        return float(np.exp(np.log(self.n).mean())), float(np.exp(np.log(self.d).mean()))

    @property
    def axes(self) -> tuple[Floats, Floats]:
        """log n and log d about the centre, (C,) each."""
        return np.log(self.n / self.centre[0]), np.log(self.d / self.centre[1])

    def too_few(self) -> str | None:
        """Why no law can be put through these cells, in words; None where one can."""
        sizes, budgets = len(np.unique(self.n)), len(np.unique(self.d))
        if sizes >= FEWEST_SIZES and budgets >= FEWEST_BUDGETS and len(self) >= FEWEST_CELLS:
            return None
        return (
            f"{len(self)} cells of {sizes} sizes and {budgets} budgets do not decide the five numbers of the law; it "
            f"takes {FEWEST_CELLS} cells of {FEWEST_SIZES} sizes and {FEWEST_BUDGETS} budgets"
        )


@dataclass(frozen=True)
class Laws:
    """P laws as points (P, 5): E, log A / n0^alpha, log B / d0^beta, alpha, beta, about a centre (n0, d0).

    cost (P,): their Huber sums, with squares up to `delta`.
    """

    points: Floats
    cost: Floats
    centre: tuple[float, float]
    delta: float

    def loss(self, n: float, d: float) -> Floats:
        """(P,) nats per token of a model of n parameters after d tokens."""
        x, y = (np.log(np.array([v / c])) for v, c in zip((n, d), self.centre, strict=True))
        return np.exp(_value(self.points, x, y)[0][:, 0])

    @property
    def e(self) -> Floats:
        return self.points[:, 0]

    @property
    def alpha(self) -> Floats:
        return self.points[:, 3]

    @property
    def beta(self) -> Floats:
        return self.points[:, 4]

    @property
    def a(self) -> Floats:
        return np.exp(self.points[:, 1] + self.alpha * np.log(self.centre[0]))

    @property
    def b(self) -> Floats:
        return np.exp(self.points[:, 2] + self.beta * np.log(self.centre[1]))

    @property
    def best_n_exponent(self) -> Floats:
        """The best N for a compute C = 6 N D grows as C to this power (Hoffmann et al. 2022, eq. 4)."""
        return self.beta / (self.alpha + self.beta)

    def residuals(self, cells: Cells) -> Floats:
        """(P, C) log of measured over fitted losses: 0.01 is one percent above the law."""
        return np.log(cells.loss) - _value(self.points, *cells.axes)[0]

    def at_bounds(self) -> list[str]:
        """The numbers of the first law that stopped at a bound: the data do not tell them."""
        values = {"alpha": self.alpha[0], "beta": self.beta[0]}
        names = [name for name, value in values.items() if not EXPONENTS[0] * 1.01 < value < EXPONENTS[1] * 0.99]
        return names + (["E"] if self.e[0] < NO_E else [])


def fit(cells: Cells) -> Laws:
    """The best law of the cells, from 27 starts. ValueError for losses, sizes or budgets that are not positive."""
    values = np.concatenate([cells.n, cells.d, cells.loss])
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("sizes, budgets and losses must be positive numbers")
    rows = np.log(cells.loss)[None]
    starts = _grid(cells.loss)
    points, cost = _minimise(starts, *_repeated(rows, np.ones_like(rows), len(starts)), cells, DELTA, FIRST_LOOK)
    starts = points[np.argsort(cost, kind="stable")[:KEPT]]
    rows, weights = _repeated(rows, np.ones_like(rows), KEPT)
    first = Laws(*_best(*_minimise(starts, rows, weights, cells, DELTA), KEPT), cells.centre, DELTA)
    # Where losses scatter by more than DELTA nearly all of it would be a loss of absolute values, which is less precise
    # and whose leaving-one-out says little about its error (Efron 1982, The Jackknife, ch. 3.4: the median).
    spread = 1.4826 * float(np.median(np.abs(first.residuals(cells)))) * (len(cells) / max(1, len(cells) - 5)) ** 0.5
    delta = max(DELTA, HUBER * spread)
    return Laws(*_best(*_minimise(starts, rows, weights, cells, delta), KEPT), cells.centre, delta)


def refit(cells: Cells, law: Laws, losses: Floats | None = None, weights: Floats | None = None) -> Laws:
    """The best law for each row of losses (P, C), or of the cells' own counted `weights` (P, C) times.

    `law`, of nearly the same data, is one of the starts, and gives delta.
    """
    given = losses if losses is not None else weights
    rows = np.log(cells.loss[None] if losses is None else losses)
    shape = rows.shape if given is None else given.shape
    rows = np.broadcast_to(rows, shape)
    counted = np.broadcast_to(np.ones((1, len(cells))) if weights is None else weights, shape)
    starts = np.concatenate([law.points[:1], _moved(law.points[:1])])
    points, cost = _minimise(np.tile(starts, (shape[0], 1)), *_repeated(rows, counted, len(starts)), cells, law.delta)
    return Laws(*_best(points, cost, len(starts)), law.centre, law.delta)


def _grid(loss: Floats) -> Floats:
    """(27, 5) starts: E a share of the lowest loss, what is above it halved between the two other terms."""
    starts = []
    for share in E_SHARES:
        e = share * loss.min()
        half = np.log(np.mean(loss - e) / 2)
        starts += [(e, half, half, alpha, beta) for alpha in GRID for beta in GRID]
    return np.array(starts)


def _moved(point: Floats) -> Floats:
    """(4, 5) starts about a law, with E moved and the exponents with it: the direction that cells tell least about."""
    moves = np.array(
        [[0, 0.3, 0.3, -0.1, -0.1], [0, -0.5, -0.5, 0.2, 0.2], [0, 0.3, -0.3, -0.1, 0.1], [0, -0.3, 0.3, 0.1, -0.1]]
    )
    moves[:2, 0] = -0.4 * point[0, 0], 0.15 * point[0, 0] + 0.1
    return point + moves


def _repeated(rows: Floats, weights: Floats, each: int) -> tuple[Floats, Floats]:
    return np.repeat(rows, each, axis=0), np.repeat(weights, each, axis=0)


def _best(points: Floats, cost: Floats, each: int) -> tuple[Floats, Floats]:
    """Of every `each` starts of a problem the one that came lowest."""
    least = cost.reshape(-1, each).argmin(1) + np.arange(len(cost) // each) * each
    return points[least], cost[least]


def _value(points: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """log L (P, C) of each law at log n / n0 = x and log d / d0 = y (C,); the shares (P, C, 3) of its three terms."""
    parts = np.stack(
        [
            np.broadcast_to(points[:, :1], (len(points), len(x))),
            np.exp(points[:, 1:2] - points[:, 3:4] * x),
            np.exp(points[:, 2:3] - points[:, 4:5] * y),
        ],
        axis=2,
    )
    total = parts.sum(2, keepdims=True)
    return np.log(total)[:, :, 0], parts / total


def _minimise(
    points: Floats, rows: Floats, weights: Floats, cells: Cells, delta: float, steps: int = ITERATIONS
) -> tuple[Floats, Floats]:
    """Levenberg-Marquardt for P problems at once, within bounds: (points (P, 5), costs (P,)).

    The Huber loss is taken as squares weighted anew at each step, w = min(1, delta / |r|) (Holland and Welsch 1977).
    A number at its bound that would go beyond it stays there, and the others move.
    """
    x, y = cells.axes
    low = np.array([0.0, -30.0, -30.0, EXPONENTS[0], EXPONENTS[0]])
    high = np.array([100.0, 30.0, 30.0, EXPONENTS[1], EXPONENTS[1]])
    points = np.clip(points, low, high)
    damping = np.full(len(points), 1e-2)
    value, shares = _value(points, x, y)
    cost = _huber(rows - value, weights, delta)
    active = np.arange(len(points))
    for _ in range(steps):
        p, r = points[active], rows[active] - value[active]
        step = _step(p, value[active], r, shares[active], weights[active], (x, y), (low, high), damping[active], delta)
        moved = np.clip(p + step, low, high)
        new_value, new_shares = _value(moved, x, y)
        new_cost = _huber(rows[active] - new_value, weights[active], delta)
        better = new_cost < cost[active]
        gained = (cost[active] - new_cost) / np.maximum(cost[active], 1e-30)
        won = active[better]
        points[won], value[won], shares[won], cost[won] = (
            moved[better], new_value[better], new_shares[better], new_cost[better],
        )  # fmt: skip
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 5.0), 1e-12, 1e12)
        done = np.where(better, gained < 1e-11, damping[active] > 1e11)
        active = active[~done]
        if not len(active):
            break
    return points, cost


def _step(
    p: Floats, value: Floats, r: Floats, shares: Floats, weights: Floats, axes: tuple[Floats, Floats],
    bounds: tuple[Floats, Floats], damping: Floats, delta: float,
) -> Floats:  # fmt: skip
    """(P, 5): the damped step of the weighted squares."""
    slope = np.stack(  # (P, C, 5), d log L / d point
        [np.exp(-value), shares[..., 1], shares[..., 2], -shares[..., 1] * axes[0], -shares[..., 2] * axes[1]], axis=2
    )
    w = weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
    downhill = np.einsum("pck,pc->pk", slope, w * r)
    held = ((p <= bounds[0]) & (downhill < 0)) | ((p >= bounds[1]) & (downhill > 0))
    square = np.einsum("pck,pc,pcl->pkl", slope, w, slope)
    square = np.where(held[:, :, None] | held[:, None, :], 0.0, square)
    scale = np.einsum("pkk->pk", square)
    scale = np.where(held, 1.0, damping[:, None] * (scale + 1e-9 * scale.max(1, keepdims=True) + 1e-12))
    square[:, range(5), range(5)] += scale
    return np.linalg.solve(square, np.where(held, 0.0, downhill)[:, :, None])[:, :, 0]


def _huber(residual: Floats, weights: Floats, delta: float) -> Floats:
    """(P,) sums over the cells."""
    size = np.abs(residual)
    return (weights * np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))).sum(1)
