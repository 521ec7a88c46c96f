"""What the page may ask of the processes over a runs folder."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mygpt2.config import RunConfig, config_hash, plan_batch
from mygpt2.errors import UserError
from mygpt2.files import read_json
from mygpt2.launch import handed
from mygpt2.launch.handover import refuse_handed, take_back
from mygpt2.run_dir import ControlFiles, Process, RunDir, check_name, rank_states, state_of, write_queued
from mygpt2.run_dir.background_stop import BackgroundStop
from mygpt2.run_dir.mentions import renamed
from mygpt2.run_dir.stop import How, check_how, record_unbegun
from workbench.jobs import spawn
from workbench.jobs.alerts import Alert, AlertLog, folder_of
from workbench.jobs.command import resume_command, train_command
from workbench.jobs.devices import check_slots, default_devices, default_nproc, default_slots
from workbench.jobs.ending import last_attempt
from workbench.jobs.ledger import Ledger
from workbench.jobs.policy import check_resumable
from workbench.jobs.records import HOLDING, RESTARTS, WAITING, Job, JobSpec
from workbench.jobs.store import Store
from workbench.jobs.supervisor import Supervisor
from workbench.jobs.tasks import Tasks

NPROC_LIMIT = 64


class Jobs:
    """The queue, stops, alerts and tasks of one runs folder; one per server, usable from any thread.

    State lies in runs/.workbench/. Of several servers over a folder one is the `owner` and starts what is queued; the
    others can do everything else, and one of them takes over when the owner is gone. Nothing here needs `start`
    except launching, restarting and raising alerts.
    """

    def __init__(self, runs: Path, slots: Sequence[str] | None = None) -> None:
        self.runs = Path(runs).absolute()
        self.slots = tuple(slots) if slots else tuple(default_slots())
        self.store = Store(self.runs)
        self.tasks = Tasks(self.store.folder / "tasks")
        self._alerts = AlertLog(self.store.folder / "alerts.jsonl")
        self.devices = Ledger(self.runs, self.store, self.tasks, self.slots)
        self._supervisor = Supervisor(self.runs, self.store, self.slots, self._alerts, self.tasks, self.devices)
        self._stops: dict[str, BackgroundStop] = {}
        self._lock = threading.Lock()

    # The server's life

    def start(self) -> None:
        """Begins to supervise. UserError when the runs folder cannot be written."""
        self.store.prepare()
        self._supervisor.start()

    def close(self) -> None:
        """Ends supervision and gives the folder free. Runs and tasks go on."""
        self._supervisor.close()
        self._alerts.close()

    @property
    def owner(self) -> bool:
        """Whether this server launches; else another one does, or will be succeeded by this one."""
        return self._supervisor.owner

    def add_chore(self, chore: Callable[[], None]) -> None:
        """Work that follows from what runs do, and needs no page: short, every few seconds, by the owner alone."""
        self._supervisor.add_chore(chore)

    # The queue

    def submit(self, spec: JobSpec, at_once: bool = False) -> Job:
        """Puts a run in the queue as it is now: what changes later changes nothing queued.

        `at_once` puts it first; it starts when its devices are free. UserError for what cannot run.
        """
        spec = self._checked(spec)
        refuse_handed(self.runs, spec.run)
        with self.store.locked():
            if any(job.run == spec.run for job in self.store.active()):
                raise UserError(f"run {spec.run!r} is in the queue already; cancel it there or choose another name")
            run = RunDir(self.runs / spec.run)
            _refuse_link(run)
            self._refuse_living(run)
            new = not run.path.exists()
            if new:
                RunDir.create(self.runs, spec.run)
                write_queued(run, "waiting in the queue")
            job = self.store.add(spec, first=at_once, new_run=new)
            self._stops.pop(spec.run, None)  # what became of it is over
        self._supervisor.wake()
        return job

    def _checked(self, spec: JobSpec) -> JobSpec:
        check_name(spec.run)
        check_slots(spec.devices, self.slots)
        if not spec.argv or any("\0" in word for word in spec.argv):
            raise UserError("the command is empty or holds a character that no command can; choose other values")
        if not 1 <= spec.nproc <= NPROC_LIMIT:
            raise UserError(f"{spec.nproc} processes are not possible; allowed: 1 to {NPROC_LIMIT}")
        return replace(spec, folder=spec.folder or str(Path.cwd()), restarts=max(0, min(spec.restarts, 100)))

    def _folder(self, name: str) -> RunDir:
        """An existing run in the runs folder itself: a link to another place is not one."""
        run = RunDir.open(self.runs, name)
        _refuse_link(run)
        return run

    def _refuse_living(self, run: RunDir) -> None:
        if run.exists() and ((state := state_of(run)).alive or state.processes):
            raise UserError(f"run {run.name!r} is at work already; stop it first, or choose another name")

    def queue(self) -> list[Job]:
        """Jobs that wait or run, in the order in which they go."""
        return self.store.active()

    def at_work(self) -> set[str]:
        """Runs whose launcher is there, whatever the run folder says: without ranks yet, or between two attempts."""
        return {job.run for job in self.store.active() if job.state in HOLDING}

    def history(self, limit: int = 50) -> list[Job]:
        """Jobs that have ended, the latest first."""
        return self.store.ended(limit)

    def job_of(self, run: str) -> Job | None:
        """The job of a run: the active one, else the latest."""
        active = [job for job in self.store.active() if job.run == run]
        return active[0] if active else next((job for job in self.store.ended() if job.run == run), None)

    def cancel(self, id: str) -> Job:
        """Takes a waiting job out of the queue. UserError once it runs: then it is stopped instead."""
        with self.store.locked():
            job = self.store.change(id, WAITING, state="cancelled", ended=self._supervisor.now(), reason="cancelled")
            if job is None:
                found = self.store.get(id)
                raise UserError(f"run {found.run!r} is {found.state}; stop it on the Monitor page instead")
            if job.new_run:
                _remove_unused(RunDir(self.runs / job.run))
        return job

    def move(self, id: str, by: int) -> list[Job]:
        """Moves a waiting job by so many places among those that wait (-1: one earlier); returns the queue."""
        with self.store.locked():
            waiting = [job for job in self.store.active() if job.state in WAITING]
            place = next((n for n, job in enumerate(waiting) if job.id == id), None)
            if place is None:
                raise UserError(f"run {self.store.get(id).run!r} does not wait in the queue, so it has no place there")
            job, others = waiting[place], waiting[:place] + waiting[place + 1 :]
            target = max(0, min(len(others), place + by))
            if target != place:
                self._place(others[:target], job, others[target:])
        self._supervisor.wake()
        return self.queue()

    def _place(self, before: list[Job], job: Job, after: list[Job]) -> None:
        """Gives a job a number between its new neighbours'; where none is left in between, all are numbered anew."""
        low = before[-1].order if before else -math.inf
        high = after[0].order if after else math.inf
        order = _between(low, high)
        if low < order < high:
            self.store.change(job.id, WAITING, order=order)
            return
        for number, each in enumerate([*before, job, *after]):
            self.store.change(each.id, WAITING, order=float(number))

    def pause(self) -> None:
        """Starts nothing until `resume`; what runs goes on."""
        self.store.paused = True

    def resume(self) -> None:
        self.store.paused = False
        self._supervisor.wake()

    @property
    def paused(self) -> bool:
        return self.store.paused

    def log_file(self, job: Job) -> Path:
        """What the latest launch of a job printed: the launcher's own words, and why it could not start."""
        return self.store.log_file(job)

    # Runs

    def resume_run(
        self, run: str, nproc: int | None = None, devices: Sequence[str] | None = None, until: int | None = None
    ) -> Job:
        """Goes on with a stopped run from its own configuration; on the devices and processes it had, unless given."""
        folder = self._folder(run)
        check_resumable(run, state_of(folder))
        previous = self.job_of(run)
        if folder.config_file.is_file():
            argv = tuple(resume_command(folder, nproc))
        elif previous:
            argv = previous.spec.argv
        else:
            argv = tuple(resume_command(folder, nproc))  # says what is missing
        ranks = rank_states(folder)
        count = nproc or len(ranks) or (previous.spec.nproc if previous else 1)
        chosen = devices or self._devices(previous, [rank.device for rank in ranks], count)
        hash = previous.spec.config_hash if previous else ""
        return self.submit(JobSpec(run, (*argv, *_until(until)), tuple(chosen), count, hash, RESTARTS))

    def _devices(self, previous: Job | None, recorded: Sequence[str], count: int) -> list[str]:
        """Those it had, as the queue or else its ranks say, where they are here and enough; else the first."""
        for had in (previous.spec.devices if previous else (), recorded):
            known = list(dict.fromkeys(had))
            if known and set(known) <= set(self.slots) and (known == ["cpu"] or len(known) == count):
                return known
        return list(default_devices(self.slots, count))

    def ask(self, run: str, what: Literal["save", "sample"]) -> None:
        """Asks a running run to save or to sample at its next step. UserError if it does not run."""
        folder = self._folder(run)
        if what not in ("save", "sample"):
            raise UserError(f"request {what!r} is not known; allowed: save, sample")
        if not (state := state_of(folder)).alive:
            raise UserError(f"run {run!r} is {state.state}, so it cannot {what}; resume it first")
        ControlFiles(folder).request(what)

    def stop(self, run: str, how: How) -> BackgroundStop:
        """Ends a run in the background; `.lines` tells what happened to every rank and the launcher.

        save: after its step, saved, however long that takes. now: SIGTERM, and SIGKILL after a grace. kill: SIGKILL.
        Asking again the same way returns the stop under way. A run that only waits leaves the queue, and a cluster's,
        which is asked first: UserError says that it did not give the run back.
        """
        folder = self._folder(run)
        taken = self._take_back(folder, how)
        with self._lock:
            under_way = self._stops.get(run)
            if under_way and not under_way.done and under_way.how == how:
                return under_way
            with self.store.locked():
                waited = self._leave_queue(run, how) or taken
            find = None if waited else lambda: self._find(run)
            stop = self._stops[run] = BackgroundStop(folder, how, find)
        return stop.start()

    def _take_back(self, run: RunDir, how: How) -> bool:
        """Takes the run's job back from the cluster that may begin it, or trains it and is to end at once; whether that
        was all there was of it."""
        check_how(how)
        record, state = handed.read(self.runs, run.name), state_of(run)
        if record is None or record.ended:
            return False
        if not handed.is_open(record, state) and (how == "save" or not state.alive):
            return False
        take_back(self.runs, run.name)
        return not state_of(run).alive

    def _leave_queue(self, run: str, how: How) -> bool:
        """Notes that a stop was asked for; whether the run only waited and is stopped by that."""
        waited = False
        for job in [job for job in self.store.active() if job.run == run]:
            self.store.change(job.id, HOLDING, asked=how)
            ended = {"state": "stopped", "reason": "taken out of the queue", "ended": self._supervisor.now()}
            waited = self.store.change(job.id, WAITING, asked=how, **ended) is not None or waited
            if waited:
                record_unbegun(RunDir(self.runs / run), "stopped", "taken out of the queue")
        return waited

    def stop_of(self, run: str) -> BackgroundStop | None:
        """The latest stop of a run that this server was asked for, until the run goes on again, whoever starts it."""
        stop = self._stops.get(run)
        if stop and stop.done and stop.report and last_attempt(RunDir(self.runs / run)) > stop.attempt:
            self._stops.pop(run, None)
            return None
        return stop

    def _find(self, run: str) -> tuple[Process | None, list[Process]]:
        """The launcher and every process of the run's job, recorded or not."""
        job = next((job for job in self.store.active() if job.run == run), None)
        if job is None:
            return None, []
        return job.launcher, spawn.marked(spawn.JOB, job.id) if spawn.log_is_held(self.log_file(job)) else []

    # Alerts

    def alerts(self, run: str | None = None) -> list[Alert]:
        """Alerts of a run, or of all runs and the folder, newest first, under the name it has now; not of a removed
        run whose name another has."""
        found, names = self._alerts.all(), renamed(self.runs)
        told = {alert.run for alert in found if alert.folder}
        runs = [RunDir(self.runs / name) for name in told | {now for was, now in names.items() if was in told}]
        here = {each.name: folder_of(each) for each in runs if each.path.exists()}
        kept: dict[tuple[str, str], Alert] = {}
        for alert in found:
            now = names.get(alert.run, "")
            if alert.folder and here.get(alert.run) != alert.folder and here.get(now) == alert.folder:
                alert = replace(alert, run=now)
            if run in (None, alert.run) and (not alert.folder or here.get(alert.run, alert.folder) == alert.folder):
                kept.setdefault((alert.run, alert.key.partition("/")[2]), alert)  # raised again under another name
        return list(kept.values())


def submit_config(
    jobs: Jobs,
    config: RunConfig,
    preset: str | None,
    run: str,
    nproc: int | None = None,
    devices: Sequence[str] | None = None,
    *,
    at_once: bool = False,
    until: int | None = None,
) -> Job:
    """Queues a run of this configuration: the one way in for the form, the API and studies.

    Everything is checked before anything is written; UserError says what not.
    """
    check_name(run)
    ranks = nproc or default_nproc(config, jobs.slots)
    plan_batch(config.train.batch_tokens, config.model.block_size, config.train.micro_batch, ranks, config.data.lanes)
    chosen = tuple(devices or default_devices(jobs.slots, ranks))
    if config.train.device in ("auto", "cuda") and chosen[0].startswith("cuda") and ranks > len(chosen):
        raise UserError(f"{ranks} processes need {ranks} devices, and {len(chosen)} are chosen: {', '.join(chosen)}")
    argv = train_command(config, preset, run, jobs.runs, ranks)
    return jobs.submit(JobSpec(run, (*argv, *_until(until)), chosen, ranks, config_hash(config)), at_once)


def _until(step: int | None) -> tuple[str, ...]:
    return ("--until", str(step)) if step else ()


def _refuse_link(run: RunDir) -> None:
    if run.path.is_symlink():
        raise UserError(f"run {run.name!r} is a link to another place; runs lie in the runs folder itself")


def _between(before: float, after: float) -> float:
    if before == -math.inf:
        return after - 1
    return before + 1 if after == math.inf else (before + after) / 2


def _remove_unused(run: RunDir) -> None:
    """The folder that queueing made, while no attempt was made in it."""
    if last_attempt(run) == 0 and (read_json(run.status_file) or {}).get("state") == "queued":
        shutil.rmtree(run.path, ignore_errors=True)
