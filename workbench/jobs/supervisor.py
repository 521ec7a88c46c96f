"""The thread that starts what is queued, looks after it, and watches all runs. It needs no browser."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mygpt2.run_dir import Process, RunDir, state_of
from mygpt2.run_dir.stop import record_unbegun
from workbench.jobs import spawn
from workbench.jobs.alerts import AlertLog
from workbench.jobs.devices import device_environment
from workbench.jobs.ending import how_it_ended, last_attempt, last_step
from workbench.jobs.ledger import Ledger
from workbench.jobs.policy import next_jobs, verdict
from workbench.jobs.records import HOLDING, WAITING, Job
from workbench.jobs.store import Store
from workbench.jobs.tasks import Tasks
from workbench.jobs.watch import Watch

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
WATCH_SECONDS = 2.0
CLOSE_SECONDS = 10.0
ORPHAN_SECONDS = 10.0  # ranks may outlive their launcher for that long before they are killed


class Ownership:
    """Which server launches: the one that holds the lock. The system drops the lock of a process that dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    @property
    def held(self) -> bool:
        return self._descriptor >= 0

    def acquire(self) -> bool:
        """Whether it is ours, now or already. A file system without flock takes everybody for the owner."""
        if self.held:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            log.warning("no lock can be had in %s (%s): start one workbench only", self._path.parent, error.strerror)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self.held:
            os.close(self._descriptor)
            self._descriptor = -1


class Supervisor:
    """`tick` does everything once; `start` has a thread do it every second."""

    def __init__(
        self,
        runs: Path,
        store: Store,
        slots: tuple[str, ...],
        alerts: AlertLog,
        tasks: Tasks,
        devices: Ledger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runs, self._store, self._slots, self._alerts, self._tasks = runs, store, slots, alerts, tasks
        self._devices = devices
        self.now = clock
        self._ownership = Ownership(store.folder / "owner.lock")
        self._watch = Watch(runs, alerts, clock)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._orphaned: dict[str, float] = {}  # since when a job's ranks outlive its launcher
        self._watched = 0.0
        self._defects: dict[str, str] = {}
        self._chores: list[Callable[[], None]] = []
        self._awake, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def owner(self) -> bool:
        return self._ownership.held

    def start(self) -> None:
        if self._thread is None:
            self._take_over()
            self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Has the next tick now."""
        self._awake.set()

    def add_chore(self, chore: Callable[[], None]) -> None:
        """Has it done every WATCH_SECONDS, after everything else, while this server is the owner."""
        self._chores.append(chore)

    def close(self) -> None:
        self._ended.set()
        self._awake.set()
        if self._thread:
            self._thread.join(CLOSE_SECONDS)  # a launch cut off here is found and finished by the next owner
            self._thread = None
        self._ownership.release()

    def _loop(self) -> None:
        while not self._ended.is_set():
            try:
                self.tick()
            except Exception:  # a defect or a full disk: the next tick may do better, and nothing else would start runs
                log.exception("the supervisor goes on after this")
            self._awake.wait(TICK_SECONDS)
            self._awake.clear()

    def _take_over(self) -> bool:
        if not self.owner and self._ownership.acquire():
            self._store.tidy()
        return self.owner

    def tick(self) -> None:
        """One round. A server that is not the owner only tries to become it."""
        self._tasks.reap()
        if not self._take_over():
            return
        for job in self._store.active():
            if job.state in HOLDING:
                self._guarded(f"job {job.id} of run {job.run}", partial(self._look_after, job))
        if not self._store.paused:
            for job in self._next():
                self._guarded(f"job {job.id} of run {job.run}", partial(self._launch, job))
        if self.now() - self._watched >= WATCH_SECONDS:
            self._watched = self.now()
            for work in (self._watch.look, *self._chores):
                self._guarded(getattr(work, "__qualname__", "a chore"), work)

    def _guarded(self, what: str, work: Callable[[], None]) -> None:
        """One job's defect stops no other job, launch or watch; it is logged when it is another than the last."""
        try:
            work()
            self._defects.pop(what, None)
        except Exception as error:  # a damaged run folder, a full disk, a defect: the next round may do better
            if self._defects.get(what) != repr(error):
                log.exception("%s cannot be looked after", what)
            self._defects[what] = repr(error)

    # Starting

    def _next(self) -> list[Job]:
        """The jobs to start now. What works outside the queue is asked for only while somebody waits."""
        active = self._store.active()
        if all(job.state in HOLDING for job in active):
            return []
        besides = self._devices.besides_jobs()
        return next_jobs(active, [slot for slot in self._slots if slot not in besides], self.now())

    def _launch(self, job: Job) -> None:
        """Claims the job on disk, starts its command, and writes down who that is.

        A crash between two of these leaves a claim without a process; `_recover` finds out which of them was last.
        """
        run = RunDir(self._runs / job.run)
        state = state_of(run) if run.exists() else None
        if state and (state.alive or state.processes):
            self._end(job, WAITING, "failed", "not started: the run was at work already, started by somebody else")
            return
        claimed = self._change(
            job, WAITING, state="claimed", launches=job.launches + 1, launcher=None, code=None,
            attempt_before=last_attempt(run), started=job.started or self.now(),
        )  # fmt: skip
        if claimed:
            self._devices.release(claimed.spec.devices)
            self._start(claimed)

    def _start(self, job: Job) -> None:
        added = {spawn.JOB: job.id, **device_environment(job.spec.devices)}
        environment = spawn.child_environment(added, secrets=(*spawn.HUB_SECRETS, *spawn.TRACKER_SECRETS))
        try:
            child = spawn.start_detached(
                job.spec.argv, self._store.log_file(job), environment, job.spec.folder or os.getcwd()
            )
        except (OSError, ValueError) as error:
            self._end(job, HOLDING, "failed", f"could not be started: {getattr(error, 'strerror', None) or error}")
            return
        self._children[job.id] = child
        started = self._change(job, HOLDING, state="running", launcher=Process.of(child.pid))
        if started and started.asked:  # a stop was asked for between the claim and now, and found nobody to stop
            child.send_signal(signal.SIGKILL if started.asked == "kill" else signal.SIGTERM)

    def _recover(self, job: Job) -> None:
        """A claim left by a server that died: adopt what it started, or start it, once."""
        held = spawn.log_is_held(self._store.log_file(job))
        found = spawn.marked(spawn.JOB, job.id)
        if held or found:
            self._change(job, HOLDING, state="running", launcher=found[0] if found else None)
            return
        run = RunDir(self._runs / job.run)
        if last_attempt(run) > job.attempt_before or spawn.tail(self._store.log_file(job), 1):
            self._change(job, HOLDING, state="running")  # it ran and has ended: the next look judges it
        elif job.asked:
            self._end(job, HOLDING, "stopped", "stopped before it began")
        else:
            self._start(job)

    # Looking after

    def _look_after(self, job: Job) -> None:
        if job.state == "claimed":
            self._recover(job)
            return
        child = self._children.get(job.id)
        code = child.poll() if child else None
        if (code is None) if child else self._alive(job):
            return
        if self._ranks_linger(job):
            return
        self._children.pop(job.id, None)
        self._settle(job, code)

    def _alive(self, job: Job) -> bool:
        if job.launcher and not job.launcher.local:  # another machine's: its heartbeat is all there is to go by
            return state_of(RunDir(self._runs / job.run)).alive
        return job.launcher.alive() if job.launcher else spawn.log_is_held(self._store.log_file(job))

    def _ranks_linger(self, job: Job) -> bool:
        """Whether ranks of a dead launcher still run. They end by themselves, and are killed if they do not."""
        left = state_of(RunDir(self._runs / job.run)).processes
        if not left:
            self._orphaned.pop(job.id, None)
            return False
        since = self._orphaned.setdefault(job.id, self.now())
        if self.now() - since > ORPHAN_SECONDS:
            for process in left:
                with contextlib.suppress(PermissionError):
                    process.send(signal.SIGKILL)
        return True

    def _settle(self, job: Job, code: int | None) -> None:
        """Ends a job whose launcher is gone, or has it wait to be started again."""
        run = RunDir(self._runs / job.run)
        with self._store.locked():
            job = self._store.get(job.id)  # a stop may have been asked for since
            end = how_it_ended(run, job.attempt_before, code, self._store.log_file(job))
            step = last_step(run)
            what = verdict(job, end, step)
            fields: dict[str, Any] = {"code": end.code, "reason": what.reason, "launcher": None}
            fields |= {"failures": what.failures, "best_step": max(step, job.best_step)}
            if what.state in ("failed", "stopped"):
                record_unbegun(run, what.state, what.reason)
            printed = spawn.tail(self._store.log_file(job))
            self._watch.launch_ended(job, end, what, step, printed)  # first: a crash here loses nothing
            if what.state == "waiting":
                fields["not_before"] = self.now() + what.delay
            else:
                fields["ended"] = self.now()
            self._store.change(job.id, HOLDING, state=what.state, **fields)

    # Writing

    def _change(self, job: Job, states: tuple[str, ...], **fields: object) -> Job | None:
        with self._store.locked():
            return self._store.change(job.id, states, **fields)

    def _end(self, job: Job, states: tuple[str, ...], state: str, reason: str) -> None:
        if self._change(job, states, state=state, reason=reason, ended=self.now()):
            if state == "failed":
                self._watch.not_launched(job, reason)
            record_unbegun(RunDir(self._runs / job.run), state, reason)
