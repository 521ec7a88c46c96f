"""A new run that begins from a checkpoint of another: same weights, optimizer state and place in the data, and changes
that are made on purpose.

The checkpoint's files are linked, not copied: nothing ever changes them, and the run they came from may rotate, be
renamed or be deleted. The folder is built aside and gets its name by one rename, so a branch is whole or is not there.
Imports no torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mygpt2.checkpoint.files import FileSystem, discard, is_leftover, scratch_name, step_name, step_of
from mygpt2.checkpoint.format import read_state, verify, weights_alone
from mygpt2.checkpoint.layout import BrokenCheckpoint
from mygpt2.checkpoint.store import candidates, newest, steps
from mygpt2.config import RunConfig, load_config, to_toml, without_fork
from mygpt2.config.earlier import renewed
from mygpt2.config.fields import settings, toml_value
from mygpt2.config.load import LATER
from mygpt2.config.mix import MixSource, mix_words
from mygpt2.config.section import Section
from mygpt2.errors import UserError
from mygpt2.files import cannot_write, replace_file, replace_json
from mygpt2.run_dir.family import ANEW, EQUAL, KEPT, OTHER, Origin, began, file_of, origin_of
from mygpt2.run_dir.holding import held
from mygpt2.run_dir.paths import RunDir, check_name
from mygpt2.run_dir.writer import write_queued

FIXED = ("model.n_layer", "model.n_head", "model.n_embd", "model.block_size", "model.bias")
LEARNING = ("model", "data", "optimizer", "schedule", "train")  # sections whose settings can change what is learned
HARMLESS = (
    "data.threads", "data.prefetch_steps", "data.token_cache", "data.cache_gb", "data.cache_dir", "data.outage_minutes",
    "data.max_quarantine", "data.fork", "data.validation_tokens", "train.micro_batch", "train.device", "train.compile",
    "train.deterministic", "train.parallel", "train.stall_minutes", "train.max_skips",
)  # fmt: skip
# What the batches depend on beside the context, which is FIXED.
ORDER = (
    "data.source", "data.mix", "data.text_column", "data.min_score", "data.score_column", "data.language",
    "data.language_column", "data.order", "data.seed", "data.lanes", "data.window", "data.buffer_documents",
    "data.validation_fraction", "data.max_document_chars", "train.batch_tokens",
)  # fmt: skip
# Of the run folder, one of each for every source of a mixture: what the data was, so that a change does not pass.
BESIDE = ("data*.checksums", "blocks*.checks")


@dataclass(frozen=True)
class Branch:
    """A branch that was made, or was there already as it would be made. `notes` say what a person should know."""

    run: RunDir
    config: RunConfig
    origin: Origin
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """A branch that could be made: its configuration and beginning, and the checkpoint it takes."""

    parent: RunDir
    checkpoint: Path
    config: RunConfig
    origin: Origin

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(notes(self.origin))


def place_of(text: str) -> tuple[str, int | None]:
    """(run, step) of NAME@STEP; without a step its newest checkpoint is meant. UserError for anything else."""
    name, at, step = text.partition("@")
    if at and not (step.isascii() and step.isdecimal() and len(step) < 12):
        raise UserError(f"{text!r} is no place to branch from; give NAME@STEP, for example tiny@100, or NAME alone")
    return check_name(name), int(step) if at else None


def draft(runs: Path, parent: str, step: int | None, words: Sequence[str] | Mapping[str, Any]) -> Draft:
    """The branch of a run's checkpoint with these changes. Writes nothing. UserError for what a branch cannot be."""
    run = RunDir.open(runs, parent)
    checkpoint = _checkpoint(run, step)
    return _draft(run, checkpoint, load_config(base=settings_at(checkpoint), overrides=words))


def draft_as(runs: Path, parent: str, step: int | None, config: RunConfig) -> Draft:
    """The same for a branch that is given by its whole configuration."""
    run = RunDir.open(runs, parent)
    return _draft(run, _checkpoint(run, step), config)


def settings_of(runs: Path, parent: str, step: int | None) -> tuple[int, RunConfig]:
    """(step, configuration) of a run's checkpoint: what a branch of it begins with."""
    checkpoint = _checkpoint(RunDir.open(runs, parent), step)
    return step_of(checkpoint.name) or 0, load_config(base=settings_at(checkpoint))


def _draft(run: RunDir, checkpoint: Path, config: RunConfig) -> Draft:
    at, before, config = step_of(checkpoint.name) or 0, settings_at(checkpoint), without_fork(config)
    changes = {name: pair for name, pair in changed(before, config) if name != "data.fork"}
    _check(run, at, config, changes)
    anew = "optimizer.name" in changes or holds_weights_alone(checkpoint)
    origin = Origin(
        run.name, at, changes, ANEW if anew else KEPT,
        OTHER if reordering(changes) else EQUAL, began(run),
    )  # fmt: skip
    return Draft(run, checkpoint, config, origin)


def _checkpoint(run: RunDir, step: int | None) -> Path:
    if step is None:
        found = newest(run.checkpoints_dir)[0]
        if found is None:
            raise UserError(f"run {run.name!r} has no whole checkpoint to branch from; wait for its first one")
        return found
    for path in candidates(run.checkpoints_dir):
        if step_of(path.name) == step:
            return path
    known = ", ".join(map(str, steps(run.checkpoints_dir))) or "none"
    raise UserError(
        f"run {run.name!r} has no checkpoint of step {step}; it has {known}; branch from one of these, or keep more "
        "with --checkpoint.keep_every or --checkpoint.keep_log"
    )


def holds_weights_alone(checkpoint: Path) -> bool:
    """Whether it has no optimizer state. One that cannot be read is told when it is verified."""
    try:
        return weights_alone(checkpoint)
    except (OSError, BrokenCheckpoint):
        return False


def settings_at(checkpoint: Path) -> dict[str, Any]:
    """What the checkpoint was trained with: config.toml may say already what came later."""
    try:
        found = read_state(checkpoint).get("config")
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        problems = "; ".join(verify(checkpoint)) or "state.json does not say its settings"
        raise UserError(f"checkpoint {checkpoint} cannot be branched from ({problems}); choose another step")
    return renewed(found)


def changed(before: Mapping[str, Any], config: RunConfig) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(setting, (before, now)) of those that differ; ones that are not known of before did not change.

    Of those that came later it is known: a run from before them had what is their default today.
    """
    for name, setting in settings().items():
        section = before.get(setting.section)
        if isinstance(section, Mapping) and (setting.key in section or (setting.section, setting.key) in LATER):
            then = plain(section.get(setting.key, setting.default))
            if then != (now := plain(getattr(getattr(config, setting.section), setting.key))):
                yield name, (then, now)


def plain(value: Any) -> Any:
    """A setting's value as JSON has it; of tables what is set in them, whichever version wrote them."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Section):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if item is not None}
    return value


def reordering(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """The changed settings that make other batches: how often a source may be read makes none."""

    def kept(value: Any) -> Any:
        return [{key: each[key] for key in each if key != "max_epochs"} for each in value]

    return [name for name, (then, now) in changes.items()
            if name in ORDER and (name != "data.mix" or kept(then) != kept(now))]  # fmt: skip


def _check(run: RunDir, step: int, config: RunConfig, changes: Mapping[str, tuple[Any, Any]]) -> None:
    for name in (*FIXED, "data.tokenizer"):
        if name in changes:
            what = "its tokens" if name == "data.tokenizer" else "its model"
            before, now = changes[name]
            raise UserError(
                f"--{name} {shown(now)}: a branch of {run.name!r} keeps {what} ({name} = {shown(before)}), which the "
                f"weights were made for; leave {name} out, or train a new run"
            )
    if config.train.steps <= step:
        raise UserError(
            f"--train.steps {config.train.steps}: the branch begins after step {step}; give more than {step}"
        )


def make(runs: Path, found: Draft, name: str) -> Branch:
    """The branch as a run of that name, ready to be trained. The same call after a kill gives the same branch.

    UserError where the name is another run's, TryAgain for a full disk; then nothing of it is left.
    """
    runs = Path(os.path.abspath(runs))
    run, files = RunDir(runs / check_name(name)), FileSystem()
    if run.exists():
        return _there(run, found)
    aside = RunDir(runs / scratch_name("tmp"))
    try:
        _tidy(runs, files)
        os.mkdir(aside.path, 0o700)
        try:
            _fill(aside, found, files)
            with held(runs):
                if run.exists():  # two commands ask for the same branch at once
                    known = _there(run, found)
                    discard(files, aside.path)
                    return known
                if os.path.lexists(run.path):
                    raise UserError(f"there is a {name!r} in {runs} already; choose another name with --run")
                os.rename(aside.path, run.path)
                files.fsync_folder(runs)
        except BaseException:
            discard(files, aside.path)
            raise
    except OSError as error:
        raise cannot_write(run.path, error) from None
    return Branch(run, found.config, found.origin, found.notes)


def _there(run: RunDir, found: Draft) -> Branch:
    """The run that is there, if it is this branch."""
    known = origin_of(run)
    if known is None or known.parent != found.origin.parent or not known.same(found.origin):
        raise UserError(f"run {run.name!r} exists in {run.path.parent} and is another; choose another name with --run")
    return Branch(run, found.config, known, found.notes)


def _tidy(runs: Path, files: FileSystem) -> None:
    """Removes what a killed process left half made."""
    for name in os.listdir(runs):
        if is_leftover(name):
            discard(files, runs / name)


def _fill(run: RunDir, found: Draft, files: FileSystem) -> None:
    for folder in run.folders:
        folder.mkdir(mode=0o700)
    place = run.checkpoints_dir / step_name(found.origin.step)
    files.mkdir(place)
    for name in os.listdir(found.checkpoint):
        _linked(found.checkpoint / name, place / name)
    if problems := verify(place):  # of what is the branch's own by now, whatever becomes of the parent
        raise UserError(
            f"checkpoint {found.checkpoint} is not whole ({'; '.join(problems)}); choose another step: python -m "
            f"mygpt2 runs verify {found.parent.name} lists which are"
        )
    files.fsync_folder(place)
    if not any(name.startswith("data.") for name in reordering(found.origin.changes)):
        there = found.parent.names(found.parent.path)
        for name in (name for name in there if any(fnmatch(name, pattern) for pattern in BESIDE)):
            with suppress(FileNotFoundError):
                shutil.copyfile(found.parent.path / name, run.path / name)
    replace_file(run.config_file, to_toml(found.config).encode(), durable=True)
    replace_json(file_of(run), found.origin.to_json(), durable=True)
    write_queued(
        run,
        f"a branch of {found.origin.parent} at step {found.origin.step}, not yet begun",
        "stopped",
        found.origin.step,
    )
    files.fsync_folder(run.path)


def _linked(source: Path, to: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        os.link(source, to, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, to, follow_symlinks=False)


def notes(origin: Origin) -> Iterator[str]:
    """What a person should know of how the branch begins."""
    if origin.optimizer == ANEW:
        why = "the checkpoint has the weights alone"
        if "optimizer.name" in origin.changes:
            why = "another optimizer has no use for the state"
        yield f"the optimizer begins anew, as {why}: expect the loss to rise for some steps"
    if origin.batches == OTHER:
        causes = ", ".join(reordering(origin.changes))
        yield (
            f"from step {origin.step + 1} on the batches are no longer those of {origin.parent}, because of {causes}: "
            "its losses and these do not pair step by step"
        )


def lines(origin: Origin) -> list[str]:
    """The changes in words."""
    found = []
    for name, pair in origin.changes.items():
        old, new = (_mixed(value) if name == "data.mix" else shown(value) for value in pair)
        if old == new:  # of a mixture something else than its shares
            old, new = map(shown, pair)
        found.append(f"{name} was {old} and is {new}")
    return found


def _mixed(tables: Any) -> str:
    """A mixture by its names and shares; one source is none."""
    try:
        return mix_words([MixSource.model_validate(table) for table in tables]) if tables else "one source"
    except (TypeError, ValueError):  # of a file that somebody wrote
        return shown(tables)


def shown(value: Any) -> str:
    return "unset" if value is None else toml_value(value)
