"""Several ranks as one: restarts in place, stops that reach everybody, and nobody left behind."""

import json
import os
import signal

import psutil
import pytest

from tests.life import harness


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return harness.corpus(folder / "corpus"), folder / "runs", folder / "cache"


def test_a_killed_rank_is_restarted_in_place_and_the_result_is_the_same(place):
    """Without a store prefix per attempt about half of these restarts fail with gloo."""
    source, runs, cache = place
    changes = {"train__steps": 60, "model__dropout": 0.0}
    harness.run(harness.command(source, runs, "calm", ranks=2, **changes), cache)
    words = harness.command(source, runs, "killed", ranks=2, launcher=["--max-restarts=2"], **changes)
    process = harness.start(words, cache)
    for target in (20, 45):
        assert harness.wait_for(lambda target=target: harness.last_step(runs / "killed") >= target, process)
        os.kill(harness.rank_pids(runs / "killed")[1], signal.SIGKILL)
        before = harness.rank_pids(runs / "killed")
        harness.wait_for(lambda before=before: harness.rank_pids(runs / "killed") != before, process)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output[-3000:]
    assert harness.losses(runs / "killed") == harness.losses(runs / "calm")


@pytest.mark.parametrize("how", ["SIGTERM to torchrun", "control file"])
def test_a_stop_reaches_both_ranks_and_leaves_no_process(place, how):
    source, runs, cache = place
    name = how.split()[0]
    process = harness.start(harness.command(source, runs, name, ranks=2, train__steps=2000), cache)
    assert harness.wait_for(lambda: harness.last_step(runs / name) >= 10, process)
    everyone = harness.family(process)
    if how == "control file":
        (runs / name / "control" / "stop").touch()
    else:
        process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    _, alive = psutil.wait_procs(everyone, timeout=5)
    assert not alive
    assert "forcefully" not in output, output[-3000:]  # torchrun's word for ranks that did not stop by themselves
    status = json.loads((runs / name / "status.json").read_text())
    ended = json.loads((runs / name / "exit.json").read_text())
    assert (status["state"], ended["code"]) == ("stopped", 85)
    assert (runs / name / "checkpoints" / f"step-{status['step']:08d}" / "MANIFEST.json").exists()
    assert status["step"] == harness.last_step(runs / name)


def test_ranks_that_starve_wait_together_and_no_collective_times_out(place, tmp_path):
    """One rank gets no data for longer than the collectives' time-out: all wait, then all go on."""
    source, runs, cache = place
    starve = tmp_path / "starve"
    starve.mkdir()
    (starve / "sitecustomize.py").write_text(
        "import os, time\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from mygpt2.data.loader import Loader\n"
        "    poll, began = Loader.poll, []\n"
        "    def hungry(self, timeout_s):\n"
        "        began.append(time.monotonic())\n"
        "        if len(began) > 5 and time.monotonic() - began[5] < 9:\n"
        "            time.sleep(timeout_s)\n"
        "            return None\n"
        "        return poll(self, timeout_s)\n"
        "    Loader.poll = hungry\n"
    )
    words = harness.command(source, runs, "starved", ranks=2, train__steps=20, train__stall_minutes=0.1)
    env = harness.environment(cache)
    env["PYTHONPATH"] = f"{starve}{os.pathsep}{env['PYTHONPATH']}"
    import subprocess

    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    waits = [json.loads(line)["data_wait_ms"] for line in (runs / "starved" / "metrics.jsonl").read_text().splitlines()]
    assert len(waits) == 20
