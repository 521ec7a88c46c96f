"""The one command of a run: shown on the page, executed by the queue, and pasted into a terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mygpt2.config import RunConfig, config_hash, load_config
from mygpt2.config.fields import settings, toml_value
from mygpt2.errors import UserError
from mygpt2.launch.request import DEFAULT_PRESET
from mygpt2.run_dir import RunDir, check_name, rank_states

LAUNCH = ("-m", "mygpt2.launch")


def train_command(
    config: RunConfig, preset: str | None, run: str, runs: Path | str, nproc: int | None = None
) -> list[str]:
    """The command that trains `config` as the run `runs/run`: the preset, and an override for each other value.

    The engine's own loader has read it back and found the same configuration, so the run has the same hash.
    UserError for a name or a value that no command line can hold.
    """
    preset = preset or DEFAULT_PRESET
    words = overrides(config, preset)
    again = load_config(preset, None, words)
    if config_hash(again) != config_hash(config):
        raise UserError(_unspeakable(config, again))
    return [*_head(run, runs, nproc), "--preset", preset, *words]


def resume_command(run: RunDir, nproc: int | None = None) -> list[str]:
    """The command that goes on with a run from its own config.toml, on as many processes as it had."""
    if not run.config_file.is_file():
        raise UserError(f"run {run.name!r} has no config.toml yet, so there is nothing to go on with; start it anew")
    ranks = rank_states(run)
    return _head(run.name, run.path.parent, nproc or len(ranks) or None)


def overrides(config: RunConfig, preset: str) -> list[str]:
    """`--section.key value` for every setting that differs from the preset's."""
    base = load_config(preset)
    words: list[str] = []
    for setting in settings().values():
        value = getattr(getattr(config, setting.section), setting.key)
        if value == getattr(getattr(base, setting.section), setting.key):
            continue
        text = setting_text(value)
        # A value that begins with a dash would be taken for an option.
        words += [f"--{setting.name}={text}"] if text.startswith("-") else [f"--{setting.name}", text]
    return words


def setting_text(value: Any) -> str:
    """A setting's value as a word of the command line."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else toml_value(value)


def shown(argv: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """A command as a line for a terminal, with the variables it was given."""
    given = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join([*given, shlex.join(argv)])


def _head(run: str, runs: Path | str, nproc: int | None) -> list[str]:
    if nproc is not None and nproc < 1:
        raise UserError(f"{nproc} processes are not possible; allowed: 1 or more")
    words = [sys.executable, *LAUNCH, *(["--nproc", str(nproc)] if nproc else [])]
    return [*words, "--runs", str(Path(runs).absolute()), "--run", check_name(run)]


def _unspeakable(config: RunConfig, again: RunConfig) -> str:
    for setting in settings().values():
        ours, theirs = (getattr(getattr(c, setting.section), setting.key) for c in (config, again))
        if ours != theirs:
            return f"{setting.name} = {toml_value(ours)} cannot be given on a command line; expected {setting.allowed}"
    return "this configuration cannot be given on a command line; save it as TOML and use --config"
