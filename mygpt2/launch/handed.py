"""What was handed to a cluster: a record for each run beside the file that was handed over.

    runs/_launch/<run>.json   {"target", "job", "label", "time", "attempt", "folder", "said", "ended"}

The record is there before the engine is given the file, without a job: a submission that is cut short, or of whose end
nothing is known, is not done a second time.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mygpt2.files import read_json, replace_json
from mygpt2.inside import SMALL_BYTES
from mygpt2.records import number, whole
from mygpt2.run_dir import MEANT, RunDir, RunState
from mygpt2.run_dir.mentions import HANDED
from mygpt2.run_dir.paths import NAME

SCHEMA = 1
JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}", re.ASCII)  # goes into the command of an engine
TITLES = {"slurm": "SLURM", "skypilot": "SkyPilot", "kubernetes": "Kubernetes", "kubeflow": "Kubeflow Trainer"}
PENDING, RUNNING, ENDED, GONE = "pending", "running", "ended", "gone"


@dataclass(frozen=True)
class Handed:
    """`job` is "" while it is not known whether the engine took the file; `attempt` is the run's last one before;
    `folder` tells the run's folder from a later one of its name; `ended` says how it was taken back, "" if not."""

    run: str
    target: str
    job: str
    label: str
    time: float
    attempt: int
    folder: int | None = None
    said: str = ""
    ended: str = ""

    @property
    def title(self) -> str:
        """`SLURM job 17`."""
        return f"{TITLES[self.target]} job {self.job}" if self.job else f"the job of {TITLES[self.target]}"

    def as_json(self) -> dict[str, Any]:
        fields = ("target", "job", "label", "time", "attempt", "folder", "said", "ended")
        return {"schema": SCHEMA, **{name: getattr(self, name) for name in fields}}


@dataclass(frozen=True)
class JobState:
    """What an engine says of a job: one of pending, running, ended, gone, and why in its own words."""

    word: str
    reason: str = ""


@dataclass(frozen=True)
class Told:
    """A launch that was handed over with what is known of its job. `job` is None until the engine has answered, and
    `problem` says why it does not; `unanswered` is how many times in a row."""

    handed: Handed
    job: JobState | None = None
    problem: str = ""
    unanswered: int = 0


def record_file(runs: Path, run: str) -> Path:
    return runs / HANDED / f"{run}.json"


def read(runs: Path, run: str) -> Handed | None:
    """The record of a run; None where there is none, where it is damaged, or of an earlier run of the name."""
    found = read_json(record_file(runs, run), most=SMALL_BYTES)
    if not found or not NAME.fullmatch(run) or found.get("target") not in TITLES:
        return None
    job, label = str(found.get("job") or ""), str(found.get("label") or found.get("job") or "")
    if (job and not JOB.fullmatch(job)) or not JOB.fullmatch(label or "x"):
        return None
    folder = whole(found.get("folder"))
    if folder is not None and folder != folder_of(RunDir(runs / run)):
        return None
    texts = (str(found.get(key) or "")[:500] for key in ("said", "ended"))
    return Handed(run, found["target"], job, label, number(found.get("time")) or 0.0,
                  whole(found.get("attempt")) or 0, folder, *texts)  # fmt: skip


def write(runs: Path, handed: Handed) -> None:
    """OSError where it cannot be written."""
    replace_json(record_file(runs, handed.run), handed.as_json(), durable=True)


def folder_of(run: RunDir) -> int | None:
    """What tells a folder from another one of its name; None for none."""
    try:
        return os.stat(run.path).st_ino
    except OSError:
        return None


def is_open(handed: Handed, state: RunState) -> bool:
    """Whether the engine may still start the run, or start it again: nobody is at work on it, and neither its end nor a
    person has settled that it is over."""
    if handed.ended or state.alive or state.state == "finished":
        return False
    if not has_begun(handed, state):
        return True
    return state.state in ("stopped", "lost", "failed") and (state.exit or {}).get("asked") not in MEANT


def has_begun(handed: Handed, state: RunState) -> bool:
    """Whether an attempt was made since the launch was handed over."""
    return (whole(state.status.get("attempt")) or 0) > handed.attempt


def seen(state: RunState, told: Told | None) -> RunState:
    """The state of a run with what the engine says of its job: queued as long as that waits for its nodes."""
    if told is None or not is_open(told.handed, state):
        return state
    handed, job, begun = told.handed, told.job, has_begun(told.handed, state)
    if job is None:
        return state if begun else replace(state, reason=_unknown(told))
    why = f": {job.reason}" if job.reason else ""
    if job.word == PENDING:
        again = "waits to be started again" if begun else "is pending"
        return replace(state, state="queued", reason=f"{handed.title} {again}{why}")
    if begun:
        return state
    if job.word == RUNNING:
        return replace(state, state="starting", reason=f"{handed.title} runs; nothing of it is in this folder yet")
    how = "is not known there any more" if job.word == GONE else f"ended before the run began{why}"
    return replace(state, state="lost", reason=f"{handed.title} {how}; what it was given is in {HANDED}")


def _unknown(told: Told) -> str:
    title = TITLES[told.handed.target]
    if not told.problem:
        return f"handed to {title}, which is being asked"
    times = f", {told.unanswered} times in a row" if told.unanswered > 1 else ""
    return f"handed to {title}, which cannot be asked{times}: {told.problem}"
