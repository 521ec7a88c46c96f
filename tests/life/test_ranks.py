"""Several ranks as one: restarts in place, stops that reach everybody, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.life import harness


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return harness.settings(harness.corpus(folder / "corpus"), folder / "cache"), folder / "runs", folder


def test_a_killed_rank_is_restarted_in_place_and_the_result_is_the_same(place, launch):
    """Without a store prefix per attempt about half of these restarts fail with gloo."""
    values, runs, folder = place
    values = {**values, "train.steps": 40, "model.dropout": 0.0}
    calm = launch(harness.command(values, runs, "calm"), folder / "calm", 2)
    assert calm.wait() == 0, calm.said()[-3000:]
    process = launch(harness.command(values, runs, "killed"), folder / "killed", 2, restarts=2)
    for target in (10, 25):
        assert harness.wait_for(lambda target=target: harness.last_step(runs / "killed") >= target, process)
        before = harness.rank_pids(runs / "killed")
        os.kill(before[1], signal.SIGKILL)
        harness.wait_for(lambda before=before: harness.rank_pids(runs / "killed") != before, process)
    assert process.wait() == 0, process.said()[-3000:]
    assert harness.losses(runs / "killed") == harness.losses(runs / "calm")


def stopped_whole(run):
    status, ended = (json.loads((run / name).read_text()) for name in ("status.json", "exit.json"))
    assert (status["state"], ended["code"]) == ("stopped", 85)
    assert (run / "checkpoints" / f"step-{status['step']:08d}" / "MANIFEST.json").exists()
    assert status["step"] == harness.last_step(run)


def test_a_stop_reaches_both_ranks_and_leaves_no_process(place, launch):
    values, runs, folder = place
    process = launch(harness.command({**values, "train.steps": 2000}, runs, "control"), folder / "control", 2)
    assert harness.wait_for(lambda: harness.last_step(runs / "control") >= 10, process)
    everyone = harness.family(process.pid)
    (runs / "control" / "control" / "stop").touch()
    process.wait()
    assert not harness.alive(everyone, 5)
    stopped_whole(runs / "control")


def test_sigterm_to_a_plain_torchrun_stops_both_ranks_and_leaves_no_process(place):
    """The one test here that starts torchrun and its ranks as a person does."""
    values, runs, _ = place
    words = ["mygpt2", *harness.command({**values, "train.steps": 2000}, runs, "SIGTERM")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--", *words]
    process = subprocess.Popen(
        torchrun, env=harness.environment(values["data.cache_dir"]), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert harness.wait_for(lambda: harness.last_step(runs / "SIGTERM") >= 10, process)
        everyone = harness.family(process.pid)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert not harness.alive(everyone, 5)
    assert "forcefully" not in output, output[-3000:]  # torchrun's word for ranks that did not stop by themselves
    stopped_whole(runs / "SIGTERM")


def starve(rank):
    """Rank 1 gets no data for longer than a collective may take."""
    if rank != 1:
        return
    from mygpt2.data.loader import Loader

    poll, began = Loader.poll, []

    def hungry(self, timeout_s):
        began.append(time.monotonic())
        if len(began) > 5 and time.monotonic() - began[5] < 4:
            time.sleep(timeout_s)
            return None
        return poll(self, timeout_s)

    Loader.poll = hungry


def test_ranks_that_starve_wait_together_and_no_collective_times_out(place, launch):
    """One rank gets no data for longer than the collectives' time-out: all wait, then all go on."""
    values, runs, folder = place
    values = {**values, "train.steps": 20, "train.stall_minutes": 0.05}
    process = launch(harness.command(values, runs, "starved"), folder / "starved", 2, meddle=(__name__, "starve"))
    assert process.wait() == 0, process.said()[-3000:]
    waits = [json.loads(line)["data_wait_ms"] for line in (runs / "starved" / "metrics.jsonl").read_text().splitlines()]
    assert len(waits) == 20 and sum(waits) > 3000


def test_a_branch_on_two_ranks_equals_its_parent_to_the_bit(place, launch):
    from mygpt2.train.branching import draft, make

    values, runs, folder = place
    values = {**values, "train.steps": 12, "eval.interval": 6, "checkpoint.interval": 4, "checkpoint.keep_last": 9}
    parent = launch(harness.command(values, runs, "parent"), folder / "parent", 2)
    assert parent.wait() == 0, parent.said()[-3000:]
    make(runs, draft(runs, "parent", 4, {}), "branch")
    branch = launch(["train", "--runs", str(runs), "--run", "branch"], folder / "branch", 2)
    assert branch.wait() == 0, branch.said()[-3000:]
    losses = [harness.losses(runs / name) for name in ("parent", "branch")]
    assert losses[1] == {step: loss for step, loss in losses[0].items() if step > 4} and len(losses[1]) == 8
    assert harness.weights_hash(runs / "branch") == harness.weights_hash(runs / "parent")
