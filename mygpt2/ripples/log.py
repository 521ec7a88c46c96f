"""A training log as the laboratory wants it: one finite loss per step, ascending, with what was left out said.

Whatever is wrong with a log ends up in `notes`, in words; nothing here raises for bad numbers.

On a regular grid with weights a log's sums over sines are Fourier transforms: N log N, not N squared. Steps that are
missing have weight 0; several steps in a cell have their mean there, weighted by their number. Nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.errors import UserError
from mygpt2.ripples.layout import Layout

Floats = NDArray[Any]  # float64; NumPy's own types widen at every operation
SPARSE = 4  # a grid with more cells than this for each point is made coarser
LARGEST = 1e100  # no loss is larger; squares of what is overflow
LAST_STEP = 2.0**53  # beyond it two steps are the same float


@dataclass(frozen=True)
class Curve:
    """A loss measured now and then, as validation is."""

    step: Floats
    loss: Floats


@dataclass(frozen=True)
class Log:
    """A loss per step. `step`, `loss` and, where known, `tokens` and `rate` are float64 (n,), ascending in step.

    `averaged` is how many steps each loss is the mean of; `warmup` the steps of warm-up, None where unknown; `run` the
    run folder it was read from, with its trace.
    """

    name: str
    step: Floats
    loss: Floats
    tokens: Floats | None = None
    rate: Floats | None = None
    validation: Curve | None = None
    averaged: int = 1
    warmup: int | None = None
    layout: Layout = field(default_factory=Layout)
    run: Path | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.step)

    @property
    def tokens_per_step(self) -> float | None:
        """Mean tokens of a step, None where the log does not say."""
        if self.tokens is None or len(self) < 2:
            return None
        steps, tokens = self.step[-1] - self.step[0], self.tokens[-1] - self.tokens[0]
        return float(tokens / steps) if steps > 0 and tokens > 0 else None

    def between(self, first: float | None, last: float | None) -> Log:
        """The steps [first, last] alone. UserError when none is left; a log that is empty stays so."""
        if (first is None and last is None) or not len(self):
            return self
        low, high = -np.inf if first is None else first, np.inf if last is None else last
        kept = (self.step >= low) & (self.step <= high)
        if not kept.any():
            raise UserError(
                f"no step of {self.name} lies in {_shown(low)}:{_shown(high)}; it has the steps "
                f"{self.step[0]:.0f} to {self.step[-1]:.0f}; choose a range among them"
            )
        curve = self.validation
        if curve is not None:
            seen = (curve.step >= low) & (curve.step <= high)
            curve = Curve(curve.step[seen], curve.loss[seen])
        return replace(self.at(kept), validation=curve, warmup=self.warmup if low <= self.step[0] else 0)

    def at(self, kept: NDArray[Any]) -> Log:
        """Some of its steps: their places, or a mask (n,)."""
        return replace(
            self, step=self.step[kept], loss=self.loss[kept], tokens=None if self.tokens is None else self.tokens[kept],
            rate=None if self.rate is None else self.rate[kept],
        )  # fmt: skip


def make_log(
    name: str, step: Any, loss: Any, *, tokens: Any = None, rate: Any = None, notes: tuple[str, ...] = (), **more: Any
) -> Log:
    """A Log from raw columns of equal length, in the order of writing.

    Rows without a finite step and loss, or with impossible ones, are left out; of a step that was written twice, as
    after a resume, the later row counts. Tokens that are missing or do not ascend are not used. `more`: more
    fields of Log.
    """
    step, loss = np.atleast_1d(np.asarray(step, np.float64)), np.atleast_1d(np.asarray(loss, np.float64))
    said = list(notes)
    far = np.abs(step) >= LAST_STEP
    kept = (np.abs(step) < LAST_STEP) & (np.abs(loss) < LARGEST)  # not what is NaN
    if (lost := int((~kept & ~far).sum())) > 0:
        said.append(f"{lost:,} of {len(step):,} rows have no finite loss and are left out")
    if far.any():
        said.append(f"{int(far.sum()):,} of {len(step):,} rows have a step beyond {LAST_STEP:.3g} and are left out")
    places = np.flatnonzero(kept)
    _, last = np.unique(step[places][::-1], return_index=True)
    chosen = places[::-1][last]
    if (doubled := len(places) - len(chosen)) > 0:
        said.append(f"{doubled:,} steps were written again later, as after a resume; the later ones count")
    found = _ascending(tokens, chosen)
    if tokens is not None and found is None and len(chosen):
        said.append("its tokens are missing or do not ascend; periods are given in steps")
    chosen_rate = None if rate is None else np.asarray(rate, np.float64)[chosen]
    if chosen_rate is not None and not np.isfinite(chosen_rate).all():
        chosen_rate = None
    return Log(name, step[chosen], loss[chosen], tokens=found, rate=chosen_rate, notes=tuple(said), **more)


def make_curve(step: Any, loss: Any) -> Curve | None:
    """A Curve of the finite points, the later of a step's; None if there is none."""
    step, loss = np.asarray(step, np.float64), np.asarray(loss, np.float64)
    kept = (np.abs(step) < LAST_STEP) & (np.abs(loss) < LARGEST)
    if not kept.any():
        return None
    step, loss = step[kept], loss[kept]
    at, last = np.unique(step[::-1], return_index=True)
    return Curve(at, loss[::-1][last])


def spacing(curve: Curve | None) -> int | None:
    """The steps between two evaluations, where nearly all of them are so far apart and there are a few."""
    if curve is None or len(curve.step) < 4:
        return None
    gaps = np.diff(curve.step)
    usual = float(np.median(gaps))
    regular = np.mean(np.abs(gaps - usual) < 0.5) >= 0.8
    return round(usual) if regular and usual >= 2 else None


def _ascending(tokens: Any, chosen: NDArray[np.intp]) -> Floats | None:
    if tokens is None:
        return None
    found = np.asarray(tokens, np.float64)[chosen]
    good = np.isfinite(found).all() and (np.diff(found) > 0).all() and (not len(found) or found[0] >= 0)
    return found if good else None


def _shown(number: float) -> str:
    return f"{number:.0f}" if np.isfinite(number) else ""


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
