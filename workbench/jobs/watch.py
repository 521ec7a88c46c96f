"""Watches every run of a folder, whoever started it, and raises alerts. Runs that have ended cost one stat each."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mygpt2.checkpoint import step_of
from mygpt2.checkpoint.store import newest, size_bytes
from mygpt2.failures import NONFINITE
from mygpt2.format import file_size
from mygpt2.records import number, whole
from mygpt2.run_dir import Follower, RunDir, RunState, parse_lines, state_of
from mygpt2.run_dir.paths import NAME
from mygpt2.run_dir.settings import vocabulary_of
from workbench.jobs.alerts import Alert, AlertLog, folder_of, new_alert
from workbench.jobs.detect import Detector, stalled
from workbench.jobs.ending import End, last_attempt, last_step
from workbench.jobs.policy import Verdict
from workbench.jobs.records import Job
from workbench.jobs.spawn import log_of

log = logging.getLogger(__name__)

OLD_SECONDS = 86_400.0  # what happened longer ago than this before it was first seen is history, not news
CHUNK_BYTES = 2 << 20  # of metrics read at a look: a long history is caught up with over several
LOW_DISK_BYTES = 2 << 30
LOG_LINES = 40


@dataclass
class _Watched:
    """What is remembered of one run between looks."""

    metrics: Follower
    events: Follower
    detector: Detector = field(default_factory=Detector)
    stamp: tuple[int, ...] = ()
    folder: str = ""
    settled: bool = False  # it has ended and everything was said
    ended_before: bool = False  # it had ended at the look before, too
    untold: Alert | None = None  # a rank's own word on its end, which may only be a consequence of another's
    longest: float = 0.0
    broken: bool = False  # looking at it has failed, and the log says so


class Watch:
    """`look` goes over all runs once. What it finds goes to the alert log, which keeps each alert once."""

    def __init__(self, runs: Path, alerts: AlertLog, clock: Callable[[], float]) -> None:
        self._runs, self._alerts, self._clock = runs, alerts, clock
        self._known: dict[str, _Watched] = {}
        self._low = False
        self.inspected = 0  # runs of which more than a stat was needed, so far

    def look(self) -> None:
        """Never raises for a damaged or vanishing run."""
        living_bytes = 0
        names = self._names()
        for name in names:
            run = RunDir(self._runs / name)
            stamp = _stamp(run)
            known = self._known.get(name)
            if not stamp or (known and known.settled and known.stamp == stamp):
                continue
            living_bytes = max(living_bytes, self._guarded(run, stamp))
        for gone in self._known.keys() - set(names):
            del self._known[gone]
        self._disk(living_bytes)

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._runs) as entries:
                return [entry.name for entry in entries if NAME.fullmatch(entry.name)]
        except OSError:
            return []

    def _guarded(self, run: RunDir, stamp: tuple[int, ...]) -> int:
        """One run's defect, or a defect of ours that it brings to light, must not end the watch over all others."""
        try:
            return self._inspect(run, stamp)
        except Exception:
            known = self._known.setdefault(run.name, _Watched(Follower(run.metrics_file), Follower(run.events_file)))
            if not known.broken:
                log.exception("run %s cannot be watched", run.name)
            known.broken = True
            return 0

    def _inspect(self, run: RunDir, stamp: tuple[int, ...]) -> int:
        """Looks at one run; returns the size of its newest checkpoint while it is at work."""
        self.inspected += 1
        state = state_of(run, now=self._clock())
        known, folder = self._known.get(run.name), folder_of(run)
        if known is None or known.folder not in ("", folder):  # also another folder under the name of a removed one
            known = self._known[run.name] = self._first_sight(run, state)
        known.stamp, known.settled, known.folder = stamp, False, folder
        self._events(run, known)
        caught_up = self._metrics(run, known)
        if state.alive:
            known.ended_before = False
            self._stall(run, known, state)
            return _newest_checkpoint_bytes(run)
        if any(rank.launcher and rank.launcher.alive() for rank in state.ranks):
            return 0  # it says next how the ranks ended, and may start them again
        if known.ended_before:  # seen twice: by now everybody has written down what there is to say
            self._ended(run, known, state)
            known.settled = caught_up
        known.ended_before = True
        if known.settled:
            known.detector = Detector()
        return 0

    def _first_sight(self, run: RunDir, state: RunState) -> _Watched:
        """Of a run that has ended the metrics are history; of one that ended long ago everything is."""
        known = _Watched(Follower(run.metrics_file), Follower(run.events_file))
        if not state.alive:
            known.metrics.offset = _size(run.metrics_file)
            if state.heartbeat_age is None or state.heartbeat_age > OLD_SECONDS:
                known.events.offset = _size(run.events_file)
        return known

    # What a run says

    def _events(self, run: RunDir, known: _Watched) -> None:
        for event in parse_lines(known.events.read())[0]:
            known.longest = max(known.longest, number(event.get("seconds")) or 0.0)
            alert = self._of_event(run, known, event)
            if alert:
                self._alerts.add(alert)

    def _of_event(self, run: RunDir, known: _Watched, event: Mapping[str, Any]) -> Alert | None:
        kind, attempt, step = event.get("kind"), whole(event.get("attempt")), whole(event.get("step"))
        message, when = str(event.get("message", "")), number(event.get("time"))
        when = self._clock() if when is None else when
        if self._clock() - when > OLD_SECONDS:
            return None
        nonfinite = self._alerts.has(f"{run.name}/nonfinite/{attempt}", folder_of(run))
        alert = partial(_alert, run, when=when)
        if kind == "alert" and message.startswith(NONFINITE):
            if nonfinite:  # told before; looking for a whole checkpoint reads all of it
                return None
            text = f"{message.removeprefix(NONFINITE)}; {checkpoint_words(run)}"
            return alert("error", "nonfinite", text, f"{attempt}", _step(run), log_of(run, 0))
        if kind == "alert" and event.get("level") == "warning":  # the run goes on
            about = str(event.get("about") or "event")
            return alert("warning", about, message, f"{attempt}-{step}", step)
        if kind == "alert":
            log_tail = log_of(run, whole(event.get("rank")) or 0)
            known.untold = alert("error", "crash", message, f"{attempt}", _step(run), log_tail)
            return None
        if kind == "crash" and not nonfinite:  # which ends the ranks with 70
            rank = whole(event.get("rank"))
            lines = () if rank is None else _last_words(run, rank, event.get("log_bytes"))
            if known.untold and rank == 0 and event.get("signal") is None:
                message = f"{message}: {known.untold.text}"
            known.untold = None
            return alert("error", "crash", message, f"{attempt}", step, lines)
        if kind == "save_failed":
            text = f"the checkpoint of step {step} was not saved: {event.get('reason', '')}"
            return alert("warning", "save", text, f"{attempt}-{step}", step)
        if kind == "skipped" and event.get("loss") is None:
            text = f"step {step} was skipped: its loss is not finite"
            return alert("warning", "nonfinite", text, f"skip-{attempt}-{(step or 0) // 100}", step)
        return None

    def _metrics(self, run: RunDir, known: _Watched) -> bool:
        """Reads some new rows; whether there are no more."""
        lines = known.metrics.read(CHUNK_BYTES)
        if lines and known.detector.vocabulary is None:  # at first sight there may have been no configuration
            known.detector.vocabulary = vocabulary_of(run)
        for row in parse_lines(lines)[0]:
            for finding in known.detector.row(row):
                level = "error" if finding.kind in ("nonfinite", "divergence") else "warning"
                at = f"{whole(row.get('attempt'))}-{finding.step}"
                self._alerts.add(_alert(run, level, finding.kind, finding.text, at, finding.step, when=finding.time))
        return not lines

    # What the queue says of its launches

    def launch_ended(self, job: Job, end: End, what: Verdict, step: int, printed: Sequence[str]) -> None:
        """The alert of an end nobody asked for, unless the run's own files tell it, which are read here as well."""
        run = RunDir(self._runs / job.run)
        attempt = last_attempt(run)
        began = attempt > job.attempt_before
        at = f"{attempt}" if began else f"{job.id}-{job.launches}"  # an attempt dies once
        if job.asked:
            return
        if end.state == "died":
            self._add(run, "error", "crash", what.reason, at, step, log_of(run, 0) or printed)
        elif end.state == "again":
            again = f"; it is started again in {what.delay:.0f} s" if what.state == "waiting" else ""
            level = "warning" if again else "error"
            self._add(run, level, "outage", what.reason + again, f"{at}-{what.state}", step, printed)
        elif what.state == "failed" and not began:
            self._add(run, "error", "failed", f"{job.run} did not start: {what.reason}", at, None, printed)

    def not_launched(self, job: Job, reason: str) -> None:
        """A job whose command was never started."""
        run = RunDir(self._runs / job.run)
        self._add(run, "error", "failed", f"{job.run}: {reason}", f"{job.id}-{job.launches}", None)

    # What can be seen of it

    def _stall(self, run: RunDir, known: _Watched, state: RunState) -> None:
        phase, step = str(state.status.get("phase", "")), state.status.get("step")
        age = state.progress_age or 0.0
        if stalled(phase, age, known.detector.step_seconds, known.longest):
            what = f"no progress for {age:.0f} s while {phase or state.state}, at step {step}"
            message = state.status.get("message")
            text = f"{what}: {message}" if message else what
            at = f"{state.status.get('attempt')}-{step}-{phase}"
            self._add(run, "warning", "stall", text, at, step)

    def _ended(self, run: RunDir, known: _Watched, state: RunState) -> None:
        """A run that failed or vanished: its alert, unless an event has told it better, or it is long ago."""
        if known.untold:
            self._alerts.add(known.untold)
            known.untold = None
        attempt = state.status.get("attempt")
        recent = state.heartbeat_age is not None and state.heartbeat_age < OLD_SECONDS
        if not recent or not whole(attempt):
            return
        reason = state.reason or str(state.status.get("message", ""))
        if state.state == "lost":
            dead = next((rank.rank for rank in state.ranks if rank.alive is False), 0)
            self._add(run, "error", "crash", f"lost: {reason}", f"{attempt}", _step(run), log_of(run, dead))
        elif state.state == "failed" and not reason.startswith(NONFINITE):
            self._add(run, "error", "crash", f"failed: {reason}", f"{attempt}", _step(run), log_of(run, 0))

    def _add(
        self, run: RunDir, level: str, kind: str, text: str, at: str, step: Any, lines: Sequence[str] = ()
    ) -> None:
        self._alerts.add(_alert(run, level, kind, text, at, whole(step), lines, when=self._clock()))

    def _disk(self, checkpoint: int) -> None:
        """Room for two more checkpoints of the largest run at work, and for everything else."""
        try:
            free = shutil.disk_usage(self._runs).free
        except OSError:
            return
        limit = max(LOW_DISK_BYTES, 2 * checkpoint)
        if free < limit and not self._low:
            room = f"{file_size(free)} are free in {self._runs}"
            text = f"{room}; below {file_size(limit)} checkpoints may not be saved"
            self._alerts.add(new_alert("error", "disk", "", text, at=f"{self._clock():.0f}", when=self._clock()))
        self._low = free < (1.5 * limit if self._low else limit)


def _alert(
    run: RunDir,
    level: str,
    kind: str,
    text: str,
    at: str,
    step: int | None,
    lines: Sequence[str] = (),
    *,
    when: float | None,
) -> Alert:
    return new_alert(level, kind, run.name, text, at=at, step=step, when=when, log_tail=lines, folder=folder_of(run))


def checkpoint_words(run: RunDir) -> str:
    """Which checkpoint is whole, in words. Reads its manifest and the sizes of its files."""
    found, _ = newest(run.checkpoints_dir)
    if found is None:
        return "there is no whole checkpoint"
    return f"the checkpoint of step {step_of(found.name)} is whole and good to go on from"


def _last_words(run: RunDir, rank: int, ends: Any) -> list[str]:
    """The end of a dead rank's log as it was then; of rank 0's, which says more, where that rank wrote nothing."""
    ends = ends if isinstance(ends, dict) else {}
    lines = log_of(run, rank, end=whole(ends.get(str(rank))))
    if lines or rank == 0:
        return lines
    others = log_of(run, 0, LOG_LINES - 1, end=whole(ends.get("0")))
    return [f"(rank {rank} had written nothing; the log of rank 0 ended so:)", *others] if others else []


def _stamp(run: RunDir) -> tuple[int, ...]:
    """Changes whenever a run does: its status is rewritten at every beat and at the end. Empty for no run."""
    try:
        status = os.stat(run.status_file)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _newest_checkpoint_bytes(run: RunDir) -> int:
    names = [name for name in run.names(run.checkpoints_dir) if step_of(name) is not None]
    return size_bytes(run.checkpoints_dir / names[-1]) if names else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _step(run: RunDir) -> int | None:
    return last_step(run) or None
