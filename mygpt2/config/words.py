"""A configuration as words of a command line."""

from __future__ import annotations

from typing import Any

from mygpt2.config.fields import settings, toml_value
from mygpt2.config.load import config_hash, load_config
from mygpt2.config.schema import RunConfig
from mygpt2.errors import UserError


def words_of(config: RunConfig, preset: str) -> list[str]:
    """`--section.key value` for every setting that differs from the preset's.

    They have been read back and gave the same configuration, so that the run has the same hash. UserError for a value
    that no command line can hold.
    """
    base, words = load_config(preset), []
    for setting in settings().values():
        value = _value(config, setting)
        if value != _value(base, setting):
            text = text_of(value)
            # A value that begins with a dash would be taken for an option.
            words += [f"--{setting.name}={text}"] if text.startswith("-") else [f"--{setting.name}", text]
    again = load_config(preset, None, words)
    if config_hash(again) != config_hash(config):
        raise UserError(_unspeakable(config, again))
    return words


def _value(config: RunConfig, setting: Any) -> Any:
    return getattr(getattr(config, setting.section), setting.key)


def text_of(value: Any) -> str:
    """A value as the command line reads it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else toml_value(value)


def _unspeakable(config: RunConfig, again: RunConfig) -> str:
    for setting in settings().values():
        if (ours := _value(config, setting)) != _value(again, setting):
            return f"{setting.name} = {toml_value(ours)} cannot be given on a command line; expected {setting.allowed}"
    return "this configuration cannot be given on a command line; save it as TOML and use --config"
