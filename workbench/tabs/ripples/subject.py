"""What is analysed: a run or a log, with what a person said about it; and what tells one state of it from another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mygpt2
from mygpt2.errors import UserError
from mygpt2.ripples.events import event_files
from mygpt2.ripples.layout import DATASETS
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.marks import current_runs
from mygpt2.run_dir.paths import NAME
from workbench.context import Context

FOLDER = "ripples"  # in runs/.workbench
MOST_RUNS = 500


@dataclass(frozen=True)
class Subject:
    """A run folder or a log file. `text` is what the choice says, `options` what was said about it, checked.

    `reference` is a run in whose difference the ripple is sought or, if `pair`, one that it is compared with.
    """

    text: str
    name: str
    path: Path
    run: RunDir | None
    reference: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    pair: bool = False

    @property
    def key(self) -> str:
        """A folder name: the same for the same thing analysed in the same way."""
        content = [str(self.path), str(self.reference or ""), dict(self.options), self.pair]
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[:40].strip("-.") or "log"
        return f"{slug}-{_digest(content)}"

    @property
    def state(self) -> tuple[int, str]:
        """(bytes of what is read, a digest that changes with it and with the program)."""
        size, own = _stat(self.path)
        return size, _digest([mygpt2.__version__, own, _stat(self.reference)[1] if self.reference else ""])


def folder(context: Context) -> Path:
    """Where everything of this tab lies."""
    return context.runs / ".workbench" / FOLDER


def choices(context: Context) -> list[tuple[str, str]]:
    """(label, value) of the runs by name; logs are browsed for."""
    return [(run.name, run.name) for run in current_runs(context.runs)][:MOST_RUNS]


def subject_of(
    context: Context, text: Any, reference: Any = "", options: Mapping[str, Any] | None = None, *, pair: bool = False
) -> Subject:
    """The subject of a choice or of something typed. UserError for what is neither a run nor a log inside the roots."""
    name, path, run = _place(context, text, "run or log")
    other = None
    if str(reference or "").strip():
        other = _place(context, reference, "reference")[1]
        if other == path:
            raise UserError(f"{name} is chosen twice; choose another run with the same data order beside it")
    if pair and other is None:
        raise UserError("a comparison needs two; choose a second run or log with the same data order")
    return Subject(str(text).strip(), name, path, run, other, checked(options or {}), pair)


def _place(context: Context, text: Any, what: str) -> tuple[str, Path, RunDir | None]:
    text = str(text or "").strip()
    if not text:
        raise UserError(f"no {what} is chosen; choose a run or a log, or type a path inside the roots")
    if NAME.fullmatch(text) and (context.runs / text).exists():
        run = context.run(text)
        return run.name, run.path, run
    if NAME.fullmatch(text) and not any((root / text).exists() for root in context.data_roots):
        context.run(text)  # says which names are near
    path = context.path(text, what)
    if not path.exists():
        raise UserError(f"{what} {text!r} does not exist; choose a run or a log, or type a path inside the roots")
    return path.name, path, RunDir(path) if path.is_dir() and path.parent == context.runs else None


def checked(options: Mapping[str, Any]) -> dict[str, str]:
    """What was said about a log, as the command line takes it; what was left empty is left out. UserError else."""
    found: dict[str, str] = {}
    column = str(options.get("column") or "").strip()
    if column:
        if len(column) > 200 or not column.isprintable():
            raise UserError(f"column {column[:40]!r} is not a name of a column; give one of the log's own names")
        found["column"] = column
    for key, label in (("batch_tokens", "tokens per step"), ("file_tokens", "tokens per file")):
        if options.get(key) not in (None, "", 0):
            found[key] = f"{_positive(options[key], label):.0f}"
    for key, label in (("files", "files of one pass"), ("streams", "files read at once")):
        if options.get(key) not in (None, "", 0):
            found[key] = f"{_positive(options[key], label, 10**9):.0f}"
    dataset = str(options.get("dataset") or "")
    if dataset not in ("", *DATASETS):
        raise UserError(f"dataset {dataset!r} is not known; choose {', '.join(DATASETS)}, or none")
    if dataset:
        found["dataset"] = dataset
    if steps := str(options.get("steps") or "").strip():
        if not re.fullmatch(r"\d{0,12}:\d{0,12}", steps) or steps == ":":
            raise UserError(f"steps {steps[:40]!r} is not a range; write FIRST:LAST, for example 3000:5000 or 3000:")
        first, last = steps.split(":")
        if first and last and int(first) >= int(last):
            raise UserError(f"steps {steps}: the first comes after the last; write FIRST:LAST")
        found["steps"] = steps
    return found


def _positive(value: Any, label: str, most: float = 1e15) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 1 <= number <= most:
        raise UserError(f"{label}: {str(value)[:40]!r} is not possible; give 1 to {most:g}, or leave it empty")
    return number


def _stat(path: Path) -> tuple[int, str]:
    """(bytes, what changes when it does) of a log, of what is read of a run folder, or of a folder of event files."""
    run = RunDir(path)
    read = [path] if not path.is_dir() else [run.metrics_file] if run.exists() else event_files(path)
    traces = [name for name in run.names(run.trace_dir) if name.endswith(".parquet")]
    try:
        stats = [(file.name, stat.st_size, stat.st_mtime_ns) for file in read for stat in [file.stat()]]
    except OSError:
        return 0, "none"
    return sum(size for _, size, _ in stats), _digest([stats, traces]) if stats else "none"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "replace")).hexdigest()[:12]
