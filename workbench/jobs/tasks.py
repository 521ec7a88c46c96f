"""Long work that is not a run (evaluations, tokenizers, ripples): detached processes, each with a folder of its own.

    runs/.workbench/tasks/<id>/   task.json  log.txt  progress.json  exit.json  [result.json]

Like a run, a task outlives the page and the server; everything there is to know of it lies in its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.errors import EXIT_STOPPED, UserError
from mygpt2.files import read_json, replace_json
from mygpt2.records import number
from mygpt2.run_dir import Process
from workbench.jobs import spawn, task_parent
from workbench.jobs.devices import device_environment
from workbench.jobs.records import ID

RESULT = "{result}"  # in argv: the path of the task's own result.json
KEPT = 100
GRACE_SECONDS = 20.0
LOG_LINES = 40


@dataclass(frozen=True)
class TaskProgress:
    """Where the work is: `done` of `total` units (None: unknown), `rate` units a second."""

    title: str
    done: float
    total: float | None
    unit: str
    rate: float | None
    seconds_left: float | None
    time: float

    @property
    def share(self) -> float | None:
        return min(1.0, self.done / self.total) if self.total else None


@dataclass(frozen=True)
class Task:
    """One task as it is now. state: running, done, failed, stopped or lost; `result` is its JSON once it is done."""

    id: str
    kind: str
    label: str
    state: str
    argv: tuple[str, ...]
    created: float
    ended: float | None
    progress: TaskProgress | None
    log: tuple[str, ...]
    result_file: Path | None
    result: Any
    error: str
    code: int | None
    devices: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        return self.state == "running"


class Tasks:
    """The tasks of one runs folder. Any server may start and stop them: none needs an owner."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._over: dict[str, Task] = {}  # tasks whose exit code was read: they change no more
        self._lock = threading.Lock()

    def start(
        self, kind: str, argv: Sequence[str], *, label: str, result: Path | None = None, devices: Sequence[str] = (),
        turn: bool = False,
    ) -> Task:  # fmt: skip
        """Starts a command. `result`: the JSON file it will write; a word {result} in argv is the task's own.

        `devices`: those it will be at work on, of which it sees no others. `turn`: it waits there for the tasks that do
        the same. UserError when it cannot start.
        """
        id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        folder = self._folder / id
        own = folder / "result.json"
        words = [word.replace(RESULT, str(own)) for word in argv]
        target = result or (own if any(RESULT in word for word in argv) else None)
        record = {"schema": 1, "id": id, "kind": kind, "label": label, "argv": words, "created": time.time(),
                  "result": str(target) if target else None, "asked": "", "process": None,
                  "devices": list(devices)}  # fmt: skip
        try:
            folder.mkdir(mode=0o700, parents=True)
            with spawn.held(folder / "log.txt") as log:  # first: whoever reads the record sees a task that runs
                replace_json(folder / "task.json", record)
                self._launch(id, folder, log, words, record, turn)
        except (OSError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"{label} could not be started: {getattr(error, 'strerror', None) or error}") from None
        self.prune()
        return self.get(id)

    def _launch(self, id: str, folder: Path, log: int, words: list[str], record: dict[str, Any], turn: bool) -> None:
        own = {spawn.TASK: id, spawn.PROGRESS: str(folder / "progress.json")}
        environment = spawn.child_environment({**device_environment(record["devices"]), **own})
        turns = [word for device in record["devices"] if turn for word in ("--turn", str(self._lock_of(device)))]
        # By its path, not as a module: it needs nothing of this package, whose import takes half a second.
        parent = str(Path(task_parent.__file__).resolve())
        command = [sys.executable, "-P", parent, str(folder), *turns, "--", *words]
        child = spawn.start_held(command, log, environment, os.getcwd())
        with self._lock:
            self._children[id] = child
        process = Process.of(child.pid)
        replace_json(folder / "task.json", {**record, "process": process.to_json() if process else None})

    def _lock_of(self, device: str) -> Path:
        """What the tasks hold that take turns on a device; beside the folders of tasks, and no task itself."""
        return self._folder / f"{re.sub(r'[^a-z0-9]+', '-', device)}.lock"

    def list(self, kind: str | None = None) -> list[Task]:
        """All tasks, or those of one kind, newest first."""
        try:
            names = [name for name in os.listdir(self._folder) if ID.fullmatch(name)]
        except OSError:
            return []
        tasks = sorted((t for name in names if (t := self._read(name))), key=lambda t: t.created, reverse=True)
        return [task for task in tasks if kind is None or task.kind == kind]

    def get(self, id: str) -> Task:
        """One task; UserError if there is none of this id."""
        task = self._read(id) if ID.fullmatch(id) else None
        if task is None:
            raise UserError(f"there is no task {id!r}; it may have been removed")
        return task

    def stop(self, id: str, grace: float = GRACE_SECONDS) -> Task:
        """Asks a task to end, without waiting: SIGTERM, and after the grace SIGKILL to whoever is left of it."""
        task = self.get(id)
        if task.running:
            folder = self._folder / id
            replace_json(folder / "task.json", {**(read_json(folder / "task.json") or {}), "asked": "stop"})
            for process in self._processes(id)[:1]:
                process.send(signal.SIGTERM)
            threading.Thread(target=self._finish_off, args=(id, grace), name=f"stop {id}", daemon=True).start()
        return self.get(id)

    def forget(self, id: str) -> None:
        """Removes a task that has ended, with its log and its own result. UserError while it runs."""
        task = self.get(id)
        if task.running:
            raise UserError(f"{task.label} is still running; stop it first")
        shutil.rmtree(self._folder / id, ignore_errors=True)

    def prune(self, keep: int = KEPT) -> None:
        """Forgets the oldest of those that have ended."""
        for task in [task for task in self.list() if not task.running][keep:]:
            with contextlib.suppress(UserError):
                self.forget(task.id)

    def reap(self) -> None:
        """Collects children that have ended, so that they do not stay as zombies."""
        with self._lock:
            self._children = {id: child for id, child in self._children.items() if child.poll() is None}

    def _read(self, id: str) -> Task | None:
        folder = self._folder / id
        record = read_json(folder / "task.json")
        if record is None:
            self._over.pop(id, None)
            return None
        if id in self._over:
            return self._over[id]
        self.reap()
        state, code, ended = self._state(id, folder, record)
        log = spawn.tail(folder / "log.txt", LOG_LINES)
        result, argv, devices = (record.get(key) for key in ("result", "argv", "devices"))
        target = Path(result) if isinstance(result, str) and "\0" not in result else None
        task = Task(
            id=id,
            kind=str(record.get("kind", "")),
            label=str(record.get("label", "")),
            state=state,
            argv=tuple(str(word) for word in argv) if isinstance(argv, list) else (),
            created=number(record.get("created")) or 0.0,
            ended=ended,
            progress=_progress(read_json(folder / "progress.json")),
            log=tuple(log),
            result_file=target,
            result=_json(target) if target and state == "done" else None,
            error=_error(state, code, log),
            code=code,
            devices=tuple(str(device) for device in devices) if isinstance(devices, list) else (),
        )
        if code is not None:
            self._over[id] = task
        return task

    def _state(self, id: str, folder: Path, record: dict[str, Any]) -> tuple[str, int | None, float | None]:
        ended = read_json(folder / "exit.json")
        if ended is None and self._alive(folder, record):
            return "running", None, None
        ended = ended or read_json(folder / "exit.json")  # it may have been written between the two looks
        code = ended.get("code") if ended else None
        when = number(ended.get("time")) if ended else None
        asked = bool(record.get("asked"))
        if not isinstance(code, int):
            return ("stopped" if asked else "lost"), None, None
        if code == 0:
            return "done", code, when
        return ("stopped" if asked or code == EXIT_STOPPED else "failed"), code, when

    def _alive(self, folder: Path, record: dict[str, Any]) -> bool:
        process = Process.from_json(record.get("process"))
        return process.alive() if process else spawn.log_is_held(folder / "log.txt")

    def _processes(self, id: str) -> tuple[Process, ...]:
        """The runner first, then everything it started."""
        record = read_json(self._folder / id / "task.json") or {}
        runner = Process.from_json(record.get("process"))
        first = [runner] if runner and runner.alive() else []
        return (*first, *(p for p in spawn.marked(spawn.TASK, id) if p not in first))

    def _finish_off(self, id: str, grace: float) -> None:
        deadline = time.monotonic() + grace
        folder, log = self._folder / id, self._folder / id / "log.txt"
        while time.monotonic() < deadline:
            self.reap()
            if not self._alive(folder, read_json(folder / "task.json") or {}) and not spawn.log_is_held(log):
                return
            time.sleep(0.1)
        for process in self._processes(id):
            with contextlib.suppress(PermissionError):
                process.send(signal.SIGKILL)


def _progress(record: dict[str, Any] | None) -> TaskProgress | None:
    try:
        assert record is not None
        done, time = number(record["done"]), number(record["time"])
        assert done is not None and time is not None
        return TaskProgress(
            str(record["title"]), done, number(record.get("total")), str(record.get("unit", "")),
            number(record.get("rate")), number(record.get("seconds_left")), time,
        )  # fmt: skip
    except (AssertionError, KeyError):
        return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _error(state: str, code: int | None, log: Sequence[str]) -> str:
    """Why it did not work, in its own words: the last `error:` line, else the last line of the log."""
    if state == "lost":
        return "it is gone without a word; the machine may have been restarted"
    if state != "failed":
        return ""
    said = [line.removeprefix("error: ") for line in log if line.startswith("error: ")]
    spoken = [line for line in log if line.strip()]
    return said[-1] if said else spoken[-1] if spoken else f"it ended with exit code {code}"
