"""Settings of a run by section.key, read fast: a list of runs asks for those of all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mygpt2.config.earlier import renewed
from mygpt2.config.fields import settings
from mygpt2.config.load import LATER
from mygpt2.config.summary import vocabulary_size
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.run_dir.paths import RunDir


def vocabulary_of(run: RunDir) -> int | None:
    """Ids of the run's tokenizer where its name says it; a file that a configuration names is not opened."""
    spec = tokenizer_of(run)
    return vocabulary_size(spec) if spec.partition(":")[0] == "gpt2" else None


def tokenizer_of(run: RunDir) -> str:
    """What the run's configuration says of its tokenizer; "" where that is not known."""
    spec = settings_of(run).get("data.tokenizer")
    return spec if isinstance(spec, str) else ""


def settings_of(run: RunDir) -> Mapping[str, Any]:
    """Every setting of the run by section.key, unset ones left out; empty where its configuration cannot be read.

    The same object for as long as the file is the same.
    """
    try:
        state = run.config_file.stat()
    except OSError:
        return {}
    return _settings_in(run, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _settings_in(run: RunDir, changed: int, size: int) -> Mapping[str, Any]:
    try:
        data = run.read(run.config_file, MAX_BYTES)
        plain = _plain(data)
        tables = from_toml(data) if plain is None else plain
    except (OSError, ValueError):
        return {}
    sections = {name: table for name, table in renewed(tables).items() if isinstance(table, dict)}
    later = {f"{section}.{key}": _default(section, key) for section, key in LATER if section in sections}
    before = {name: value for name, value in later.items() if value is not None}  # what a run from before them had
    return before | {f"{name}.{key}": value for name, table in sections.items() for key, value in table.items()}


def _default(section: str, key: str) -> Any:
    return settings()[f"{section}.{key}"].default


def _plain(data: bytes) -> dict[str, dict[str, Any]] | None:
    """A configuration as a trainer writes it, a value to a line, in a tenth of the time TOML takes; None for others."""
    tables: dict[str, dict[str, Any]] = {}
    table: dict[str, Any] | None = None
    read = json.JSONDecoder().raw_decode  # what is a value in both languages is the same value in both
    try:
        for line in data.decode("utf-8").splitlines():
            if not line or line[0] == "#":
                continue
            if line[0] == "[":
                if not line[1:-1].isidentifier() or line[-1] != "]" or line[1:-1] in tables:
                    return None
                table = tables[line[1:-1]] = {}
                continue
            key, equals, text = line.partition(" = ")
            value, end = read(text)
            if table is None or not equals or not key.isidentifier() or key in table or not _ends(text[end:]):
                return None
            if isinstance(value, dict) or value is None or "\\/" in text:
                return None
            table[key] = value
    except (ValueError, RecursionError):
        return None
    return tables


def _ends(rest: str) -> bool:
    return not rest or rest.lstrip(" ")[:1] in ("", "#")
