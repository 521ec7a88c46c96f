"""The log of another program as a run without weights: read whole, written aside, then there at once or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.errors import UserError, shown
from mygpt2.files import cannot_write, encode_json
from mygpt2.progress import Progress, silent
from mygpt2.ripples.log import Log
from mygpt2.ripples.readers import read_log
from mygpt2.run_dir.ghost import FILE, MOST_WORDS, Ghost
from mygpt2.run_dir.holding import held
from mygpt2.run_dir.paths import RunDir, check_name
from mygpt2.run_dir.writer import METRIC_KEYS, SCHEMA

MOST_STEPS = 5_000_000  # of a log; a page draws 70,000 at once
OWN = "run"  # the protocol of a run's own validations
ASIDE = ".importing-"
LEFT_SECONDS = 3600.0  # after which what a killed import left is removed
PIECE = 20_000  # lines written at once


def import_log(
    log: Path, runs: Path, name: str | None = None, *, protocol: str = "", tokenizer: str = "",
    column: str | None = None, batch_tokens: float | None = None, progress: Progress = silent,
) -> tuple[RunDir, Ghost]:  # fmt: skip
    """The run that a log became. `column`, `batch_tokens`: see `ripples.readers.read_log`.

    `protocol`, `tokenizer`: what the person knows of how the loss was measured. UserError, and nothing written, for a
    log that cannot be read, one without a loss, a run of ours, and a name that is taken.
    """
    log, runs = Path(log), Path(runs)
    protocol, tokenizer = _word("--protocol", protocol), _word("--tokenizer", tokenizer)
    if protocol == OWN:
        raise UserError(f"--protocol {OWN} names the held-out text of a run of this program; give another name")
    name = check_name(name if name is not None else _name_of(log))
    _check_free(runs, name)
    if log.is_dir() and RunDir(log).exists():
        raise UserError(f"{shown(log)} is a run folder already; copy it into {shown(runs)} to see it there")
    found = read_log(log, column=column, batch_tokens=batch_tokens, progress=progress)
    _check(log, found)
    ghost = Ghost(log.name, _sha256(log), protocol, tokenizer, len(found), found.notes)
    try:
        runs.mkdir(parents=True, exist_ok=True)
        _sweep(runs)
        aside = runs / f"{ASIDE}{secrets.token_hex(6)}"
        try:
            _write(aside, found, ghost)
            with held(runs):  # nobody takes the name meanwhile
                _check_free(runs, name)
                os.rename(aside, runs / name)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise cannot_write(runs / name, error) from None
    return RunDir(runs / name), ghost


def _word(option: str, text: str) -> str:
    text = text.strip()
    if len(text) > MOST_WORDS or not text.isprintable():
        raise UserError(
            f"{option} {shown(text[:MOST_WORDS])} is not allowed; use up to {MOST_WORDS} printed characters"
        )
    return text


def _name_of(log: Path) -> str:
    """A run's name from a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", log.stem).strip("-._")[:64] or "ghost"


def _check_free(runs: Path, name: str) -> None:
    if os.path.lexists(runs / name):
        raise UserError(f"{name!r} exists in {shown(runs)} already; choose another --name")


def _check(log: Path, found: Log) -> None:
    """UserError for what could be drawn nowhere."""
    if not len(found):
        why = f": {found.notes[0]}" if found.notes else ""
        raise UserError(f"{shown(log)} holds no step with a loss{why}; give a log with a loss per step")
    if len(found) > MOST_STEPS:
        raise UserError(f"{shown(log)} has {len(found):,} steps; at most {MOST_STEPS:,} are imported; give fewer")
    if found.step[0] < 0 or not (found.step == np.floor(found.step)).all():
        raise UserError(f"{shown(log)} has steps that are no whole numbers from 0 up; give a log with a step per row")


def _sha256(log: Path) -> str:
    if log.is_dir():
        return ""
    with open(log, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(runs: Path) -> None:
    """Removes what imports left that were killed long ago."""
    for path in runs.glob(f"{ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, log: Log, ghost: Ghost) -> None:
    folder.mkdir(mode=0o700)
    now = time.time()
    last = int(log.step[-1])
    tokens = None if log.tokens is None else int(log.tokens[-1])
    with open(folder / "metrics.jsonl", "w", encoding="utf-8") as file:
        for start in range(0, len(log), PIECE):
            file.write("".join(_rows(log, start, min(len(log), start + PIECE), now)))
    with open(folder / "events.jsonl", "w", encoding="utf-8") as file:
        event: dict[str, Any] = {"schema": SCHEMA, "attempt": 1, "kind": "import", "step": last, "time": now,
                                 "message": f"imported from {ghost.log}, {ghost.told}"}  # fmt: skip
        file.write(_line(event))
        for step, loss in zip(*_validation(log), strict=True):
            file.write(_line({"schema": SCHEMA, "attempt": 1, "kind": "eval", "step": int(step), "loss": float(loss),
                              "protocol": ghost.protocol or None, "time": now}))  # fmt: skip
    status = {
        "schema": SCHEMA, "attempt": 1, "state": "finished", "phase": "finished", "step": last, "steps": last,
        "tokens": tokens, "loss": float(log.loss[-1]), "started": now, "heartbeat": now, "progress": now, "eta": None,
        "message": f"imported from {ghost.log}",
    }  # fmt: skip
    (folder / "status.json").write_bytes(encode_json(status))
    (folder / FILE).write_bytes(encode_json(ghost.to_json()))


def _rows(log: Log, start: int, stop: int, now: float) -> list[str]:
    empty = dict.fromkeys(METRIC_KEYS)
    found = []
    for at in range(start, stop):
        row = {"schema": SCHEMA, "attempt": 1, **empty, "step": int(log.step[at]), "loss": float(log.loss[at]),
               "tokens": None if log.tokens is None else int(log.tokens[at]),
               "lr": None if log.rate is None else float(log.rate[at]), "time": now}  # fmt: skip
        found.append(_line(row))
    return found


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"


def _validation(log: Log) -> tuple[Any, Any]:
    """Evaluations at whole steps."""
    if log.validation is None:
        return (), ()
    whole = (log.validation.step >= 0) & (log.validation.step == np.floor(log.validation.step))
    return log.validation.step[whole], log.validation.loss[whole]
