"""From a ladder's file to its runs: sizes along the shape rule, a trunk for each, a branch for each budget.

A trunk keeps the constant rate; the branch of a budget leaves it where its own decay begins, and decays to the end.
So a cell is, to the bit, the run that its configuration would be from the first step on, for a fraction of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mygpt2.config import RunConfig
from mygpt2.config.schema import ModelConfig, ScheduleConfig
from mygpt2.config.summary import count_parameters, vocabulary_size
from mygpt2.errors import UserError
from mygpt2.experiments.arms import run_name
from mygpt2.experiments.ladder_file import LadderFile
from mygpt2.experiments.pieces import Piece
from mygpt2.schedule import decay_begins

MOST_KEPT = 16  # checkpoints of a trunk
REPLICATE = 1


@dataclass(frozen=True)
class Cell:
    """One size at one budget. `branch_step`: where it leaves its trunk; 0: it begins from nothing."""

    depth: int
    tokens: int
    piece: Piece
    branch_step: int

    @property
    def run(self) -> str:
        return self.piece.run

    @property
    def steps(self) -> int:
        """Steps that are its own."""
        return self.piece.config.train.steps - self.branch_step


@dataclass(frozen=True)
class Rung:
    """One size with its cells. `n` is all parameters, `n_blocks` those outside of the embeddings."""

    depth: int
    n: int
    n_blocks: int
    trunk: Piece | None
    cells: tuple[Cell, ...]

    @property
    def steps(self) -> int:
        """Steps in all, of the trunk and of the branches."""
        return (self.trunk.config.train.steps if self.trunk else 0) + sum(cell.steps for cell in self.cells)

    @property
    def pieces(self) -> list[Piece]:
        return [*([self.trunk] if self.trunk else []), *(cell.piece for cell in self.cells)]


@dataclass(frozen=True)
class Plan:
    """All sizes that are fitted, and the next one, which is foretold (None: there is none)."""

    file: LadderFile

    @cached_property
    def vocab_size(self) -> int:
        found = vocabulary_size(self.file.base.data.tokenizer)
        if found is None:
            raise UserError(f"data.tokenizer = {self.file.base.data.tokenizer} is not known; give one that is")
        return found

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        return tuple(self._rung(depth, self.file.settings.tokens) for depth in self.file.settings.depths)

    @cached_property
    def next(self) -> Rung | None:
        settings = self.file.settings
        if not settings.next:
            return None
        return self._rung(settings.next, settings.next_tokens or settings.tokens[-1:])

    def model(self, depth: int) -> ModelConfig:
        """The shape rule: n_embd = width_per_depth x n_layer, with a head per layer."""
        width = depth * self.file.settings.width_per_depth
        return self.file.base.model.model_copy(update={"n_layer": depth, "n_head": depth, "n_embd": width})

    def parameters(self, model: ModelConfig) -> tuple[int, int]:
        """(all, those of the blocks) with this ladder's tokenizer. Hoffmann et al. 2022 count the first, Kaplan et al.
        2020 (arXiv 2001.08361) the second, and much of what they disagree about is that (Pearce and Song 2024,
        arXiv 2406.12907)."""
        every = count_parameters(model, self.vocab_size)
        return every, every - (self.vocab_size + model.block_size) * model.n_embd

    def _rung(self, depth: int, budgets: Sequence[int]) -> Rung:
        file, batch = self.file, self.file.base.train.batch_tokens
        model = self.model(depth)
        lengths = sorted({max(2, round(tokens / batch)) for tokens in budgets})
        points = [leaving(file.base.schedule, steps) for steps in lengths]
        interval = keeping(points) if len(points) > 1 else 0
        cells = []
        for steps, point in zip(lengths, points, strict=True):
            config = _config(file.base, model, steps, {"interval": steps})
            name = run_name(file.name, f"d{depth}-s{steps}", REPLICATE)
            step = point // interval * interval if interval else 0
            cells.append(Cell(depth, steps * batch, Piece(name, config, file.preset), step))
        trunk = None
        if interval and cells[-1].branch_step:
            kept = {"interval": interval, "keep_every": interval}
            config = _config(file.base, model, cells[-1].branch_step, kept, schedule="constant")
            trunk = Piece(run_name(file.name, f"d{depth}", REPLICATE), config, file.preset)
        return Rung(depth, *self.parameters(model), trunk, tuple(cells))


def _config(
    base: RunConfig, model: ModelConfig, steps: int, checkpoint: dict[str, Any], schedule: str | None = None
) -> RunConfig:
    parts: dict[str, Any] = {
        "model": model,
        "train": base.train.model_copy(update={"steps": steps}),
        "checkpoint": base.checkpoint.model_copy(update=checkpoint),
    }
    if schedule:
        parts["schedule"] = base.schedule.model_copy(update={"name": schedule})
    return base.model_copy(update=parts)


def leaving(schedule: ScheduleConfig, steps: int) -> int:
    """Steps after which a run of `steps` begins to decay: until then its rate is the trunk's."""
    return max(schedule.warmup_steps - 1, 0, decay_begins(schedule, steps)) + 1


def keeping(points: Sequence[int]) -> int:
    """The checkpoint interval of a trunk that branches leave at these steps, or at the nearest kept one before.

    Of all that keep no more than MOST_KEPT checkpoints, the one after which fewest steps are trained twice.
    """
    last = max(points)

    def twice(interval: int) -> tuple[int, int]:
        return sum(point % interval for point in points), -interval

    return min(range(max(1, -(-last // MOST_KEPT)), last + 1), key=twice)
