"""What names a run from outside its folder: the workbench's files, and the settings of other runs.

    runs/.workbench/renamed.json   {"names": {old: new}, "moving": [old, new] while a rename is under way}

The record is written before a folder is renamed and completed after, so that a rename that was cut short is finished by
the next one who looks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mygpt2.files import read_json, replace_json
from mygpt2.inside import DOCUMENT_BYTES, SMALL_BYTES, open_inside
from mygpt2.run_dir.family import file_of, is_of, origin_of
from mygpt2.run_dir.holding import held_at
from mygpt2.run_dir.paths import NAME, RunDir, list_runs
from mygpt2.run_dir.process import Process

WORKBENCH = ".workbench"
HANDED = "_launch"  # below the folder of runs: what was handed to clusters, see launch/handed.py
TRASH = "_trash"
RENAMED = "renamed.json"
ACTIVE_JOBS = ("queued", "waiting", "claimed", "running")
RECORDS = ("jobs/*.json", "ended/*.json", "tasks/*/task.json", "evals/*.json", "ripples/studies/*.json")
_NAMED = ("run", "reference", "subject")  # keys whose whole value may be a run's name
_TOLD = ("label", "model")  # keys whose text may speak of a run


def queue_held(runs: Path) -> AbstractContextManager[None]:
    """Nobody queues, starts or ends a job of this folder meanwhile; without a workbench there is no queue to hold."""
    folder = runs / WORKBENCH
    return held_at(folder / "queue.lock", os.O_RDWR | os.O_CREAT) if folder.is_dir() else contextlib.nullcontext()


def queued_as(runs: Path, name: str) -> str:
    """The state of the run's place in the queue; "" if it has none."""
    for path in (runs / WORKBENCH / "jobs").glob("*.json"):
        job = read_json(path) or {}
        spec = job.get("spec")
        if isinstance(spec, dict) and spec.get("run") == name and job.get("state") in ACTIVE_JOBS:
            return str(job["state"])
    return ""


def waits_elsewhere(runs: Path, name: str) -> bool:
    """Whether a launch of this run was handed to a cluster and not taken back."""
    record = read_json(runs / HANDED / f"{name}.json", most=SMALL_BYTES)
    return record is not None and not record.get("ended")


def task_on(run: RunDir) -> str:
    """What reads the run's folder just now, such as an evaluation, in its own words; "" for nothing."""
    inside = re.compile(_path(run.path))
    for path in (run.path.parent / WORKBENCH / "tasks").glob("*/task.json"):
        if (path.parent / "exit.json").exists():
            continue
        task = read_json(path) or {}
        process = Process.from_json(task.get("process"))
        words = task.get("argv")
        if process and process.alive() and isinstance(words, list) and any(inside.search(str(w)) for w in words):
            return str(task.get("label") or "a task")
    return ""


def needed_by(run: RunDir) -> list[str]:
    """Other runs whose settings name files inside this one's folder, such as its tokenizer."""
    return needs(run.path.parent).get(run.name, [])


def needs(runs: Path) -> dict[str, list[str]]:
    """By run, those whose settings name files inside its folder; every run's settings are read once."""
    inside = re.compile(rf"{re.escape(str(runs))}/({NAME.pattern})(?![\w.-])")
    found: dict[str, list[str]] = {}
    for other in list_runs(runs):
        with contextlib.suppress(OSError):
            text = other.read(other.config_file, SMALL_BYTES).decode("utf-8", "replace")
            for name in dict.fromkeys(inside.findall(text)):
                if name != other.name:
                    found.setdefault(name, []).append(other.name)
    return found


def renamed(runs: Path) -> dict[str, str]:
    """Names that runs of this folder had, and those they have now."""
    return _names(_record(runs))


def present_name(runs: Path, name: str) -> str:
    """The name that a run has now which was called so; the same name where a run has it, or none ever had."""
    if RunDir(runs / name).exists():
        return name
    now = renamed(runs).get(name, name)
    return now if RunDir(runs / now).exists() else name


def begin(runs: Path, old: str, new: str) -> None:
    """Writes down that `old` is about to become `new`."""
    folder = runs / WORKBENCH
    folder.mkdir(mode=0o700, exist_ok=True)
    replace_json(folder / RENAMED, {"schema": 1, "names": renamed(runs), "moving": [old, new]}, durable=True)


def settle(runs: Path) -> None:
    """Completes a rename whose folder has its new name already, and forgets one that never came to it."""
    record = _record(runs)
    moving = record.get("moving")
    if not (isinstance(moving, list) and len(moving) == 2 and all(map(_is_name, moving))):
        return
    old, new = moving
    names = _names(record)
    if RunDir(runs / new).exists() and not RunDir(runs / old).exists():
        follow(runs, old, new)
        names = {was: new if now == old else now for was, now in names.items()} | {old: new}
        names = {was: now for was, now in names.items() if was != now}
    replace_json(runs / WORKBENCH / RENAMED, {"schema": 1, "names": names}, durable=True)


def follow(runs: Path, old: str, new: str) -> None:
    """Puts the new name into every record of the workbench, and into the run's own evaluations. May be done twice."""
    change = _Change(runs, old, new)
    for pattern in RECORDS:
        for path in (runs / WORKBENCH).glob(pattern):
            change.file(path)
    run = RunDir(runs / new)
    for name in run.names(run.evals_dir):
        if name.endswith(".json"):
            change.file(run.evals_dir / name, run.path)
    follow_family(runs, old, run)


def follow_family(runs: Path, old: str, run: RunDir) -> None:
    """Puts a run's name into the record of every branch of it, those in the trash included."""
    trashed = [RunDir(path) for path in (runs / TRASH).glob("*") if not path.is_symlink()]
    for other in [*list_runs(runs), *trashed]:
        origin = origin_of(other)
        if origin and origin.parent == old and is_of(replace(origin, parent=run.name), run):
            record = read_json(file_of(other), other.path, most=SMALL_BYTES) or {}
            replace_json(file_of(other), {**record, "parent": run.name}, durable=True)


class _Change:
    """One name for another in JSON documents: whole values under known keys, words after --run, paths, told names."""

    def __init__(self, runs: Path, old: str, new: str) -> None:
        self._old, self._new = old, new
        places = dict.fromkeys((str(runs / old), os.path.realpath(runs / old)))
        self._paths = [(re.compile(_path(Path(place))), str(Path(place).with_name(new))) for place in places]
        self._word = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w-]|\.\w)")

    def file(self, path: Path, root: Path | None = None) -> None:
        """Rewrites a document in which the old name stands; its time stays, which tells when it was measured.

        One that is no file of `root`, such as a pipe or a link out of the run, is left as it is and not waited for.
        """
        try:
            with open_inside(path, root, most=DOCUMENT_BYTES) as file:
                text, stat = file.read(DOCUMENT_BYTES).decode("utf-8"), os.fstat(file.fileno())
            value = json.loads(text) if self._old in text else None
        except (OSError, ValueError, RecursionError):
            return
        changed = self._in(value, "")
        if isinstance(changed, dict) and changed != value:
            replace_json(path, changed, durable=True)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))  # a reader's cache goes by it

    def _in(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: self._in(item, "run" if key == "runs" else name) for name, item in value.items()}
        if isinstance(value, list):
            named = ["--run", *value]  # a word and the one before it
            return [self._in(item, "run" if key == "argv" and named[at] == "--run" and at else "")
                    for at, item in enumerate(value)]  # fmt: skip
        return self._text(value, key) if isinstance(value, str) else value

    def _text(self, text: str, key: str) -> str:
        if key in _NAMED and text == self._old:
            return self._new
        for old, new in self._paths:
            text = old.sub(new.replace("\\", r"\\"), text)
        return self._word.sub(lambda _: self._new, text) if key in _TOLD else text


def _path(path: Path) -> str:
    """A pattern of a folder's path that is no longer folder's beginning."""
    return rf"{re.escape(str(path))}(?![\w.-])"


def _record(runs: Path) -> Mapping[str, Any]:
    return read_json(runs / WORKBENCH / RENAMED, most=SMALL_BYTES) or {}


def _names(record: Mapping[str, Any]) -> dict[str, str]:
    names = record.get("names")
    if not isinstance(names, dict):
        return {}
    return {old: new for old, new in names.items() if _is_name(old) and _is_name(new)}


def _is_name(value: Any) -> bool:
    """Whether this may be a run's name: a record that somebody else wrote must not lead out of the folder of runs."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None
