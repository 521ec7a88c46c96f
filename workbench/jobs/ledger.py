"""Who is at work on which device: runs, evaluations and sampling, in one ledger that all who start something ask.

A GPU serves one of them at a time: a second one takes memory that the first will want. A CPU is shared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, state_of
from mygpt2.run_dir.liveness import FRESH_SECONDS
from mygpt2.run_dir.paths import NAME
from workbench.jobs.records import HOLDING
from workbench.jobs.store import Store
from workbench.jobs.tasks import Tasks

SHARED = "cpu"


class Holder(Protocol):
    """Something else that works on devices, such as sampling."""

    def at_work(self) -> dict[str, str]:
        """What it does on each device it is at work on, in words."""
        ...

    def release(self, devices: Sequence[str]) -> None:
        """Gives back what it keeps of these without being at work."""
        ...


class Ledger:
    """Asked anew each time: everything it tells lies in files, or is told by its holders."""

    def __init__(self, runs: Path, store: Store, tasks: Tasks, slots: Sequence[str]) -> None:
        self._runs, self._store, self._tasks = runs, store, tasks
        self.names = list(dict.fromkeys([*slots, SHARED]))  # this machine's accelerators and its CPU
        self._holders: list[Holder] = []

    def add(self, holder: Holder) -> None:
        self._holders.append(holder)

    def held(self, *, but: str = "") -> dict[str, str]:
        """Who is at work on each device that serves one at a time, in words. `but`: a kind of work not to count."""
        jobs = [job for job in self._store.active() if job.state in HOLDING]
        of_jobs = {device: f"run {job.run}" for job in jobs for device in job.spec.devices}
        return {**self._besides({job.run for job in jobs}, but), **_exclusive(of_jobs)}

    def besides_jobs(self) -> set[str]:
        """The devices that somebody is at work on who is not in the queue."""
        return set(self._besides({job.run for job in self._store.active() if job.state in HOLDING}, ""))

    def _besides(self, queued: set[str], but: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for holder in self._holders:
            found |= {device: what for device, what in holder.at_work().items() if what != but}
        tasks = [task for task in self._tasks.list() if task.running and task.kind != but]
        found |= {device: task.label for task in tasks for device in task.devices}
        for run in self._lately():
            state = state_of(run) if run.name not in queued else None
            if state and (state.alive or state.processes):
                found |= {rank.device: f"run {run.name}" for rank in state.ranks if rank.alive}
        return _exclusive(found)

    def _lately(self) -> list[RunDir]:
        """Runs that have shown life within the last minute, at the price of a stat each."""
        try:
            with os.scandir(self._runs) as entries:
                runs = [RunDir(Path(e.path)) for e in entries if NAME.fullmatch(e.name) and not e.is_symlink()]
        except OSError:
            return []
        return [run for run in runs if time.time() - _changed(run.status_file) < FRESH_SECONDS]

    def release(self, devices: Sequence[str]) -> None:
        """Has everybody give back what they keep of these devices without being at work."""
        for holder in self._holders:
            holder.release(devices)

    def free(self, wanted: str = "") -> str:
        """The device that is wanted, or the first on which nobody is at work; the shared one where there is none."""
        held = self.held() if self.names != [SHARED] else {}
        return next((name for name in [wanted, *self.names] if name in self.names and name not in held), SHARED)

    def check(self, device: object) -> None:
        """UserError for what is not a device here."""
        if device not in self.names:
            raise UserError(f"there is no device {device!r}; choose from: {', '.join(self.names)}")

    def take(self, device: str, *, but: str = "") -> None:
        """UserError when somebody else is at work on the device; else what is kept of it is given back."""
        held = self.held(but=but) if device != SHARED else {}
        if device in held:
            free = [other for other in self.names if other not in held]
            raise UserError(f"{device} is at work for {held[device]}; wait for it, or choose from: {', '.join(free)}")
        self.release([device])


def _exclusive(held: dict[str, str]) -> dict[str, str]:
    return {device: who for device, who in held.items() if device and device != SHARED}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
