"""Analyses on disk: made by `python -m mygpt2 ripples` as tasks, found again by what was analysed and in which state.

    runs/.workbench/ripples/results/<subject>/<bytes>-<state>.json  and .html

A report is of the state in its name; the subject's own state says whether it still is the newest.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, state_of
from workbench.context import Context
from workbench.jobs import Task
from workbench.tabs.ripples.subject import Subject, folder

KIND = "ripples"
GROWN = 1.1  # a run at work is analysed again when it has so many times as many bytes
KEPT, KEPT_SUBJECTS = 2, 200
MOST_READ = 16  # reports held in memory
_STARTING = threading.Lock()  # of pages and of what goes on without one, one at a time starts what is due


@dataclass(frozen=True)
class Found:
    """What there is of a subject: its newest report, whether that is of its state now, and the work under way.

    `grown`: bytes now as a multiple of those that were analysed, or tried, last; 0 when nothing was.
    """

    file: Path | None
    fresh: bool
    grown: float
    task: Task | None

    @property
    def running(self) -> bool:
        return self.task is not None and self.task.running


class Reports:
    """The analyses of one runs folder. What was read once is read again only when another file takes its place."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._read: dict[Path, tuple[int, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def file(self, subject: Subject) -> Path:
        """Where the report of the subject's state now lies, or will."""
        size, state = subject.state
        return self._folder(subject) / f"{size}-{state}.json"

    def look(self, subject: Subject) -> Found:
        """Report and task of a subject, from files alone."""
        wanted, task = self.file(subject), self._task(subject)
        made = self._made(subject)
        file = wanted if wanted in made else made[0] if made else None
        tried = task.result_file if task is not None and not task.running else file
        if tried is None:
            return Found(file, file == wanted, 0.0, task)
        before, now = _bytes(tried), _bytes(wanted)
        return Found(file, file == wanted, now / before if before else GROWN if now else 1.0, task)

    def wants(self, subject: Subject, found: Found) -> bool:
        """Whether an analysis is due without anybody asking: the first one, of a run that grew, of one that ended."""
        if found.fresh or found.running or self._context.read_only:
            return False
        if found.grown == 0.0:
            return True
        if subject.run is not None and state_of(subject.run).alive:
            return found.grown >= GROWN
        return found.task is None or found.task.result_file != self.file(subject)

    def start(self, subject: Subject) -> Task:
        """Analyses the subject as it is now. UserError while that is under way."""
        self._context.changes()
        with _STARTING:
            task = self._task(subject)
            if task and task.running:
                raise UserError(f"{subject.name} is being measured already; wait for it, or stop it first")
            return self._start(subject)

    def start_due(self, subject: Subject) -> Found:
        """What there is of a subject, after its analysis was started where one is due; of several pages one does."""
        found = self.look(subject)
        if not self.wants(subject, found):
            return found
        with _STARTING:
            if self.wants(subject, self.look(subject)):
                self._start(subject)
        return self.look(subject)

    def _start(self, subject: Subject) -> Task:
        file = self.file(subject)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forget(subject)
        self._tidy()
        label = f"ripples of {subject.name}"
        words = command(subject, file, own_data=self._own_data(subject))
        return self._context.jobs.tasks.start(KIND, words, label=label, result=file)

    def _own_data(self, subject: Subject) -> bool:
        """Whether the trace names nothing but data that may be typed here; one who made the folder may name any."""
        try:
            self._context.traced_files(RunDir(subject.path))
        except UserError:
            return False
        return True

    def stop(self, subject: Subject) -> None:
        """Ends the analysis under way, if there is one."""
        self._context.changes()
        task = self._task(subject)
        if task and task.running:
            self._context.jobs.tasks.stop(task.id)

    def read(self, file: Path) -> dict[str, Any]:
        """A report. UserError when it is damaged or gone."""
        try:
            state = file.stat().st_mtime_ns
            known = self._read.get(file)
            if known and known[0] == state:
                return known[1]
            report = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            report = None
        if not isinstance(report, dict):
            raise UserError(f"the report {file.name} cannot be read; measure again")
        with self._lock:
            if len(self._read) >= MOST_READ:
                self._read.pop(next(iter(self._read)))
            self._read[file] = (state, report)
        return report

    def _folder(self, subject: Subject) -> Path:
        return folder(self._context) / "results" / subject.key

    def _made(self, subject: Subject) -> list[Path]:
        """Finished reports, the newest first; those that are no longer needed are removed."""
        found = sorted(self._folder(subject).glob("[0-9]*.json"), key=lambda path: -path.stat().st_mtime_ns)
        for old in [] if self._context.read_only else found[KEPT:]:
            old.unlink(missing_ok=True)
            old.with_suffix(".html").unlink(missing_ok=True)
        return found[:KEPT]

    def _task(self, subject: Subject) -> Task | None:
        """The newest task of a subject that runs or went wrong; the report of one that is done speaks for itself."""
        own = self._folder(subject)
        for task in self._context.jobs.tasks.list(KIND):
            if task.result_file is not None and task.result_file.parent == own:
                return None if task.state == "done" else task
        return None

    def _forget(self, subject: Subject) -> None:
        """Takes what is done, and what went wrong with this subject, off the list: results stay, lists stay short."""
        own = self._folder(subject)
        for task in self._context.jobs.tasks.list(KIND):
            mine = task.result_file is not None and task.result_file.parent == own
            if task.state == "done" or (mine and not task.running):
                self._context.jobs.tasks.forget(task.id)

    def _tidy(self) -> None:
        folders = [path for path in (folder(self._context) / "results").iterdir() if path.is_dir()]
        for old in sorted(folders, key=lambda path: -path.stat().st_mtime_ns)[KEPT_SUBJECTS:]:
            shutil.rmtree(old, ignore_errors=True)


def command(subject: Subject, file: Path, own_data: bool = True) -> list[str]:
    """The one command that makes the report, as a person could type it. `own_data`: what a trace names may be read."""
    words = [sys.executable, "-m", "mygpt2", "ripples", str(subject.path), *options_of(subject.options)]
    if subject.reference is not None:
        words += ["--compare" if subject.pair else "--against", str(subject.reference)]
    words += [] if own_data or subject.pair else ["--no-attribution"]
    page = [] if subject.pair else ["--html", str(file.with_suffix(".html"))]
    return [*words, *page, "--json", str(file)]


def options_of(options: Mapping[str, str]) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value)]


def _bytes(file: Path | None) -> int:
    """The subject's size that a report's name begins with."""
    head = file.name.split("-", 1)[0] if file else "0"
    return int(head) if head.isdecimal() else 0
