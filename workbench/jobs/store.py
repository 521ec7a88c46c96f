"""The queue on disk: one JSON file per job, changed under a lock that several servers share.

runs/.workbench/
  jobs/<id>.json       waiting and running jobs
  ended/<id>.json      the others, newest kept
  logs/<id>-<n>.log    what the n-th launch of a job printed
  tasks/<id>/          see tasks.py
  alerts.jsonl         see alerts.py
  owner.lock  queue.lock  paused
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.files import read_json, replace_json
from workbench.jobs.records import ENDED, ID, Job, JobSpec

KEPT = 300


class Store:
    """The files of one runs folder's queue. Every change is one atomic file, made while `locked` is held."""

    def __init__(self, runs: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = runs / ".workbench"
        self.jobs_dir, self.ended_dir, self.logs_dir = (self.folder / name for name in ("jobs", "ended", "logs"))
        self._clock = clock
        self._read: dict[str, tuple[int, Job]] = {}  # ended jobs with their files' inodes: only a rename makes another

    def prepare(self) -> None:
        """Makes the folders. UserError where that is not possible."""
        try:
            for folder in (self.jobs_dir, self.ended_dir, self.logs_dir):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write in {self.folder}: {error.strerror or error}; choose a writable folder with --runs"
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else, thread or server, changes a job meanwhile. The system drops the lock of a process that dies."""
        self.prepare()
        descriptor = os.open(self.folder / "queue.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system without flock: one server has to be enough there
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def active(self) -> list[Job]:
        """Jobs that wait or run, first in the queue first. A damaged file is passed over."""
        return sorted((job for job in self._unmoved() if job.active), key=lambda job: (job.order, job.id))

    def _unmoved(self) -> list[Job]:
        return [job for path in self.jobs_dir.glob("*.json") if (job := Job.from_json(read_json(path)))]

    def ended(self, limit: int = KEPT) -> list[Job]:
        """Jobs that have ended, the latest queued first; those too whose file is about to move.

        A job that has left `active` is here from the same moment on: the folder it moves from is read first.
        """
        found = {f"{job.id}.json": job for job in self._unmoved() if not job.active}
        with contextlib.suppress(OSError):
            with os.scandir(self.ended_dir) as entries:
                inodes = {entry.name: entry.inode() for entry in entries}
            for name in sorted(inodes, reverse=True)[:limit]:
                if job := self._read_ended(name, inodes[name]):
                    found[name] = job
        return sorted(found.values(), key=lambda job: job.created, reverse=True)[:limit]

    def _read_ended(self, name: str, inode: int) -> Job | None:
        known = self._read.get(name)
        if known and known[0] == inode:
            return known[1]
        job = Job.from_json(read_json(self.ended_dir / name))
        if job:
            self._read[name] = inode, job
        return job

    def get(self, id: str) -> Job:
        """A job by its id; UserError if there is none."""
        if ID.fullmatch(id):
            for folder in (self.jobs_dir, self.ended_dir):
                job = Job.from_json(read_json(folder / f"{id}.json"))
                if job:
                    return job
        raise UserError(f"there is no job {id!r}; the queue shows those there are")

    def add(self, spec: JobSpec, *, first: bool = False, **fields: Any) -> Job:
        """A new job at the end of the queue, or before all others. Call it with the lock held."""
        orders = [job.order for job in self.active()]
        order = (min(orders, default=0.0) - 1) if first else (max(orders, default=0.0) + 1)
        now = self._clock()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        job = Job(f"{stamp}-{secrets.token_hex(4)}", spec, order, now, **fields)
        self.save(job)
        return job

    def save(self, job: Job) -> None:
        """Writes a job so that it survives a crash of the machine; one that has ended moves out of the way."""
        path = self.jobs_dir / f"{job.id}.json"
        replace_json(path, job.to_json(), durable=True)
        if job.state in ENDED:
            os.replace(path, self.ended_dir / path.name)

    def change(self, id: str, states: tuple[str, ...], **fields: Any) -> Job | None:
        """Changes fields of a job that is in one of these states; None, and nothing changed, if it is not.

        Call it with the lock held: what a job is doing is looked up and changed as one step.
        """
        job = Job.from_json(read_json(self.jobs_dir / f"{id}.json"))
        if job is None or job.state not in states:
            return None
        changed = replace(job, **fields)
        self.save(changed)
        return changed

    def log_file(self, job: Job, launch: int | None = None) -> Path:
        """What a launch of the job printed, the latest unless one is named."""
        return self.logs_dir / f"{job.id}-{launch or job.launches}.log"

    def tidy(self) -> None:
        """Finishes moves that a crash interrupted, and forgets the oldest ended jobs with their logs."""
        for path in self.jobs_dir.glob("*.json"):
            job = Job.from_json(read_json(path))
            if job and not job.active:
                os.replace(path, self.ended_dir / path.name)
        for path in sorted(self.ended_dir.glob("*.json"), reverse=True)[KEPT:]:
            for log in self.logs_dir.glob(f"{path.stem}-*.log"):
                log.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            self._read.pop(path.name, None)

    @property
    def paused(self) -> bool:
        return (self.folder / "paused").exists()

    @paused.setter
    def paused(self, value: bool) -> None:
        self.prepare()
        if value:
            (self.folder / "paused").touch(mode=0o600)
        else:
            (self.folder / "paused").unlink(missing_ok=True)
