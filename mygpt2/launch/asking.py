"""What the engines say of jobs that were handed to them, and how a job is taken back: by their own programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mygpt2.errors import TryAgain
from mygpt2.launch.command import Answer, ask
from mygpt2.launch.handed import ENDED, GONE, PENDING, RUNNING, TITLES, Handed, JobState
from mygpt2.run_dir.mentions import HANDED

MOST_REASON = 300  # characters
States = dict[str, JobState]  # by run

SLURM_PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT",
                 "SUSPENDED")  # fmt: skip
SLURM_RUNNING = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED")
SLURM_REASONS = {
    "Resources": "no nodes are free for it yet", "Priority": "other jobs come first",
    "Dependency": "it waits for another job", "BeginTime": "it may not begin before its time",
    "PartitionConfig": "the partition has no such nodes", "PartitionNodeLimit": "the partition allows no so many nodes",
    "PartitionTimeLimit": "the partition allows no such time", "PartitionDown": "the partition is down",
    "JobHeldUser": "held; scontrol release lets it go", "JobHeldAdmin": "held by an administrator",
    "ReqNodeNotAvail": "nodes it needs are down or reserved",
}  # fmt: skip
SKY_PENDING = ("PENDING", "SUBMITTED", "STARTING", "RECOVERING")
SKY_RUNNING = ("RUNNING", "WINDING_DOWN", "CANCELLING")


@dataclass(frozen=True)
class Engine:
    """`question` and `cancel` are commands; `read` understands the answer; `seconds` is how long it may take."""

    question: Callable[[Sequence[Handed]], list[str]]
    read: Callable[[Answer, Sequence[Handed]], States]
    cancel: Callable[[Handed], list[str]]
    seconds: float


def ask_engine(runs: Path, target: str, handed: Sequence[Handed]) -> States:
    """The states of these jobs of one engine, by run. UserError where the engine cannot be asked."""
    known = [each for each in handed if each.job]
    states: States = {}
    if known:
        engine = ENGINES[target]
        states |= engine.read(ask(engine.question(known), engine.seconds), known)
    for each in handed:
        if not each.job:
            job = find(runs, each)
            states[each.run] = JobState(GONE) if job is None else ask_engine(runs, target, [job])[each.run]
    return states


def find(runs: Path, handed: Handed) -> Handed | None:
    """The job of a submission whose end is not known, with its number; None where the engine has none of it."""
    if handed.target != "slurm":  # the others know it by its label
        labelled = replace(handed, job=handed.label)
        return None if ask_engine(runs, handed.target, [labelled])[handed.run].word == GONE else labelled
    argv = ["squeue", "--noheader", "--me", "--states=all", "--format=%i|%T|%r|%o"]
    answer = ask(argv, ENGINES["slurm"].seconds)
    if answer.code:
        raise TryAgain(f"squeue failed: {answer.words}")
    file = str(runs.absolute() / HANDED / f"{handed.run}.sbatch")
    jobs = [row.split("|")[0] for row in answer.out.splitlines() if row.split("|", 3)[3:] == [file]]
    return replace(handed, job=jobs[-1]) if jobs else None


def cancel(handed: Handed) -> None:
    """Takes a job back. UserError where that cannot be done; a job that is gone is taken back already."""
    answer = ask(ENGINES[handed.target].cancel(handed), 2 * ENGINES[handed.target].seconds)
    if answer.code:
        raise TryAgain(f"{TITLES[handed.target]} did not take {handed.title} back: {answer.words}")


# SLURM


def _squeue(handed: Sequence[Handed]) -> list[str]:
    jobs = ",".join(each.job for each in handed)
    return ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r|%o", f"--jobs={jobs}"]


def _of_squeue(answer: Answer, handed: Sequence[Handed]) -> States:
    if answer.code and "Invalid job id" not in answer.err:
        raise TryAgain(f"squeue failed: {answer.words}")
    rows = [row.split("|", 3) for row in answer.out.splitlines()]
    of_ours = {each.run: f"/{HANDED}/{each.run}.sbatch" for each in handed}  # numbers may begin anew with a cluster
    found = {row[0]: row for row in rows if len(row) == 4}
    states = {}
    for each in handed:
        row = found.get(each.job)
        ours = row is not None and row[3].endswith(of_ours[each.run])
        states[each.run] = _slurm_state(row[1], row[2]) if row and ours else JobState(GONE)
    return states


def _slurm_state(word: str, reason: str) -> JobState:
    plain = SLURM_REASONS.get(reason.partition(",")[0], "")
    words = f"{reason}, {plain}" if plain else reason
    if word in SLURM_PENDING:
        return JobState(PENDING, words if word == "PENDING" else f"{word}, {words}")
    known = reason not in ("", "None") and not plain  # why it waited is no reason for its end
    return JobState(RUNNING if word in SLURM_RUNNING else ENDED, f"{word}, {reason}" if known else word)


# SkyPilot


def _of_sky(answer: Answer, handed: Sequence[Handed]) -> States:
    if answer.code:
        raise TryAgain(f"sky failed: {answer.words}")
    start = answer.out.find("[")
    rows = _json(answer.out[max(start, 0) :], "sky")
    newest: dict[str, Mapping[str, Any]] = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and (name := str(row.get("job_name"))) is not None:
            newest[name] = max(row, newest.get(name, row), key=lambda each: each.get("job_id") or 0)
    return {each.run: _sky_state(newest.get(each.label)) for each in handed}


def _sky_state(row: Mapping[str, Any] | None) -> JobState:
    if row is None:
        return JobState(GONE)
    word = str(row.get("status") or "").rpartition(".")[2]
    why = next((str(row[key]) for key in ("failure_reason", "details") if row.get(key)), "")
    said = _short(f"{word}, {why}" if why else word)
    return JobState(PENDING if word in SKY_PENDING else RUNNING if word in SKY_RUNNING else ENDED, said)


# Kubernetes, and Kubeflow upon it


def _kubectl(kind: str) -> Callable[[Sequence[Handed]], list[str]]:
    def argv(handed: Sequence[Handed]) -> list[str]:
        labels = ",".join(dict.fromkeys(each.label for each in handed))
        return ["kubectl", "get", f"{kind},pods", f"--selector=app in ({labels})", "--output=json",
                "--request-timeout=8s"]  # fmt: skip

    return argv


def _of_kubectl(answer: Answer, handed: Sequence[Handed]) -> States:
    if answer.code:
        raise TryAgain(f"kubectl failed: {answer.words}")
    found = _json(answer.out, "kubectl")
    items = found.get("items") if isinstance(found, dict) else None
    items = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    states = {}
    for each in handed:
        own = [item for item in items if _at(item, "metadata", "labels", "app") == each.label]
        job = next((item for item in own if item.get("kind") in ("Job", "TrainJob")), None)
        states[each.run] = _job_state(job, [item for item in own if item.get("kind") == "Pod"])
    return states


def _job_state(job: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]]) -> JobState:
    if job is None:
        return JobState(GONE)
    for condition in _rows(_at(job, "status", "conditions")):
        kind = str(condition.get("type"))
        if condition.get("status") == "True" and kind in ("Complete", "Failed", "Suspended"):
            return JobState(PENDING if kind == "Suspended" else ENDED, _condition(kind, condition))
    held = [why for pod in pods if (why := _pod_waits(pod))]
    if held:
        return JobState(PENDING, held[0])
    runs = any(_at(pod, "status", "phase") == "Running" for pod in pods)
    return JobState(RUNNING) if runs else JobState(PENDING, "it has no pod yet" if not pods else "its pods begin")


def _pod_waits(pod: Mapping[str, Any]) -> str:
    """Why a pod that has not begun does not: no node for it, or a container that cannot be made."""
    if _at(pod, "status", "phase") != "Pending":
        return ""
    for condition in _rows(_at(pod, "status", "conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _condition(str(condition.get("reason") or "PodScheduled"), {**condition, "reason": ""})
    for container in _rows(_at(pod, "status", "containerStatuses")):
        waiting = _at(container, "state", "waiting")
        if isinstance(waiting, dict) and waiting.get("reason"):
            return _condition(str(waiting["reason"]), {**waiting, "reason": ""})
    return ""


def _condition(kind: str, condition: Mapping[str, Any]) -> str:
    parts = (kind, str(condition.get("reason") or ""), str(condition.get("message") or ""))
    return _short(": ".join(dict.fromkeys(part for part in parts if part)))


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_REASON else f"{line[: MOST_REASON - 1]}…"


def _json(text: str, program: str) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        raise TryAgain(f"{program} answered {text[:60]!r}, which is not JSON") from None


ENGINES = {
    "slurm": Engine(_squeue, _of_squeue, lambda each: ["scancel", each.job], 10.0),
    "skypilot": Engine(
        lambda _: ["sky", "jobs", "queue", "--output", "json", "--limit", "1000"], _of_sky,
        lambda each: ["sky", "jobs", "cancel", "--yes", "--name", each.label], 60.0,
    ),
    "kubernetes": Engine(
        _kubectl("jobs"), _of_kubectl,
        lambda each: ["kubectl", "delete", "jobs,services", f"--selector=app={each.label}", "--wait=false"], 10.0,
    ),
    "kubeflow": Engine(
        _kubectl("trainjobs"), _of_kubectl,
        lambda each: ["kubectl", "delete", "trainjobs", f"--selector=app={each.label}", "--wait=false"], 10.0,
    ),
}  # fmt: skip
