"""Ladders whose law is known: what a fit of them should find."""

from dataclasses import dataclass

import numpy as np

from mygpt2.experiments.fit import Cells
from mygpt2.experiments.intervals import Documents

SIZES = np.array([0.33e6, 0.95e6, 2.1e6, 4.3e6])
BUDGETS = np.array([0.5e6, 1e6, 2e6, 4e6])
NEXT = (7.5e6, 4e6)


@dataclass(frozen=True)
class Truth:
    """L = e + a (n0 / N)^alpha + b (d0 / D)^beta about the middle of the cells, and the chance of a training."""

    e: float = 2.0
    a: float = 0.6
    b: float = 0.9
    alpha: float = 0.35
    beta: float = 0.4
    noise: float = 0.004  # standard deviation of log losses
    shared: float = 0.5  # share of its square that all cells of a size have in common

    def loss(self, n, d):
        n0, d0 = (np.exp(np.log(values).mean()) for values in (SIZES, BUDGETS))
        return self.e + self.a * (n0 / n) ** self.alpha + self.b * (d0 / d) ** self.beta


def drawn(rng):
    """A law from the range that published ones, and small models, are in."""
    alpha, beta = rng.uniform(0.2, 0.6, 2)
    noise = rng.uniform(0.002, 0.008)
    return Truth(rng.uniform(1.5, 3.0), rng.uniform(0.2, 1.0), rng.uniform(0.4, 1.5), alpha, beta, noise)


def measured(truth, rng, target=NEXT):
    """(cells, the loss that the target is measured to have): the target's own chance is in it."""
    n, d = np.repeat(SIZES, len(BUDGETS)), np.tile(BUDGETS, len(SIZES))
    of_size = rng.standard_normal(len(SIZES) + 1) * truth.noise * truth.shared**0.5
    own = rng.standard_normal(len(n) + 1) * truth.noise * (1 - truth.shared) ** 0.5
    loss = truth.loss(n, d) * np.exp(np.repeat(of_size[:-1], len(BUDGETS)) + own[:-1])
    return Cells(n, d, loss), float(truth.loss(*target) * np.exp(of_size[-1] + own[-1]))


def documents(cells, rng, count=120, spread=0.15):
    """Documents of unequal length that are harder or easier than the mean by `spread`, in every cell alike."""
    targets = rng.integers(50, 2000, count).astype(float)
    hardness = 1 + spread * rng.standard_normal(count)
    hardness /= (hardness * targets).sum() / targets.sum()
    return Documents(cells.loss[:, None] * hardness * targets, targets)
