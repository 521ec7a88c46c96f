"""Who goes next, and who is started again: pure functions of records and a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mygpt2.errors import UserError
from mygpt2.run_dir import RunState
from workbench.jobs.ending import End
from workbench.jobs.records import HOLDING, Job

FIRST_DELAY = {"died": 5.0, "again": 60.0}  # seconds
LONGEST_DELAY = 1800.0
HELD_SECONDS = 60.0  # a job that is started again this soon keeps its devices meanwhile


RESUMABLE = ("stopped", "failed", "lost")


def may_resume(state: RunState) -> bool:
    """Whether a run can go on: it ended before its last step, and nobody is at work on it."""
    return state.state in RESUMABLE and not state.processes


def check_resumable(run: str, state: RunState) -> None:
    """UserError for a run that cannot go on, whoever asks."""
    if state.alive or state.processes:
        raise UserError(f"run {run!r} is at work already; stop it first, or choose another name")
    if state.state not in RESUMABLE:
        raise UserError(f"run {run!r} is {state.state}; only a stopped, failed or lost run can be resumed")


@dataclass(frozen=True)
class Verdict:
    """What becomes of a job whose launcher is gone: a final state, or `waiting` for `delay` seconds."""

    state: str
    reason: str
    delay: float = 0.0
    failures: int = 0


def next_jobs(jobs: Iterable[Job], slots: Iterable[str], now: float) -> list[Job]:
    """The waiting jobs to start now, given all active jobs in the order of the queue.

    A device serves one job. An earlier job reserves the devices it waits for, so that later ones cannot starve it;
    later ones that need none of them go ahead.
    """
    jobs = list(jobs)
    free = set(slots)
    for job in jobs:
        if job.state in HOLDING:
            free -= set(job.spec.devices)
    chosen = []
    for job in sorted((job for job in jobs if job.state not in HOLDING), key=_turn):
        pause = job.not_before - now
        if pause > HELD_SECONDS:
            continue
        if pause <= 0 and set(job.spec.devices) <= free:
            chosen.append(job)
        free -= set(job.spec.devices)
    return chosen


def _turn(job: Job) -> tuple[bool, float, str]:
    """Those to be started again come before those that were never started."""
    return job.state != "waiting", job.order, job.id


def verdict(job: Job, end: End, step: int) -> Verdict:
    """Whether a job is started again after this end, at `step`, and when.

    Only after a death or an exit 75, never once a stop was asked for. The delay doubles with each failure that got no
    further than any before it, and `restarts` of those in a row are the last.
    """
    if job.asked:
        done = end.state if end.state in ("finished", "failed", "stopped") else "stopped"
        return Verdict(done, end.reason if done == end.state else "stopped on request")
    if end.state not in FIRST_DELAY:
        return Verdict(end.state, end.reason)
    failures = 1 if step > job.best_step else job.failures + 1
    if failures > job.spec.restarts:
        times = "once" if failures == 1 else f"{failures} times"
        more = f"; given up: it ended so {times} without a step further" if job.spec.restarts else ""
        return Verdict("failed", end.reason + more, failures=failures)
    delay = min(FIRST_DELAY[end.state] * 2 ** (failures - 1), LONGEST_DELAY)
    return Verdict("waiting", end.reason, delay, failures)
