"""Runs a ladder: trunks and branches, one score for each cell, the law, the forecast, the next size, and its score.

Nothing is done twice: runs that are over are not run again, results of the same weights are not measured again, and a
forecast that is frozen stays what it was. A killed ladder goes on with the same command.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.checkpoint import steps as kept_steps
from mygpt2.config import RunConfig
from mygpt2.config.fields import settings
from mygpt2.errors import UserError
from mygpt2.experiments.cost import Cost, cost, spent
from mygpt2.experiments.folder import FOLDER, ExperimentDir
from mygpt2.experiments.forecast import Frozen, digest, freeze, read, score
from mygpt2.experiments.ladder_file import foretold
from mygpt2.experiments.ladder_report import Found, Scored, find
from mygpt2.experiments.pieces import Piece, outcome
from mygpt2.experiments.rungs import Cell, Plan, Rung
from mygpt2.experiments.running import missing, run_missing
from mygpt2.experiments.scores import NoLoss, check_protocol, scores
from mygpt2.files import encode_json
from mygpt2.format import short
from mygpt2.machine import cache_folder
from mygpt2.planning import keep, likely_device, measure
from mygpt2.planning.data import source_size
from mygpt2.planning.speed import observe_runs
from mygpt2.progress import Progress, silent
from mygpt2.run_dir.metrics import read_metrics
from mygpt2.run_dir.paths import RunDir
from mygpt2.train.branching import draft, make

KIND = "ladder"
FORECASTS = "forecasts"


@dataclass
class Ladder:
    """One ladder over a folder of runs. `say` gets lines for a person, `progress` the steps of the run at work."""

    plan: Plan
    runs: Path
    nproc: int = 1
    say: Callable[[str], None] = print
    progress: Progress = silent
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """UserError where there is no text to score cells on."""
        check_protocol(self.plan.file.settings.protocol, self.plan.file.base, self.runs)

    @property
    def name(self) -> str:
        return self.plan.file.name

    @property
    def folder(self) -> ExperimentDir:
        return ExperimentDir(self.runs / FOLDER / self.name)

    @property
    def all_rungs(self) -> list[Rung]:
        return [*self.plan.rungs, *([self.plan.next] if self.plan.next else [])]

    def cost(self) -> Cost:
        """What is still to be trained, before anything starts. UserError for a run that has a name of ours."""
        left = [
            replace(piece, run=f"{piece.run}.rest", config=_as_long_as(piece.config, steps))  # of no run there is
            for rung in self.all_rungs for piece, steps in self._left(rung)
        ]  # fmt: skip
        return cost(left, self.runs, self.nproc)

    def measure(self) -> None:
        """Times a few steps of each size that is still to be trained, which `cost` then goes by. UserError."""
        for rung in self.all_rungs:
            if any(self._left(rung)):
                config = rung.cells[-1].piece.config
                device = likely_device(config.train.device)
                found = measure(config, world_size=self.nproc, device=device, say=lambda _: None)
                self.say(f"{_shape(rung)}: {found.speed.value:,.0f} tokens/s")
                try:
                    keep(found, config, world_size=self.nproc, device=device)
                except OSError as error:
                    self.say(f"the measurement is not kept, so that the cost stays unknown: {error}")

    def _left(self, rung: Rung) -> Iterator[tuple[Piece, int]]:
        """(run, steps to go) of what is not over."""
        waiting = {piece.run for piece in missing([cell.piece for cell in rung.cells], self.runs)}
        if rung.trunk and self._needs_trunk(rung) and missing([rung.trunk], self.runs):
            yield rung.trunk, self._to_go(rung.trunk, 0)
        for cell in rung.cells:
            if cell.run in waiting:
                yield cell.piece, self._to_go(cell.piece, cell.branch_step)

    def _to_go(self, piece: Piece, begins: int) -> int:
        """Steps from its last one, or from where a branch begins, to its end."""
        return max(1, piece.config.train.steps - max(begins, outcome(self.runs, piece.run).step))

    def _needs_trunk(self, rung: Rung) -> bool:
        return any(cell.branch_step and not RunDir(self.runs / cell.run).exists() for cell in rung.cells)

    def run(self) -> dict[str, Any]:
        """Everything that is missing, and what was found: the last look of verdict.json. UserError, Interrupted."""
        folder = ExperimentDir.begin(self.runs, self.name, self.plan.file.text)
        folder.note_arms(dict(arm for rung in self.all_rungs for arm in _arms(rung)))
        scored: list[Scored] = []
        for number, rung in enumerate(self.plan.rungs, 1):
            if any(self._left(rung)):
                self.say(f"size {number} of {len(self.plan.rungs)}: {_shape(rung)}")
            scored += self._measure(rung)
        if not scored:
            raise UserError(f"no cell of ladder {self.name} has a loss: {'; '.join(self.left_out)}")
        found = find(self.plan, scored)
        frozen = self._freeze(folder, found)
        if self.plan.next is None:
            return self._look(folder, found, frozen, [])
        if any(self._left(self.plan.next)):
            self._look(folder, found, frozen, [])
            self.say(f"the next size, foretold: {_shape(self.plan.next)}")
        return self._look(folder, found, frozen, self._measure(self.plan.next))

    # Cells

    def _measure(self, rung: Rung) -> list[Scored]:
        """Trains what the size lacks and scores its cells. A cell without a loss is told of in `left_out`."""
        cells = self._branches(rung)
        outcomes = run_missing([cell.piece for cell in cells], self.runs, nproc=self.nproc, say=self.say,
                               progress=self.progress)  # fmt: skip
        scored = []
        for cell in cells:
            if outcomes[cell.run].diverged:
                self._leave_out(f"{cell.run} diverged at step {outcomes[cell.run].step:,}")
                continue
            steps, protocol = cell.piece.config.train.steps, self.plan.file.settings.protocol
            try:
                measured = scores(self.runs, cell.run, steps, protocol, say=self.say, progress=self.progress)
            except NoLoss as problem:
                self._leave_out(str(problem))
                continue
            scored.append(Scored(rung, cell, measured))
        return scored

    def _branches(self, rung: Rung) -> list[Cell]:
        """The cells that can be trained: each run is there, or begins from nothing."""
        if rung.trunk and self._needs_trunk(rung):
            run_missing([rung.trunk], self.runs, nproc=self.nproc, say=self.say, progress=self.progress)
        found = []
        for cell in rung.cells:
            if cell.branch_step and not RunDir(self.runs / cell.run).exists():
                trunk = rung.trunk
                assert trunk is not None, "a branch has a trunk"
                if cell.branch_step not in kept_steps(RunDir(self.runs / trunk.run).checkpoints_dir):
                    ended = outcome(self.runs, trunk.run)
                    if not ended.diverged:
                        raise UserError(
                            f"run {trunk.run!r} has no checkpoint of step {cell.branch_step} any more, which "
                            f"{cell.run} begins from; delete {trunk.run}, and the same command trains it again"
                        )
                    self._leave_out(f"{cell.run} is left out: its trunk {trunk.run} diverged at step {ended.step:,}")
                    continue
                changes = changed_settings(trunk.config, cell.piece.config)
                make(self.runs, draft(self.runs, trunk.run, cell.branch_step, changes), cell.run)
            found.append(cell)
        return found

    def _leave_out(self, why: str) -> None:
        if why not in self.left_out:
            self.left_out.append(why)
            self.say(why)

    # Forecasts

    def _freeze(self, folder: ExperimentDir, found: Found) -> dict[str, Frozen]:
        """Freezes what is foretold and has no file yet."""
        rows = [one.to_json() for one in found.scored]
        frozen = {}
        for name, parts, begun in self._targets():
            path = folder.path / FORECASTS / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}.json"
            if not path.exists():
                forecast = {"name": name, "ladder": self.name, **found.forecast(**parts)}
                freeze(path, forecast, rows, begun=begun)
            if (one := read(path)) is None:
                raise UserError(f"{path} is no forecast; move it away, and the next command makes one")
            frozen[name] = one
        return frozen

    def _targets(self) -> Iterator[tuple[str, dict[str, Any], str | None]]:
        """(name, its size and budget, since when it is at work) of all that is foretold."""
        rung = self.plan.next
        if rung is not None:
            began = self.began(rung)
            begun = None if began is None else f"the training of this size began on {_moment(began)}, before it"
            for cell in rung.cells:
                size = {"n": rung.n, "n_blocks": rung.n_blocks, "tokens": cell.tokens}
                yield cell.run, {**size, "notes": self._passes(cell.tokens)}, begun
        for told in self.plan.file.settings.foretell:
            preset, config, tokens = foretold(told)
            notes = [*self._beyond(preset, config), *self._passes(tokens)]
            yield told, {**self._preset_size(config), "tokens": tokens, "notes": notes}, None

    def _preset_size(self, config: RunConfig) -> dict[str, int]:
        """A preset's layers with this ladder's tokenizer and context, as its cells have them."""
        model = config.model.model_copy(update={"block_size": self.plan.file.base.model.block_size})
        every, blocks = self.plan.parameters(model)
        return {"n": every, "n_blocks": blocks}

    def _beyond(self, preset: str, config: RunConfig) -> list[str]:
        """What a preset that is foretold has in common with the ladder's cells, and what not."""
        base, model = self.plan.file.base, config.model
        rule = self.plan.file.settings.width_per_depth
        notes = [
            f"this is {preset}'s layers under this ladder's recipe, text, tokenizer ({base.data.tokenizer}) and "
            f"context ({base.model.block_size}), on this protocol; losses of other texts or tokenizers do not compare"
        ]
        if model.n_embd != rule * model.n_layer:
            notes.append(
                f"{preset} is {model.n_layer} layers x {model.n_embd}, which is not of the ladder's shape rule, "
                f"{rule} x layers"
            )
        return notes

    def _passes(self, tokens: int) -> list[str]:
        """A sentence where so many tokens would be read from the same text more than once."""
        base = self.plan.file.base
        size = source_size(
            base, self.plan.vocab_size, observe_runs(self.runs), cache_folder(base.data.cache_dir)
        ).tokens
        if not size or tokens <= size:
            return []
        times = f"{tokens / size:,.0f}" if tokens > 10 * size else f"{tokens / size:.2g}"
        return [
            f"{times} passes over {base.data.text}, which holds {short(size)} tokens: the law is of text that is "
            "read once, and repeats give less"
        ]

    def began(self, rung: Rung) -> float | None:
        """When the training of a size took its first step; None where it took none."""
        times = []
        for piece in rung.pieces:
            run = RunDir(self.runs / piece.run)
            if not run.exists():
                continue
            found = read_metrics(run)
            moments = np.concatenate([found["time"], found.overwritten.get("time", np.empty(0))])
            times += moments[np.isfinite(moments)].tolist()
        return min(times, default=None)

    # The verdict

    def _look(
        self, folder: ExperimentDir, found: Found, frozen: dict[str, Frozen], next_cells: Sequence[Scored]
    ) -> dict[str, Any]:
        """What is known now, as verdict.json and the page have it; a look more there unless nothing is new."""
        rung = self.plan.next
        began = self.began(rung) if rung else None
        rungs = self.all_rungs if next_cells else self.plan.rungs
        rows = [one.to_json() for one in found.scored]
        measured = {one.cell.run: one for one in next_cells}
        forecasts = []
        for name, one in frozen.items():
            row = {**one.record, "file": str(one.path.relative_to(folder.path)), "sound": one.sound, "score": None}
            del row["cells"]
            row["same_cells"] = one.record.get("cells_sha256") == digest(rows)
            if name in measured:
                own = measured[name].scores
                row["score"] = score(one, own.loss, began=began, token_sha256=own.token_sha256).to_json()
            forecasts.append(row)
        look: dict[str, Any] = {
            "kind": KIND, "stage": "scored" if measured else "foretold" if rung else "fitted", **found.to_json(),
            "forecasts": forecasts, "next": [one.to_json() for one in next_cells], "left_out": list(self.left_out),
            "spent": spent([piece.run for each in rungs for piece in each.pieces], self.runs).to_json(),
        }  # fmt: skip
        look = _plain(look)
        with folder.held():
            if look not in map(_without_time, folder.looks()):
                folder.add_look({**look, "time": time.time()}, kind=KIND, name=self.name)
        return look


def _arms(rung: Rung) -> Iterator[tuple[str, dict[str, Any]]]:
    """What arms.json says of a size: its trunk and its budgets, with their runs."""
    layers = f"{rung.depth} layer{'s' if rung.depth > 1 else ''}"
    told = {cell.run: f"{layers}, {short(cell.tokens)} tokens" for cell in rung.cells}
    for piece in rung.pieces:
        _, arm, replicate = piece.run.split(".")
        yield arm, {"told": told.get(piece.run, f"{layers}, the trunk"), "changes": {}, "runs": {replicate: piece.run}}


def changed_settings(before: RunConfig, after: RunConfig) -> dict[str, Any]:
    """Dotted settings that differ, with what they are afterwards."""
    values = [{name: getattr(getattr(c, s.section), s.key) for name, s in settings().items()} for c in (before, after)]
    return {name: values[1][name] for name in values[0] if values[0][name] != values[1][name]}


def _as_long_as(config: RunConfig, steps: int) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"steps": steps})})


def _shape(rung: Rung) -> str:
    model = rung.cells[0].piece.config.model
    return f"{model.n_layer} layer{'s' if model.n_layer > 1 else ''} x {model.n_embd}, {rung.n:,} parameters"


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """As it will be read back: numbers that are not finite are null, tuples are lists."""
    return dict(json.loads(encode_json(value)))


def _without_time(look: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in look.items() if key != "time"}
