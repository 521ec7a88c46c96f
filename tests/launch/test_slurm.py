"""On a real cluster of SLURM, two nodes on this machine: a run that loses a node goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mygpt2.run_dir import ControlFiles, RunDir
from tests.launch import slurm
from tests.life import harness

pytestmark = pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "-")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[slurm.Cluster]:
    found = slurm.Cluster(tmp_path / "slurm")
    try:
        found.start()
        yield found
    finally:
        found.stop()


def submit(cluster: slurm.Cluster, folder: Path, name: str, *more: str, steps: int) -> str:
    """Hands a run on both nodes over, as a person does; the job's number."""
    values = harness.settings(folder / "corpus", folder / "cache", train__steps=steps)
    words = harness.command(values, folder / "runs", name)[1:]
    # The nodes are names of this machine only in the configuration of SLURM.
    argv = [sys.executable, "-m", "mygpt2", "launch", "--to", "slurm", "--submit", "--nodes", "2", "--nproc", "1"]
    argv += ["--cpus", "1", "--env", "MASTER_ADDR=127.0.0.1", *more, *words]
    environment = {**cluster.environment, **harness.environment(folder / "cache"), "PYTHON": sys.executable}
    environment |= {"SLURM_CONF": cluster.environment["SLURM_CONF"], "PATH": cluster.environment["PATH"]}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, cwd=harness.REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition(" ")[2]


def runs(cluster: slurm.Cluster, *words: str) -> str:
    argv = [sys.executable, "-m", "mygpt2", "runs", *words]
    done = subprocess.run(argv, env=cluster.environment, capture_output=True, text=True, cwd=harness.REPO, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(cluster: slurm.Cluster, run: RunDir) -> str:
    """State and reason of a run, as `runs list` says them."""
    (row,) = json.loads(runs(cluster, "list", run.name, "--runs", str(run.path.parent), "--json"))
    return f"{row['state']}: {row['reason']}"


def test_a_job_that_waits_says_why_is_handed_over_once_and_is_taken_back(
    cluster: slurm.Cluster, tmp_path: Path
) -> None:
    harness.corpus(tmp_path / "corpus")
    run = RunDir(tmp_path / "runs" / "later")
    job = submit(cluster, tmp_path, "later", "--option", "begin=now+1hour", steps=60)
    assert listed(cluster, run).startswith(f"queued: SLURM job {job} is pending: BeginTime")
    with pytest.raises(AssertionError, match="is handed over already"):
        submit(cluster, tmp_path, "later", steps=60)
    assert cluster.said("squeue", "--noheader", "--format=%i") == job
    taken = runs(cluster, "stop", "later", "--runs", str(run.path.parent))
    assert taken == f"SLURM job {job}: taken back from SLURM\n"
    assert cluster.state(job) == "CANCELLED" and listed(cluster, run).startswith("stopped: ")
    assert "PartitionConfig" in listed(cluster, RunDir(run.path.with_name(four(cluster, tmp_path))))


def four(cluster: slurm.Cluster, folder: Path) -> str:
    """A run for more nodes than there are; its name."""
    submit(cluster, folder, "four", "--nodes", "4", steps=60)
    return "four"


def test_a_node_is_lost_and_the_job_goes_on_where_it_was(cluster: slurm.Cluster, tmp_path: Path) -> None:
    harness.corpus(tmp_path / "corpus")
    calm, lost = RunDir(tmp_path / "runs" / "calm"), RunDir(tmp_path / "runs" / "lost")
    job = submit(cluster, tmp_path, "calm", steps=60)
    cluster.wait(lambda: cluster.state(job) == "COMPLETED", 400, "end of the calm run")
    job = submit(cluster, tmp_path, "lost", steps=60)
    cluster.wait(lambda: harness.last_step(lost.path) >= 15, 300, "fifteenth step")
    cluster.kill_node("n2")
    cluster.wait(lambda: cluster.state(job) in ("PENDING", "REQUEUED"), 60, "second place in the queue")
    cluster.wait(lambda: listed(cluster, lost).startswith("queued: "), 90, "word that it waits")
    assert f"SLURM job {job} waits to be started again: " in listed(cluster, lost)
    cluster.start_node("n2")
    cluster.wait(lambda: cluster.state(job) == "COMPLETED", 400, "end of the run")
    assert harness.losses(lost.path) == harness.losses(calm.path)
    assert harness.weights_hash(lost.path) == harness.weights_hash(calm.path)


def test_a_stop_from_the_page_stays_and_one_from_the_scheduler_is_queued_again(
    cluster: slurm.Cluster, tmp_path: Path
) -> None:
    harness.corpus(tmp_path / "corpus")
    run = RunDir(tmp_path / "runs" / "run")
    job = submit(cluster, tmp_path, "run", "--time", "12h", steps=5000)
    cluster.wait(lambda: harness.last_step(run.path) >= 5, 300, "fifth step")
    cluster.said("scancel", "--batch", "--signal=USR1", job)  # what SLURM does before the limit of time
    cluster.wait(lambda: run.attempt_dir(2).is_dir(), 300, "second attempt")
    cluster.wait(lambda: harness.last_step(run.path) >= 20, 300, "further step")
    ControlFiles(run).request("stop")
    cluster.wait(lambda: cluster.state(job) == "COMPLETED", 200, "end that stays")
    assert os.listdir(run.attempts_dir) == ["1", "2"] or len(os.listdir(run.attempts_dir)) == 2
