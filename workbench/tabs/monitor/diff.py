"""Settings of several runs side by side, with what else makes two runs differ: code, versions, tokenizer, data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mygpt2.config.earlier import renewed
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.files import read_json
from mygpt2.run_dir import RunDir
from workbench import html

UNSET = "–"
HASH = re.compile(r"\b[0-9a-f]{40,}\b")
RATES = ("optimizer.lr", "optimizer.muon_lr")
MAX_VALUE = 300  # characters


def facts(run: RunDir) -> dict[str, str]:
    """Everything that describes how a run was made, flat; what is not written down is absent."""
    return {**_configuration(run), **_command(run), **_checkpoint(run)}


def differences(found: Sequence[Mapping[str, str]], *, all_rows: bool) -> list[tuple[str, list[str]]]:
    """(key, a value per run) in the order of the first run's keys; only those that differ unless `all_rows`.

    Where something differs and Muon is at work, both of its learning rates: one alone would pass for the whole.
    """
    keys = dict.fromkeys(key for facts in found for key in facts)
    rows = [(key, [facts.get(key, UNSET) for facts in found]) for key in keys]
    shown = RATES if any(facts.get("optimizer.name") == "muon" for facts in found) else ()
    differing = [key for key, values in rows if len(set(values)) > 1]
    return rows if all_rows else [row for row in rows if row[0] in differing or (differing and row[0] in shown)]


def table(runs: Sequence[RunDir], *, all_rows: bool) -> html.Markup:
    """The table on the page. One run alone shows everything it has."""
    if not runs:
        return html.empty("No run is chosen.", "Tick runs in the list to compare their settings.")
    rows = differences([facts(run) for run in runs], all_rows=all_rows or len(runs) == 1)
    if not rows:
        return html.note(f"These {len(runs)} runs have the same settings, code, versions and data.")
    headers = ("Setting", *(run.name for run in runs))
    differ = sum(len(set(values)) > 1 for _, values in rows)
    count = "1 setting differs" if differ == 1 else f"{differ} settings differ"
    caption = "All settings" if all_rows or len(runs) == 1 else count
    return html.table(headers, [(key, *(_shown(value) for value in values)) for key, values in rows], caption=caption)


def _shown(value: str) -> str:
    """Hashes by their first digits: nobody reads the others."""
    return HASH.sub(lambda found: f"{found[0][:12]}…", value)


def _configuration(run: RunDir) -> dict[str, str]:
    try:
        settings = renewed(from_toml(run.read(run.config_file, MAX_BYTES)))
    except (OSError, ValueError):
        return {}
    return dict(_flat(settings, ""))


def _flat(settings: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        rows += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, _text(value))]
    return rows


def _command(run: RunDir) -> dict[str, str]:
    record = read_json(run.command_file, run.path) or {}
    git, versions = record.get("git"), record.get("versions")
    environment = record.get("environment")
    found: dict[str, Any] = {}
    if isinstance(git, dict):
        found["code: git commit"] = f"{git.get('commit')}{' and changes' if git.get('changed') else ''}"
    if isinstance(versions, dict):
        found |= {f"version: {name}": version for name, version in versions.items()}
    found |= {"host": record.get("host"), "platform": record.get("platform")}
    if isinstance(environment, dict):
        found["processes"] = environment.get("WORLD_SIZE", "1")
    return {key: _text(value) for key, value in found.items() if value is not None}


def _checkpoint(run: RunDir) -> dict[str, str]:
    """From the newest checkpoint's state.json: what the data and the tokenizer really were."""
    from mygpt2.checkpoint.store import candidates

    states = (read_json(path / "state.json", run.path) for path in candidates(run.checkpoints_dir))
    state = next((state for state in states if state), {})
    tokenizer, data = state.get("tokenizer"), state.get("data")
    prints = data.get("fingerprint") if isinstance(data, dict) else None
    found: dict[str, Any] = {"trained: precision": state.get("precision"), "trained: ranks": state.get("ranks")}
    if isinstance(tokenizer, dict):
        found["tokenizer: hash"] = tokenizer.get("fingerprint")
    if isinstance(prints, dict):
        found |= {f"data fingerprint: {key}": value for key, value in prints.items()}
    return {key: _text(value) for key, value in found.items() if value is not None}


def _text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]} …"
