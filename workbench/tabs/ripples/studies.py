"""The one-click study: the same run under four orders of the data, queued, analysed one by one, then compared.

    runs/.workbench/ripples/studies/<id>.json              what was asked for
    runs/.workbench/ripples/studies/<id>.<state>.json      the comparison of the four reports of that state

Where it stands is told from the queue, the run folders and the reports, so that it goes on after any restart.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.config import ConfigError, RunConfig, load_config
from mygpt2.errors import UserError
from mygpt2.files import read_json, replace_json
from mygpt2.run_dir import RunDir, RunState, state_of
from workbench import words
from workbench.context import Context
from workbench.jobs import Task, submit_config
from workbench.jobs.records import ENDED, HOLDING
from workbench.tabs.ripples.reports import KIND, Reports
from workbench.tabs.ripples.subject import Subject, folder, subject_of

log = logging.getLogger(__name__)

PRESET = "tiny"
STEPS, FEWEST_STEPS, MOST_STEPS = 400, 80, 1_000_000
MOST_SETTINGS, MOST_STUDIES = 4096, 50
ID = re.compile(r"[0-9a-z]{6,12}")
FILE_ORDER = {"data.lanes": 4}  # so few streams that files, not their mixture, make the order
ORDERS: Mapping[str, Mapping[str, Any]] = {
    "sequential": {"data.order": "sequential", **FILE_ORDER},
    "buffer-1k": {"data.order": "buffer", "data.buffer_documents": 1_000, **FILE_ORDER},
    "buffer-10k": {"data.order": "buffer", "data.buffer_documents": 10_000, **FILE_ORDER},
    "lanes": {"data.order": "lanes"},
}
# Small steps: a ripple is seen by the number of steps in its period. A constant rate and no interruptions: the loss
# has no periods but the data's.
BASE: Mapping[str, Any] = {
    "train.batch_tokens": 2048, "model.block_size": 128, "schedule.name": "constant", "eval.interval": 0,
    "eval.yardstick": "off", "sample.interval": 0, "sample.max_new_tokens": 1, "log.plot_interval": 0,
    "checkpoint.interval": 1_000_000, "data.validation_tokens": 16_384,
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What was asked for: `runs` are the run names by order."""

    id: str
    created: float
    source: str
    steps: int
    settings: Mapping[str, str]
    runs: Mapping[str, str]

    @property
    def label(self) -> str:
        return f"{self.id} · {self.source} · {self.steps:,} steps · {words.minute(self.created)}"


@dataclass(frozen=True)
class Part:
    """One order of a study: its run's state, and the report once there is one."""

    order: str
    run: str
    state: str  # of the run, or `missing`
    step: int
    reason: str
    subject: Subject | None
    report: Path | None
    task: Task | None  # the analysis under way, or the one that went wrong

    @property
    def trained(self) -> bool:
        return self.state in ("finished", "stopped", "failed", "lost")


@dataclass(frozen=True)
class Standing:
    """Where a study is. `comparison` is there once all parts have a report and these were compared."""

    study: Study
    parts: tuple[Part, ...]
    comparison: Path | None
    task: Task | None

    @property
    def done(self) -> bool:
        return self.comparison is not None

    @property
    def busy(self) -> bool:
        """Whether an analysis or the comparison is under way."""
        return any(task is not None and task.running for task in (self.task, *(part.task for part in self.parts)))


def begin(context: Context, source: Any, steps: Any, settings: Any = "") -> Study:
    """Queues the four runs. UserError, with nothing queued, for what cannot be trained."""
    context.changes()
    data, count, own = context.source(source), _steps(steps), own_settings(settings)
    id = _free_id(context)
    runs = {order: f"study-{id}-{order}" for order in ORDERS}
    configs = {order: config(data, count, own, order) for order in ORDERS}
    study = Study(id, time.time(), data, count, own, runs)
    place = folder(context) / "studies"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = {"schema": 1, "id": id, "created": study.created, "source": data, "steps": count, "settings": own,
              "runs": runs}  # fmt: skip
    replace_json(place / f"{id}.json", record)
    queued = []
    try:
        for order, run in runs.items():
            queued.append(submit_config(context.jobs, configs[order], PRESET, run))
    except (UserError, OSError):
        for job in queued:
            context.jobs.cancel(job.id)
        (place / f"{id}.json").unlink(missing_ok=True)
        raise
    return study


def config(source: str, steps: int, own: Mapping[str, str], order: str) -> RunConfig:
    """The configuration of one order. ConfigError with all its problems."""
    return load_config(PRESET, None, {**BASE, "data.source": source, "train.steps": steps, **own, **ORDERS[order]})


def own_settings(text: Any) -> dict[str, str]:
    """`section.name=value` per line or with spaces between; UserError for those that the study itself sets."""
    words = str(text or "")[:MOST_SETTINGS].split()
    found = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
    if bad := [word for word in words if "=" not in word]:
        raise UserError(f"setting {bad[0][:60]!r} has no value; write section.name=value, for example model.n_layer=2")
    taken = {"data.source", "train.steps", *(key for order in ORDERS.values() for key in order)}
    if clash := sorted(taken & found.keys()):
        raise ConfigError(
            [f"{key} is what the study sets; it has a field of its own or differs by order" for key in clash]
        )
    return found


def studies(context: Context) -> list[Study]:
    """All studies, the newest first; what is not a study's file is passed over."""
    found = [
        _study(read_json(path)) for path in (folder(context) / "studies").glob("*.json") if ID.fullmatch(path.stem)
    ]
    return sorted((study for study in found if study), key=lambda study: -study.created)[:MOST_STUDIES]


def standing(context: Context, reports: Reports, study: Study) -> Standing:
    """Where a study is, from the queue and from files."""
    parts = tuple(_part(context, reports, order, run) for order, run in study.runs.items())
    wanted = comparison_file(context, study, parts)
    task = None
    if wanted is not None:
        tasks = [task for task in context.jobs.tasks.list(KIND) if task.result_file == wanted]
        task = next((task for task in tasks if task.state != "done"), None)
    there = wanted if wanted is not None and wanted.is_file() and task is None else None
    return Standing(study, parts, there, task)


class Keeper:
    """Takes the studies on, whether or not a page is open: a call does what is due next, if anything is.

    One task at a time over all studies, the oldest first. A study that is done is looked at again when a run changes.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._reports = context, Reports(context)
        self._done: dict[str, tuple[int, ...]] = {}  # by study, when its runs were last written to

    def __call__(self) -> None:
        for study in reversed(studies(self._context)):
            written = tuple(_written(RunDir(self._context.runs / run)) for run in study.runs.values())
            if self._done.get(study.id) == written:
                continue
            try:
                at = standing(self._context, self._reports, study)
                if at.done:
                    self._done[study.id] = written
                elif at.busy or advance(self._context, self._reports, at):
                    return
            except (UserError, OSError) as error:  # a run folder that was damaged by hand: the other studies go on
                log.warning("study %s: %s", study.id, error)


def advance(context: Context, reports: Reports, at: Standing) -> Task | None:
    """Starts what is due next: the analysis of a run that has ended, one at a time, and at last the comparison."""
    if context.read_only or at.done or at.busy:
        return None
    for part in at.parts:
        if part.trained and part.report is None and part.task is None and part.subject is not None:
            return reports.start_due(part.subject).task
    wanted = comparison_file(context, at.study, at.parts)
    if wanted is None or at.task is not None:
        return None
    argv = [sys.executable, "-m", "workbench.tabs.ripples.measure", str(wanted)]
    for part in at.parts:
        argv += [part.order, str(part.subject.path if part.subject else ""), str(part.report)]
    return context.jobs.tasks.start(KIND, argv, label=f"comparison of study {at.study.id}", result=wanted)


def comparison_file(context: Context, study: Study, parts: tuple[Part, ...]) -> Path | None:
    """Where the comparison of these reports lies, or will; None while one is missing."""
    if any(part.report is None for part in parts):
        return None
    state = hashlib.sha256("\n".join(str(part.report) for part in parts).encode()).hexdigest()[:12]
    return folder(context) / "studies" / f"{study.id}.{state}.json"


def remove(context: Context, study: Study) -> None:
    """Takes a study off the list. Its runs stay, and those that wait leave the queue."""
    context.changes()
    for job in context.jobs.queue():
        if job.run in study.runs.values() and job.state in ("queued", "waiting"):
            context.jobs.cancel(job.id)
    for path in (folder(context) / "studies").glob(f"{study.id}.*json"):
        path.unlink(missing_ok=True)


def _part(context: Context, reports: Reports, order: str, name: str) -> Part:
    run = RunDir(context.runs / name)
    job = context.jobs.job_of(name)
    if not run.exists():
        state = job.state if job and job.state in ENDED else "missing"
        return Part(order, name, state, 0, "its folder is gone" if state == "missing" else "", None, None, None)
    now = state_of(run)
    state = now.state
    if job and job.active and not now.alive and state != "finished":  # it waits, or is about to begin or go on
        state = "starting" if job.state in HOLDING else "queued"
    trained = state in ("finished", "stopped", "failed", "lost")
    subject = subject_of(context, name) if trained else None
    found = reports.look(subject) if subject is not None else None
    return Part(order, name, state, _step(now), now.reason, subject, found.file if found and found.fresh else None,
                found.task if found else None)  # fmt: skip


def _written(run: RunDir) -> int:
    """When the metrics were last written to; 0 where there are none."""
    try:
        return run.metrics_file.stat().st_mtime_ns
    except OSError:
        return 0


def _step(now: RunState) -> int:
    step = now.status.get("step")
    return step if isinstance(step, int) else 0


def _steps(value: Any) -> int:
    try:
        steps = int(float(value))
    except (TypeError, ValueError, OverflowError):
        steps = 0
    if not FEWEST_STEPS <= steps <= MOST_STEPS:
        raise UserError(f"{str(value)[:20]!r} steps are not possible; give {FEWEST_STEPS} to {MOST_STEPS:,}")
    return steps


def _free_id(context: Context) -> str:
    while True:
        id = time.strftime("%y%m%d", time.localtime()) + secrets.token_hex(2)
        if not any((context.runs / f"study-{id}-{order}").exists() for order in ORDERS):
            return id


def _study(record: Mapping[str, Any] | None) -> Study | None:
    try:
        assert record is not None
        runs = {order: str(record["runs"][order]) for order in ORDERS}
        return Study(str(record["id"]), float(record["created"]), str(record["source"]), int(record["steps"]),
                     dict(record["settings"]), runs)  # fmt: skip
    except (AssertionError, KeyError, TypeError, ValueError):
        return None
