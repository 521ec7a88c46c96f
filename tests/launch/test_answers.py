"""What engines answer of a job that was handed to them, read into one of four words."""

from __future__ import annotations

import json

import pytest

from mygpt2.errors import TryAgain
from mygpt2.launch import asking
from mygpt2.launch.command import Answer
from mygpt2.launch.handed import ENDED, GONE, PENDING, RUNNING, Handed, JobState

SLURM = Handed("r", "slurm", "17", "r", 1.0, 0)
KUBERNETES = Handed("r", "kubernetes", "r", "r", 1.0, 0)


def of(target: str, out: str, code: int = 0, err: str = "", handed: Handed = SLURM) -> JobState:
    return asking.ENGINES[target].read(Answer(code, out, err), [handed])["r"]


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("17|PENDING|PartitionConfig|/r/_launch/r.sbatch",
         JobState(PENDING, "PartitionConfig, the partition has no such nodes")),
        ("17|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1-2]|/r/_launch/r.sbatch",
         JobState(PENDING, "ReqNodeNotAvail, UnavailableNodes:n[1-2], nodes it needs are down or reserved")),
        ("17|CONFIGURING|None|/r/_launch/r.sbatch", JobState(PENDING, "CONFIGURING, None")),
        ("17|RUNNING|None|/r/_launch/r.sbatch", JobState(RUNNING, "RUNNING")),
        ("17|CANCELLED|BeginTime|/r/_launch/r.sbatch", JobState(ENDED, "CANCELLED")),
        ("16|PENDING|x|/r/_launch/q.sbatch\n17|FAILED|NonZeroExitCode|/r/_launch/r.sbatch",
         JobState(ENDED, "FAILED, NonZeroExitCode")),
        ("17|RUNNING|None|/somebody/else.sh", JobState(GONE)),
        ("", JobState(GONE)),
        ("garbage\n||\n17|x", JobState(GONE)),
    ],
)  # fmt: skip
def test_slurms_answers_are_read(out: str, expected: JobState) -> None:
    assert of("slurm", out) == expected


def test_slurm_that_knows_no_such_job_says_gone_and_any_other_failure_is_no_answer() -> None:
    assert of("slurm", "", 1, "slurm_load_jobs error: Invalid job id specified") == JobState(GONE)
    with pytest.raises(TryAgain, match="squeue failed: slurm_load_jobs error: Unable to contact"):
        of("slurm", "", 1, "slurm_load_jobs error: Unable to contact slurm controller")


def sky(status: str, **more: object) -> str:
    rows = [
        {"job_id": 3, "job_name": "r", "status": status, **more},
        {"job_id": 2, "job_name": "r", "status": "FAILED"},
    ]
    return "Checking managed jobs\n" + json.dumps([*rows, {"job_id": 9, "job_name": "other", "status": "RUNNING"}])


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        (sky("STARTING", details="in queue"), JobState(PENDING, "STARTING, in queue")),
        (sky("RECOVERING"), JobState(PENDING, "RECOVERING")),
        (sky("RUNNING"), JobState(RUNNING, "RUNNING")),
        (sky("FAILED_NO_RESOURCE", failure_reason="no H100\nanywhere"),
         JobState(ENDED, "FAILED_NO_RESOURCE, no H100 anywhere")),
        ("[]", JobState(GONE)),
        ("{}", JobState(GONE)),
    ],
)  # fmt: skip
def test_skypilots_answers_are_read(out: str, expected: JobState) -> None:
    assert of("skypilot", out, handed=Handed("r", "skypilot", "r", "r", 1.0, 0)) == expected


def job(conditions: object = (), kind: str = "Job", label: str = "r") -> dict[str, object]:
    return {"kind": kind, "metadata": {"labels": {"app": label}}, "status": {"conditions": conditions}}


def pod(phase: str, **status: object) -> dict[str, object]:
    return {"kind": "Pod", "metadata": {"labels": {"app": "r"}}, "status": {"phase": phase, **status}}


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes:\nno GPU"}
PULLING = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([job()], JobState(PENDING, "it has no pod yet")),
        ([job(), pod("Pending", conditions=[UNSCHEDULED])], JobState(PENDING, "Unschedulable: 0/3 nodes: no GPU")),
        ([job(), pod("Running"), pod("Pending", containerStatuses=[PULLING])],
         JobState(PENDING, "ErrImagePull: no such image")),
        ([job(), pod("Pending")], JobState(PENDING, "its pods begin")),
        ([job(), pod("Running"), pod("Running")], JobState(RUNNING)),
        ([job([{"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "by Kueue"}])],
         JobState(PENDING, "Suspended: JobSuspended: by Kueue")),
        ([job([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "x"}], "TrainJob")],
         JobState(ENDED, "Failed: BackoffLimitExceeded: x")),
        ([job([{"type": "Failed", "status": "False"}]), pod("Running")], JobState(RUNNING)),
        ([job(label="other")], JobState(GONE)),
        (["x", {"kind": 3, "metadata": []}], JobState(GONE)),
    ],
)  # fmt: skip
def test_kubernetes_answers_are_read(items: list[object], expected: JobState) -> None:
    for target in ("kubernetes", "kubeflow"):
        assert of(target, json.dumps({"items": items}), handed=KUBERNETES) == expected


def test_an_answer_that_is_none_is_one_sentence() -> None:
    with pytest.raises(TryAgain, match="kubectl answered 'Error', which is not JSON"):
        of("kubernetes", "Error", handed=KUBERNETES)
    with pytest.raises(TryAgain, match="kubectl failed: no server"):
        of("kubernetes", "", 1, "no\nserver", handed=KUBERNETES)
