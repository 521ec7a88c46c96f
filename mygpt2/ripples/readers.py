"""Reading logs of any origin: our run folders, CSV, build-nanogpt's log.txt, exports of W&B, and TensorBoard's files.

Every row is kept: a chart's thinned points cannot show a period shorter than two of their spacings.
"""

from __future__ import annotations

import csv
import io
import json
import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.errors import UserError
from mygpt2.ripples.events import PREFIX, Scalars, event_files, read_event_files
from mygpt2.ripples.log import Log, make_curve, make_log
from mygpt2.ripples.runs import read_run
from mygpt2.ripples.told import Told, silent
from mygpt2.run_dir.paths import RunDir

FORMATS = "a run folder, .csv, .json, .jsonl, build-nanogpt's log.txt, or a TensorBoard event file or folder"
STEPS = ("step", "_step", "global_step", "trainer/global_step", "train/global_step", "iteration", "iter", "update")
TOKENS = ("tokens", "total_tokens", "num_tokens", "train/tokens", "tokens_seen", "train/total_tokens")
LOSSES = (
    "train_loss", "train/loss", "loss", "training_loss", "train/train_loss", "train loss", "loss/train", "lossf",
    "train_lossf", "value",
)  # fmt: skip
VALIDATIONS = ("val_loss", "val/loss", "eval/loss", "eval_loss", "validation_loss", "valid_loss", "loss/val")
RATES = ("lr", "learning_rate", "train/lr", "train/learning_rate")
TOLD_EVERY = 1 << 16  # lines between two words of progress
_MEAN_OF = re.compile(r"_?mean_of_(\d+)_steps$")
_NANOGPT = re.compile(r"\s*(\d+)\s+(train|val|hella)\s+(\S+)\s*$")

Columns = dict[str, np.ndarray]


def read_log(path: Path, *, column: str | None = None, batch_tokens: float | None = None, told: Told = silent) -> Log:
    """The log at a path. `column` names the loss; `batch_tokens` gives the tokens of a step where none are logged.

    UserError for what cannot be read or holds no loss; odd numbers are not an error but end up in the notes.
    """
    path = Path(path)
    if path.is_dir():
        if found := [] if RunDir(path).exists() else event_files(path):
            return _scalars_log(path, found, column, batch_tokens, told)
        return read_run(path, told)
    if path.name.startswith(PREFIX):
        return _scalars_log(path, [path], column, batch_tokens, told)
    columns = _columns(path, _text(path), told)
    return _log(path, columns, column, batch_tokens)


def _scalars_log(path: Path, files: list[Path], column: str | None, batch_tokens: float | None, told: Told) -> Log:
    """The log of event files; a step that has other scalars and no loss is no fault."""
    found = read_event_files(files, lambda done, total: told(f"read {path.name}", done, total, "B"))
    return _log(path, {"step": found.step, **found.values}, column, batch_tokens, found)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; give {FORMATS}") from None
    if b"\0" in raw[:4096]:
        raise UserError(f"{path} is not text; give {FORMATS}")
    return raw.decode("utf-8-sig", errors="replace")


def _columns(path: Path, text: str, told: Told) -> Columns:
    """The columns of a text file, by what its first line looks like."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        raise UserError(f"{path} is empty; give {FORMATS} with a loss per step")
    if _NANOGPT.match(first):
        return _nanogpt(text)
    if first.lstrip()[:1] in "[{":
        return _json(path, text, told)
    return _csv(path, text, told)


def _nanogpt(text: str) -> Columns:
    """Lines of `STEP train|val|hella NUMBER`."""
    found = [match.groups() for line in text.splitlines() if (match := _NANOGPT.match(line))]
    rows = [{"step": step, {"train": "loss", "val": "val_loss"}[kind]: x} for step, kind, x in found if kind != "hella"]
    return _from_records(rows)


def _csv(path: Path, text: str, told: Told) -> Columns:
    separator = max(",;\t", key=text.split("\n", 1)[0].count)
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        header = [name.strip() for name in next(rows)]
        if all(_number(name) == _number(name) for name in header):
            raise UserError(f"{path} has no header line; name its columns, for example step,tokens,loss")
        values = [array("d") for _ in header]
        total = text.count("\n")
        for row in rows:
            if rows.line_num % TOLD_EVERY == 0:
                told(f"read {path.name}", rows.line_num, total, "lines")
            row += [""] * (len(header) - len(row)) if row else []
            for column, cell in zip(values, row, strict=False):
                column.append(_number(cell))
    except csv.Error as error:
        raise UserError(f"{path} is not CSV: {error}; give {FORMATS}") from None
    return {name: np.array(column, np.float64) for name, column in zip(header, values, strict=True)}


def _json(path: Path, text: str, told: Told) -> Columns:
    """A list of records or of TensorBoard's [time, step, value], an object that holds one, or a record a line."""
    try:
        value = json.loads(text)
    except ValueError:
        value = []
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if number % TOLD_EVERY == 0:
                told(f"read {path.name}", number, len(lines), "lines")
            if (record := _record(line)) is not None:
                value.append(record)
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list) and item]
        if lists and all(not isinstance(x, dict | list) for item in lists for x in item[:1]):
            length = max(map(len, lists))
            return {k: _padded(v, length) for k, v in value.items() if isinstance(v, list)}
        value = max(lists, key=len, default=[value])
    if not isinstance(value, list):
        raise UserError(f"{path} holds no list of records; give {FORMATS}")
    if value and all(isinstance(row, list) and len(row) == 3 for row in value):
        return _from_records([{"time": row[0], "step": row[1], "value": row[2]} for row in value])
    return _from_records([row for row in value if isinstance(row, dict)])


def _record(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _padded(values: list[Any], length: int) -> np.ndarray:
    found = np.full(length, np.nan)
    found[: len(values)] = [_number(value) for value in values]
    return found


def _from_records(rows: Sequence[dict[str, Any]]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([_number(row.get(name)) for row in rows], np.float64) for name in names}


def _number(value: Any) -> float:
    """A number, or NaN for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _log(
    path: Path, columns: Columns, column: str | None, batch_tokens: float | None, scalars: Scalars | None = None
) -> Log:
    """The log of columns, among which the loss, steps, tokens, rate and validation are found by their names."""
    usable = {name: values for name, values in columns.items() if len(values) and np.isfinite(values).any()}
    step = _find(usable, STEPS)
    loss = column if column is not None else _find(usable, LOSSES)
    if loss is None or loss not in usable:
        shown = ", ".join(list(columns)[:12]) or "none"
        wanted = f"column {column!r}" if column is not None else "loss"
        raise UserError(f"{path} has no {wanted} with numbers; its columns: {shown}; name the loss with --column")
    steps = usable[step] if step is not None else np.arange(len(usable[loss]), dtype=np.float64)
    notes = scalars.notes if scalars else ()
    if step is None:
        notes = (*notes, "it has no step column: rows are counted instead")
    tokens = _find(usable, TOKENS)
    values = usable[tokens] if tokens else None
    if batch_tokens is not None:
        values = (steps + 1) * batch_tokens
    rate = _find(usable, RATES)
    validation = _find(usable, VALIDATIONS)
    present = scalars.logged[loss] if scalars else np.ones(len(steps), bool)
    if validation is not None and not scalars:  # rows of validation alone are no faults of the training loss
        present = np.isfinite(usable[loss]) | ~np.isfinite(usable[validation])
    mean = _MEAN_OF.search(loss)
    return make_log(
        path.name,
        steps[present],
        usable[loss][present],
        tokens=None if values is None else values[present],
        rate=None if rate is None else usable[rate][present],
        validation=None if validation is None else make_curve(steps, usable[validation]),
        averaged=int(mean[1]) if mean else 1,
        notes=notes,
    )


def _find(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first column that goes by one of the wanted names, in their order of preference.

    Weights & Biases writes `run - name` and adds `name__MIN` and `name__MAX`, which are not the value.
    """
    plain: dict[str, str] = {}
    for name in columns:
        if not name.endswith(("__MIN", "__MAX")):
            plain.setdefault(_MEAN_OF.sub("", name.rsplit(" - ", 1)[-1].strip()).lower(), name)
    return next((plain[name] for name in wanted if name in plain), None)
