"""Going on with a run: from which checkpoint, what may have been changed since, and what a change will do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from mygpt2.checkpoint import (
    BrokenCheckpoint,
    Checkpoint,
    Skipped,
    Unreadable,
    UnreadableCheckpoint,
    candidates,
    read_state,
    refuse,
    step_of,
    sweep,
    verify,
)
from mygpt2.config.earlier import renewed
from mygpt2.config.fields import toml_value
from mygpt2.config.schema import RunConfig
from mygpt2.data.batch import CURSOR
from mygpt2.distributed import World
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunWriter
from mygpt2.run_dir.family import ANEW, OTHER, Origin, origin_of
from mygpt2.schedule import lr_scale
from mygpt2.train.branching import FIXED, HARMLESS, LEARNING, changed, holds_weights_alone, shown

NOTICEABLE = 0.02  # a jump of the rate, as a share of its peak, that is told


@dataclass(frozen=True)
class Resumed:
    """What a run goes on from. `changes` holds (before, now) of every setting that differs, `notices` what they do.
    `origin` is set where the checkpoint is another run's, which this one branches off."""

    checkpoint: Checkpoint
    changes: dict[str, tuple[Any, Any]]
    notices: list[str]
    origin: Origin | None = None

    @property
    def anew(self) -> bool:
        """Whether the optimizer begins without the state that it had."""
        return self.origin is not None and self.origin.optimizer == ANEW

    @property
    def forks(self) -> bool:
        """Whether the batches were changed on purpose where the branch began."""
        return self.origin is not None and self.origin.batches == OTHER

    @property
    def learning(self) -> dict[str, tuple[Any, Any]]:
        """The changes that make the rest of the run another one: config.toml alone no longer repeats it."""
        return {
            name: pair for name, pair in self.changes.items()
            if name.partition(".")[0] in LEARNING and name not in HARMLESS
        }  # fmt: skip

    def token_offset(self, config: RunConfig) -> int:
        """Tokens trained on so far beyond what the steps would make with the present batch."""
        tokens, step = self.checkpoint.state.get("tokens"), self.checkpoint.step
        return tokens - step * config.train.batch_tokens if isinstance(tokens, int) else 0

    def lines(self) -> list[str]:
        """The changes in words."""
        return [f"{name} was {shown(old)} and is {shown(new)}" for name, (old, new) in self.learning.items()]


def find(run: RunDir, writer: RunWriter | None, config: RunConfig, world: World) -> Resumed | None:
    """The newest whole checkpoint, checked against the configuration; None for a run that begins.

    The ranks verify it together, each file read by one of them. It comes without tensors: whoever needs some reads
    those. UserError when the run cannot go on like this, TryAgain when its checkpoints cannot be read just now.
    """
    origin = origin_of(run)
    bare = origin.step if origin and origin.optimizer == ANEW else None  # there the weights are enough

    def names() -> str:
        sweep(run.checkpoints_dir)  # gives a checkpoint its name back that was being replaced at a crash
        found = candidates(run.checkpoints_dir)
        return json.dumps([(path.name, step_of(path.name) != bare and holds_weights_alone(path)) for path in found])

    whole, skipped = None, []
    for name, alone in json.loads(world.text_from_lead(names)):
        if alone:
            skipped.append(Skipped(run.checkpoints_dir / name, "it holds the weights alone"))
            continue
        problems = _verified(run.checkpoints_dir / name, world)
        if not problems:
            whole = run.checkpoints_dir / name
            break
        reason = "; ".join(text for text, _ in problems)
        skipped.append(Skipped(run.checkpoints_dir / name, reason, all(passing for _, passing in problems)))

    def state() -> str:
        for broken in skipped:
            print(f"passing over {broken.path.name}: {broken.reason}")
            if writer:
                writer.event("checkpoint_broken", path=broken.path.name, reason=broken.reason)
        if whole is None:
            return json.dumps(refuse(run.checkpoints_dir, skipped) if skipped else None)
        try:
            found = Checkpoint(step_of(whole.name) or 0, whole, {}, {}, read_state(whole))
        except OSError as error:
            raise UnreadableCheckpoint(f"checkpoint {whole}: {error}; try again when it can be read") from None
        _check(found, config, run)
        return json.dumps(found.state)

    told = json.loads(world.text_from_lead(state))
    if whole is None:
        return None
    chosen = Checkpoint(step_of(whole.name) or 0, whole, {}, {}, told)
    changes = dict(changed(_config(chosen), config))
    origin = origin if origin and origin.step == chosen.step else None
    return Resumed(chosen, changes, list(_notices(chosen, config, changes)), origin)


def _verified(path: Path, world: World) -> list[tuple[str, bool]]:
    """What is wrong with a checkpoint, by all ranks at once, and of each whether it may pass by itself."""
    own = [(str(problem), isinstance(problem, Unreadable)) for problem in verify(path, share=(world.rank, world.size))]
    found = [(text, passing) for each in world.texts(json.dumps(own)) for text, passing in json.loads(each)]
    return list(dict.fromkeys(found))  # what is wrong with the manifest all ranks say


def _check(checkpoint: Checkpoint, config: RunConfig, run: RunDir) -> None:
    """UserError for a checkpoint whose state is none, for another model, and for a run that is past its end."""
    if (problem := _state_problem(checkpoint.state)) is not None:
        raise BrokenCheckpoint(f"{checkpoint.path}: state.json {problem}; restore it, or train under another --run")
    before = _config(checkpoint).get("model", {})
    for name in FIXED:
        key = name.partition(".")[2]
        now = getattr(config.model, key)
        if key in before and before[key] != now:
            raise UserError(
                f"--{name} {toml_value(now)}: run {run.name!r} has {name} = {shown(before[key])} since its first step, "
                f"and a run keeps its model; leave {name} out, or start another run with --run NAME"
            )
    if checkpoint.step > config.train.steps:
        raise UserError(
            f"--train.steps {config.train.steps}: run {run.name!r} is at step {checkpoint.step} already; give more "
            f"than {checkpoint.step} to go on, or start a shorter run with --run NAME"
        )


def _state_problem(state: Mapping[str, Any]) -> str | None:
    """Why a checkpoint's state cannot be used, or None."""
    kinds: dict[str, type] = {
        "data": dict,
        "schedule": dict,
        "best": dict,
        "precision": str,
        "skips": int,
        "ranks": int,
    }
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):
            return f"has no {name} that can be used"
    data = state["data"]
    try:
        cursor = np.array(data["cursor"], dtype=np.int64)
        quarantine = [int(block) for block in data["quarantine"]]
        sound = cursor.ndim == 2 and cursor.shape[1] % CURSOR == 0 < cursor.shape[1] and min(quarantine, default=0) >= 0
    except (KeyError, TypeError, ValueError, OverflowError):
        sound = False
    if not sound or not isinstance(data.get("fingerprint"), dict) or "schema" not in data:
        return "has no position in the data that can be used"
    return None if {"step", "loss"} <= state["best"].keys() else "does not say which step was the best"


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings a checkpoint was written with, by section."""
    found = checkpoint.state.get("config")
    return {k: v for k, v in renewed(found).items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _notices(checkpoint: Checkpoint, config: RunConfig, changes: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """What the changes do to the learning rate, and how to have it otherwise."""
    causes = [n for n in changes if n.startswith(("schedule.", "optimizer.")) or n == "train.steps"]
    try:
        before = RunConfig.model_validate(_config(checkpoint))
    except ValidationError:  # of another version
        return
    step, steps = checkpoint.step, before.train.steps
    if not causes or step >= config.train.steps:
        return
    was = lr_scale(before.schedule, min(step, steps) - 1, steps)
    will = lr_scale(config.schedule, step, config.train.steps)
    jumps, flat = [], "--schedule.name constant --schedule.warmup_steps 0"
    for rate in ("lr", "muon_lr") if "muon" in (before.optimizer.name, config.optimizer.name) else ("lr",):
        peak, new_peak = (getattr(each.optimizer, rate) for each in (before, config))
        flat += f" --optimizer.{rate} {peak * was:.6g}"
        if abs(new_peak * will - peak * was) > NOTICEABLE * max(peak, new_peak):
            jumps.append(
                f"{rate} was {peak * was:.3g} in step {step} and will be {new_peak * will:.3g} in the next one"
            )
    if not jumps:
        return
    yield f"the learning rate jumps, because of {', '.join(causes)}: {', '.join(jumps)}"
    if will <= was:
        return
    yield f"to keep the rate that it had, give {flat} instead"
    decay = steps - 1 - round(before.schedule.decay_share * steps)
    if before.schedule.name in ("wsd", "trapezoid") and step > decay:
        yield (
            f"to extend it from before its decay, branch off at a checkpoint of step {decay} or earlier, where one was "
            "kept: python -m mygpt2 runs branch NAME@STEP --run NEW --train.steps N"
        )
