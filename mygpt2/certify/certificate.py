"""The certificate of a run: the digests of its settings, its data, its losses and its checkpoints.

It holds no weights and no text. Whoever has it and the run's folder can tell whether one bit of the folder is another,
and which; `recheck` trains parts of the run again. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mygpt2.checkpoint.background import LOSSES as validation_losses
from mygpt2.checkpoint.files import step_of
from mygpt2.checkpoint.format import MANIFEST, encode_json, read_state, verify
from mygpt2.checkpoint.rounding import rounded
from mygpt2.checkpoint.store import candidates
from mygpt2.errors import UserError
from mygpt2.files import read_json
from mygpt2.inside import open_inside
from mygpt2.records import whole
from mygpt2.run_dir.command import versions
from mygpt2.run_dir.liveness import state_of
from mygpt2.run_dir.paths import RunDir

SCHEMA, KIND = 1, "certificate of a mygpt2 run"
NAME = "certificate.json"
LINES = 1000  # of metrics.jsonl under one digest, so that a change is found within as many steps
# Files of the run folder under one digest each, beside the trace's; of a mixture, each source has checksums and checks
# of its own.
WHOLE = re.compile(r"config\.toml|data(-.+)?\.checksums|blocks(-.+)?\.checks")
LOSSES = f"checkpoints/{validation_losses}"  # by which the best checkpoint was kept
CHUNK = 1 << 20  # bytes read at once


def make(run: RunDir) -> dict[str, Any]:
    """The certificate of a run that is over or stopped. Reads every byte of its checkpoints, and no text.

    UserError for a run at work, one without a checkpoint, and one whose checkpoint is damaged, which is named.
    """
    if state_of(run).alive:
        raise UserError(f"run {run.name!r} is at work; certify it when it has ended or was stopped")
    found = candidates(run.checkpoints_dir)
    if not found:
        raise UserError(f"run {run.name!r} has no checkpoint; there is nothing to train again from")
    if gone := [path.name for path in (run.config_file, run.metrics_file) if not path.is_file()]:
        raise UserError(f"run {run.name!r} has no {' and no '.join(gone)}, which a certificate is of; restore it")
    for path in found:
        if problems := verify(path):
            raise UserError(
                f"checkpoint {path.name} of run {run.name!r} is not whole ({'; '.join(problems)}); delete or restore it"
            )
    state = read_state(max(found, key=lambda path: step_of(path.name) or 0))
    body = {
        "schema": SCHEMA, "kind": KIND, "run": run.name, "made": round(time.time()),
        "with": {"versions": versions(), "machine": machine()},
        "trained_with": (read_json(run.command_file, run.path) or {}).get("versions"),
        "data": state["data"]["fingerprint"], "tokenizer": state["tokenizer"],
        "files": {name: digest for name in _covered(run) if (digest := file_digest(run, name))},
        "metrics": list(metrics_digests(run)),
        "events": events_digest(run),
        "checkpoints": {str(step_of(path.name)): checkpoint_facts(path) for path in found},
    }  # fmt: skip
    return {**body, "self": _digest(encode_json(body))}


def read(path: Path) -> dict[str, Any]:
    """The certificate in a file; UserError where there is none, or where it is not what was written."""
    found = read_json(path)
    if found is None:
        raise UserError(f"{path} is no certificate; make one: python -m mygpt2 certify RUN")
    body = {key: value for key, value in found.items() if key != "self"}
    if found.get("kind") != KIND or found.get("self") != _digest(encode_json(body)):
        raise UserError(f"{path} is not as it was written, or no certificate; take another copy of it")
    if found["schema"] != SCHEMA:
        raise UserError(f"{path} has schema {found['schema']}, and this version reads {SCHEMA}; use a newer version")
    if not _sound(found):
        raise UserError(f"{path} is no certificate that this program made: parts of it are missing or of another kind")
    return found


def _sound(found: Mapping[str, Any]) -> bool:
    """Whether all that is read of a certificate has its kind: somebody else may have written it."""
    kinds = {"files": dict, "metrics": list, "checkpoints": dict, "with": dict}
    if not found["checkpoints"] or any(not isinstance(found.get(key), kind) for key, kind in kinds.items()):
        return False
    events, made = found.get("events", {"bytes": 0, "sha256": None}), found["with"]
    tables = [made.get("machine"), made.get("versions"), events, *found["checkpoints"].values(), *found["metrics"]]
    return (
        all(isinstance(table, dict) for table in tables)
        and isinstance(whole(events.get("bytes")), int)
        and all(isinstance(whole(part.get("lines")), int) and "sha256" in part for part in found["metrics"])
        and all(step.isdecimal() and step.isascii() for step in found["checkpoints"])
        and all(
            isinstance(whole(facts.get("ranks")), int) and isinstance(facts.get("precision"), str)
            for facts in found["checkpoints"].values()
        )
    )


def differences(run: RunDir, certificate: Mapping[str, Any]) -> list[str]:
    """What of the run's folder is not what was certified, a line each; reads every byte of its checkpoints."""
    return [
        *_other_files(run, certificate["files"]),
        *_other_metrics(run, certificate["metrics"]),
        *_other_events(run, certificate.get("events")),
        *_other_checkpoints(run, certificate["checkpoints"]),
    ]


def _covered(run: RunDir) -> list[str]:
    """Files of the run folder that are certified as a whole, where they are there."""
    trace = [f"{run.trace_dir.name}/{name}" for name in run.names(run.trace_dir)]
    return [*(name for name in run.names(run.path) if WHOLE.fullmatch(name)), LOSSES, *trace]


def machine() -> dict[str, str]:
    """What decides how sums are rounded, as far as it is known without a tensor: the kind of processor and system."""
    return {"processor": _processor(), "architecture": platform.machine(), "system": platform.system()}


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """Digests of a checkpoint that was verified, and how it was trained as far as its numbers depend on that."""
    state, files = read_state(path), json.loads((path / MANIFEST).read_bytes())["files"]
    return {
        "manifest": _digest((path / MANIFEST).read_bytes()),
        "files": {name: entry["sha256"] for name, entry in files.items()},
        "precision": state["precision"], "ranks": state["ranks"],
        **({"rounding": known} if (known := rounded(state)) else {}),
    }  # fmt: skip


def file_digest(run: RunDir, name: str, most: int | None = None) -> str | None:
    """SHA-256 of a file of the run folder, or of its first `most` bytes, or None where there is none."""
    left = most
    try:
        with open_inside(run.path / name, run.path) as file:
            digest = hashlib.sha256()
            while chunk := file.read(CHUNK if left is None else min(CHUNK, left)):
                digest.update(chunk)
                left = left if left is None else left - len(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def events_digest(run: RunDir) -> dict[str, Any]:
    """{"bytes", "sha256"} of events.jsonl, validations among them, as far as it goes: more may be written later."""
    size = run.events_file.stat().st_size if run.events_file.is_file() else 0
    return {"bytes": size, "sha256": file_digest(run, run.events_file.name, size)}


def metrics_digests(run: RunDir) -> Iterator[dict[str, Any]]:
    """Digests of metrics.jsonl, of LINES lines each: {"lines", "first", "last" (steps), "sha256"}."""
    try:
        with open_inside(run.metrics_file, run.path) as file:
            lines: list[bytes] = []
            for line in file:
                lines.append(line)
                if len(lines) == LINES:
                    yield _of_lines(lines)
                    lines = []
            if lines:
                yield _of_lines(lines)
    except OSError:
        return


def _of_lines(lines: list[bytes]) -> dict[str, Any]:
    return {
        "lines": len(lines), "first": _step(lines[0]), "last": _step(lines[-1]), "sha256": _digest(b"".join(lines)),
    }  # fmt: skip


def _step(line: bytes) -> int | None:
    try:
        found = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, int) else None


def _other_files(run: RunDir, known: Mapping[str, str]) -> Iterator[str]:
    for name, digest in known.items():
        now = file_digest(run, name)
        if now != digest:
            yield f"{name} is gone" if now is None else f"{name} is not what was certified"


def _other_metrics(run: RunDir, known: list[dict[str, Any]]) -> Iterator[str]:
    now, at = list(metrics_digests(run)), 0
    for number, part in enumerate(known):
        if number >= len(now) or now[number]["sha256"] != part["sha256"]:
            yield (
                f"metrics.jsonl is not what was certified in its lines {at + 1:,} to {at + part['lines']:,}, steps "
                f"{part['first']} to {part['last']}"
            )
        at += part["lines"]
    if sum(part["lines"] for part in now) > at:
        yield f"metrics.jsonl has lines after its line {at:,}, where it ended"


def _other_events(run: RunDir, known: Mapping[str, Any] | None) -> Iterator[str]:
    if known and file_digest(run, run.events_file.name, known["bytes"]) != known["sha256"]:
        yield f"events.jsonl is not what was certified in its first {known['bytes']:,} bytes"


def _other_checkpoints(run: RunDir, known: Mapping[str, Any]) -> Iterator[str]:
    there = {str(step_of(path.name)): path for path in candidates(run.checkpoints_dir)}
    for step, facts in known.items():
        if (path := there.get(step)) is None:
            yield f"the checkpoint of step {step} is gone"
        elif problems := verify(path):
            yield f"the checkpoint of step {step} is not whole: {'; '.join(problems)}"
        elif checkpoint_facts(path) != facts:
            yield f"the checkpoint of step {step} is another than the one that was certified"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
