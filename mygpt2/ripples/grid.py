"""A log on a regular grid with weights, so that sums over sines are Fourier transforms: N log N, not N squared.

Steps that are missing have weight 0; a log that has several steps in a cell has their mean there, weighted by their
number. Nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mygpt2.ripples.log import Curve, Floats, Log

SPARSE = 4  # a grid with more cells than this for each point is made coarser


@dataclass(frozen=True)
class Grid:
    """Cells i = 0 ... n - 1 at `start + i * spacing` in tokens, or in steps where a log has no tokens.

    `value` and `weight` are (n,); a cell without data has weight 0 and value 0. `cell` is the cell of each point of the
    log, `steps_per_cell` and `first_step` turn cells into steps.
    """

    start: float
    spacing: float
    unit: str
    value: Floats
    weight: Floats
    cell: np.ndarray
    first_step: float
    steps_per_cell: float

    def __len__(self) -> int:
        return len(self.value)

    @property
    def points(self) -> int:
        """Cells that hold data."""
        return int(np.count_nonzero(self.weight))

    def average(self, values: Floats) -> Floats:
        """Values at the log's points as means of the cells (n,), 0 where there is none."""
        total = np.bincount(self.cell, values, len(self))
        return np.divide(total, self.weight, out=np.zeros(len(self)), where=self.weight > 0)

    def steps(self, cells: Floats | float) -> Floats | float:
        """Cells, counted from the first, as step numbers."""
        return self.first_step + np.asarray(cells) * self.steps_per_cell

    def position(self, curve: Curve) -> Floats:
        """Where the steps of a curve lie, in cells."""
        return (curve.step - self.first_step) / self.steps_per_cell


def make_grid(log: Log) -> Grid:
    """The grid of a log with two steps or more, as fine as its usual spacing."""
    x = log.tokens if log.tokens is not None else log.step
    spacing = float(np.median(np.diff(x)))
    span = float(x[-1] - x[0])
    if span / spacing > SPARSE * max(len(log), 64):
        spacing = span / (SPARSE * max(len(log), 64))
    cell = np.rint((x - x[0]) / spacing).astype(np.int64)
    n = int(cell[-1]) + 1
    weight = np.bincount(cell, minlength=n).astype(np.float64)
    total = np.bincount(cell, log.loss, n)
    value = np.divide(total, weight, out=np.zeros(n), where=weight > 0)
    steps = float(log.step[-1] - log.step[0]) / max(1, n - 1)
    return Grid(
        float(x[0]), spacing, "tokens" if log.tokens is not None else "steps", value, weight, cell,
        float(log.step[0]), steps,
    )  # fmt: skip
