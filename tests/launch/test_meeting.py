"""No launch waits for a node that cannot come: every wrong combination of variables is one sentence, at once."""

from __future__ import annotations

import itertools
import stat
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from mygpt2.launch import meeting
from mygpt2.launch.meeting import Meeting, Where, slurm_hostnames

HERE = {"MASTER_ADDR": "n0"}
BATCH = {"SLURM_NNODES": "2", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "n[0-1]", "SLURM_JOB_ID": "1"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "n[0-1]"}
SKY = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5"}
PET = {"PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "job-0", "PET_MASTER_PORT": "29400"}
INDEXED = {"NNODES": "2", "JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "job-0.job"}


def planned(env: dict[str, str]) -> tuple[int, Where | None]:
    found = Meeting(env)
    nodes = found.nodes()
    return nodes, found.where(lambda listed: ["n0", "n1"] if listed else []) if nodes > 1 else None


WRONG: list[tuple[dict[str, str], str]] = [
    # numbers that are none, or too large
    ({"NNODES": "two"}, "NNODES=two must be a whole number from 1 up"),
    ({"NNODES": "0"}, "NNODES=0 must be a whole number from 1 up"),
    ({"NNODES": "-2"}, "NNODES=-2 must be"),
    ({"NNODES": " 2"}, "NNODES= 2 must be"),
    ({"NNODES": "2\n3"}, r"NNODES='2\n3' must be"),
    ({"NNODES": "٢"}, "NNODES=٢ must be"),
    ({"NNODES": "100001"}, "must be at most 100000"),
    ({"NNODES": "9" * 5000}, "must be a whole number"),
    ({"NNODES": "2", **HERE, "NODE_RANK": "first"}, "NODE_RANK=first must be a whole number from 0 up"),
    ({"NNODES": "2", **HERE, "MASTER_PORT": "x"}, "MASTER_PORT=x must be"),
    ({"NNODES": "2", **HERE, "MASTER_PORT": "0"}, "MASTER_PORT=0 must be"),
    ({"NNODES": "2", **HERE, "MASTER_PORT": "65536"}, "MASTER_PORT=65536 must be at most 65535"),
    ({"NNODES": "2", **HERE, "NODE_RANK": "0", "RDZV_TIMEOUT": "0"}, "RDZV_TIMEOUT=0 must be"),
    ({**STEP, "SLURM_NNODES": "x"}, "SLURM_NNODES=x must be"),
    ({**STEP, "SLURM_NODEID": "x"}, "SLURM_NODEID=x must be"),
    ({**SKY, "SKYPILOT_NUM_NODES": "0"}, "SKYPILOT_NUM_NODES=0 must be"),
    ({**SKY, "SKYPILOT_NODE_RANK": "x"}, "SKYPILOT_NODE_RANK=x must be"),
    ({**PET, "PET_NNODES": "1:2"}, "PET_NNODES=1:2 must be a whole number"),
    ({**PET, "PET_NODE_RANK": "auto"}, "PET_NODE_RANK=auto must be"),
    ({**PET, "PET_MASTER_PORT": "70000"}, "PET_MASTER_PORT=70000 must be at most 65535"),
    ({**INDEXED, "JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX=x must be"),
    # a rank that no node has
    ({"NNODES": "2", **HERE, "NODE_RANK": "2"}, "NODE_RANK=2 must be below NNODES=2; allowed: 0 to 1"),
    ({"NNODES": "1", "NODE_RANK": "1"}, "NODE_RANK=1 must be below NNODES=1"),
    ({"SLURM_NNODES": "1", "SLURM_STEP_ID": "0", "NODE_RANK": "1"}, "NODE_RANK=1 must be below SLURM_NNODES=1"),
    ({**STEP, "SLURM_NODEID": "2"}, "SLURM_NODEID=2 must be below SLURM_NNODES=2"),
    ({**STEP, "SLURM_NNODES": "4", "SLURM_NODEID": "3", "NNODES": "2"}, "SLURM_NODEID=3 must be below NNODES=2"),
    ({**SKY, "SKYPILOT_NODE_RANK": "2"}, "SKYPILOT_NODE_RANK=2 must be below SKYPILOT_NUM_NODES=2"),
    ({**PET, "PET_NODE_RANK": "2"}, "PET_NODE_RANK=2 must be below PET_NNODES=2"),
    ({**INDEXED, "JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX=2 must be below NNODES=2"),
    # others are spoken of, and nothing says how many
    ({"NODE_RANK": "0"}, "NODE_RANK=0 is for several nodes, and nothing says how many"),
    ({"NODE_RANK": "1", **HERE}, "NODE_RANK=1 is for several nodes"),
    (HERE, "MASTER_ADDR=n0 is where several nodes meet, and nothing says how many"),
    ({"SLURM_NODEID": "1"}, "SLURM_NODEID=1 says that there are other nodes, and SLURM_NNODES is not set"),
    ({"SKYPILOT_NODE_RANK": "1"}, "SKYPILOT_NODE_RANK=1 says that there are other nodes"),
    ({"PET_NODE_RANK": "1"}, "PET_NODE_RANK=1 says that there are other nodes"),
    # several nodes, and no place to meet
    ({"NNODES": "2"}, "several nodes need MASTER_ADDR"),
    ({"NNODES": "2", "MASTER_ADDR": "  "}, "several nodes need MASTER_ADDR"),
    ({"NNODES": "2", "JOB_COMPLETION_INDEX": "0"}, "several nodes need MASTER_ADDR"),
    ({"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "0"}, "several nodes need MASTER_ADDR"),
    ({"PET_NNODES": "2", "PET_NODE_RANK": "0"}, "several nodes need MASTER_ADDR"),
    ({"SLURM_NNODES": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "several nodes need MASTER_ADDR"),
    # a place that is none
    ({"NNODES": "2", "MASTER_ADDR": "n0:29500"}, "use MASTER_ADDR=n0 MASTER_PORT=29500"),
    ({"NNODES": "2", "MASTER_ADDR": "n0,n1"}, "MASTER_ADDR=n0,n1 is no host's name or address"),
    ({"NNODES": "2", "MASTER_ADDR": "n0 n1"}, "is no host's name"),
    ({"NNODES": "2", "MASTER_ADDR": "tcp://n0"}, "is no host's name"),
    ({**PET, "PET_MASTER_ADDR": "job-0:29400"}, "use MASTER_ADDR=job-0 MASTER_PORT=29400"),
    # an engine that contradicts a person, itself, or another engine
    ({**STEP, "NNODES": "3", **HERE}, "NNODES=3, but SLURM gave this job 2 nodes (SLURM_NNODES=2)"),
    ({"SLURM_NNODES": "1", "SLURM_STEP_ID": "0", "NNODES": "2", **HERE}, "but SLURM gave this job 1 node"),
    ({**SKY, "NNODES": "3"}, "NNODES=3, but SkyPilot gave this job 2 nodes"),
    ({**PET, "NNODES": "3"}, "NNODES=3, but Kubeflow gave this job 2 nodes"),
    ({**SKY, "SKYPILOT_NODE_IPS": "10.0.0.4"}, "SKYPILOT_NODE_IPS names 1 node and SKYPILOT_NUM_NODES=2"),
    ({**PET, "SLURM_NNODES": "4"}, "PET_NNODES=2 and SLURM_NNODES=4 contradict each other"),
    # SLURM, not as it has to be started
    (BATCH, "use srun --ntasks-per-node=1"),
    ({**BATCH, "NNODES": "2", **HERE}, "use srun --ntasks-per-node=1"),
    ({**STEP, "SLURM_STEP_NUM_TASKS": "4"}, "srun started this 4 times on 2 nodes"),
    ({**STEP, "SLURM_STEP_NUM_TASKS": "4", "NNODES": "2", **HERE}, "srun started this 4 times on 2 nodes"),
    ({**STEP, "SLURM_NNODES": "1", "SLURM_STEP_NUM_TASKS": "2"}, "srun started this 2 times on 1 node"),
]  # fmt: skip


@pytest.mark.parametrize(("env", "part"), WRONG, ids=[part[:48] for _, part in WRONG])
def test_what_cannot_be_right_is_one_sentence(env: dict[str, str], part: str) -> None:
    with pytest.raises(UserError) as refused:
        planned(env)
    said = str(refused.value)
    assert part in said
    assert "\n" not in said and len(said) < 400


RIGHT: list[tuple[dict[str, str], int, str | None, bool | None]] = [
    ({}, 1, None, None),
    ({"NNODES": ""}, 1, None, None),
    ({"NNODES": "1", "NODE_RANK": "0", **HERE}, 1, None, None),
    ({"MASTER_ADDR": "127.0.0.1"}, 1, None, None),
    ({"NNODES": "2", **HERE}, 2, "n0:29500", None),
    ({"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "fe80::1", "MASTER_PORT": "4"}, 2, "[fe80::1]:4", False),
    ({"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "[fe80::1]"}, 2, "[fe80::1]:29500", False),
    (STEP, 2, "n0:29500", True),
    ({**STEP, "SLURM_NODEID": "1"}, 2, "n0:29500", False),
    ({**STEP, "NNODES": "1"}, 1, None, None),
    ({**BATCH, "NNODES": "1", "SLURM_NODEID": "1"}, 1, None, None),
    ({**BATCH, "NNODES": "4", "NODE_RANK": "3", **HERE}, 4, "n0:29500", False),
    ({"SLURM_NNODES": "1", "SLURM_NODEID": "0"}, 1, None, None),
    ({**SKY, "SLURM_NNODES": "4"}, 2, "10.0.0.4:29500", False),
    ({**PET, "SLURM_NNODES": "2"}, 2, "job-0:29400", True),
    ({**PET, "NODE_RANK": "1"}, 2, "job-0:29400", False),
    (INDEXED, 2, "job-0.job:29500", False),
    ({"JOB_COMPLETION_INDEX": "7"}, 1, None, None),
    ({"SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0"}, 1, None, None),
]


@pytest.mark.parametrize(("env", "nodes", "endpoint", "is_host"), RIGHT)
def test_what_is_right_stays_so(env: dict[str, str], nodes: int, endpoint: str | None, is_host: bool | None) -> None:
    found, where = planned(env)
    assert (found, where and where.endpoint, where and where.is_host) == (nodes, endpoint, is_host)


def test_any_variables_together_are_a_plan_or_one_sentence() -> None:
    """Every choice of a value for seven variables: nothing but a place to meet or a UserError comes of it."""
    values = {
        "NNODES": ("", "1", "2", "x"), "NODE_RANK": ("", "0", "2"), "MASTER_ADDR": ("", "n0", "a b"),
        "SLURM_NNODES": ("", "2", "3"), "SLURM_STEP_ID": ("", "0"), "PET_NNODES": ("", "2"),
        "JOB_COMPLETION_INDEX": ("", "1"),
    }  # fmt: skip
    told = 0
    for chosen in itertools.product(*values.values()):
        env = dict(zip(values, chosen, strict=True))
        try:
            nodes, where = planned(env)
        except UserError as error:
            told += 1
            assert "\n" not in str(error)
        else:
            assert (nodes > 1) == (where is not None)
            assert nodes == int(env["NNODES"] or env["PET_NNODES"] or env["SLURM_NNODES"] or 1)
    assert told > 400


def scontrol(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "scontrol").write_text(f"#!/bin/bash\n{script}\n")
    (folder / "scontrol").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("echo scontrol: error: bad list >&2; exit 1", "(scontrol: error: bad list); set MASTER_ADDR"),
        ("sleep 30 & wait", "`scontrol` did not answer within 0 s; set MASTER_ADDR"),
    ],
)
def test_a_node_list_that_cannot_be_expanded_is_one_sentence(
    script: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol(tmp_path, script, monkeypatch)
    monkeypatch.setattr(meeting, "SCONTROL_S", 30.0 if "exit" in script else 0.2)
    with pytest.raises(UserError) as refused:
        slurm_hostnames("n[0-1]")
    assert part in str(refused.value)


def test_scontrol_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="`scontrol` is not installed here; set MASTER_ADDR"):
        slurm_hostnames("n[0-1]")
