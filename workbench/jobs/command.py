"""The one command of a run: shown on the page, executed by the queue, and pasted into a terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mygpt2.config import RunConfig
from mygpt2.config.words import text_of, words_of
from mygpt2.errors import UserError
from mygpt2.launch.request import DEFAULT_PRESET
from mygpt2.run_dir import RunDir, check_name, rank_states
from mygpt2.train.branching import Draft

LAUNCH = ("-m", "mygpt2.launch")


def train_command(
    config: RunConfig, preset: str | None, run: str, runs: Path | str, nproc: int | None = None
) -> list[str]:
    """The command that trains `config` as the run `runs/run`: the preset, and an override for each other value.

    UserError for a name or a value that no command line can hold.
    """
    preset = preset or DEFAULT_PRESET
    return [*_head(run, runs, nproc), "--preset", preset, *words_of(config, preset)]


def resume_command(run: RunDir, nproc: int | None = None) -> list[str]:
    """The command that goes on with a run from its own config.toml, on as many processes as it had."""
    if not run.config_file.is_file():
        raise UserError(f"run {run.name!r} has no config.toml yet, so there is nothing to go on with; start it anew")
    ranks = rank_states(run)
    return _head(run.name, run.path.parent, nproc or len(ranks) or None)


def begun_command(run: str, runs: Path | str, nproc: int | None = None) -> list[str]:
    """The command that trains a run whose config.toml is there, or will be when it is its turn."""
    return _head(run, runs, nproc)


def branch_command(found: Draft, run: str) -> list[str]:
    """The command that makes a branch: its parent's checkpoint, and an option for each setting that was changed."""
    words = [sys.executable, "-m", "mygpt2", "runs", "branch", f"{found.parent.name}@{found.origin.step}"]
    words += ["--run", run, "--runs", str(found.parent.path.parent.absolute())]
    for name, (_, now) in found.origin.changes.items():
        words.append(f"--{name}={text_of(now)}")
    return words


def shown(argv: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """A command as a line for a terminal, with the variables it was given."""
    given = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join([*given, shlex.join(argv)])


def _head(run: str, runs: Path | str, nproc: int | None) -> list[str]:
    if nproc is not None and nproc < 1:
        raise UserError(f"{nproc} processes are not possible; allowed: 1 or more")
    words = [sys.executable, *LAUNCH, *(["--nproc", str(nproc)] if nproc else [])]
    return [*words, "--runs", str(Path(runs).absolute()), "--run", check_name(run)]
