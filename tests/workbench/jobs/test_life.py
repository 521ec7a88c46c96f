"""A real run of two ranks under the real launcher, through everything that can happen to it.

Each start of torchrun takes seconds, so the tests go on with one run, in their order.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mygpt2.config import config_hash, load_config
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, list_runs, rank_states, state_of
from tests.life import harness
from tests.workbench.jobs.helpers import until
from workbench.jobs import Jobs, submit_config

SERVER = """
import sys, time
from pathlib import Path
from mygpt2.config import load_config
from workbench.jobs import Jobs, submit_config
jobs = Jobs(Path(sys.argv[1]), ["cpu"])
jobs.start()
submit_config(jobs, load_config("tiny", sys.argv[2]), "tiny", "one", 2)
time.sleep(600)
"""
POISON = """
import os
if os.environ.get("RANK"):
    from mygpt2.train.step import Guard
    allows = Guard.allows
    Guard.allows = lambda self, step, loss, norm: allows(self, step, float("nan") if step == 12 else loss, norm)
"""
TOKEN = "hf_" + "k" * 34


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, an empty runs folder, and the environment that servers and runs get. Nothing is left behind."""
    top = tmp_path_factory.mktemp("jobs")
    source = harness.corpus(top / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        given = {**harness.environment(top / "cache"), "HF_TOKEN": TOKEN}
        for name in ("MYGPT2_CACHE", "OMP_NUM_THREADS", "PYTHONPATH", "HF_TOKEN"):
            patch.setenv(name, given[name])
        yield top, source
    for run in list_runs(top / "runs"):
        for rank in rank_states(run):
            for process in (rank.launcher, rank.process):
                if process:
                    process.send(signal.SIGKILL)


@pytest.fixture(scope="module")
def config(place):
    settings = {**harness.SETTINGS, "data.source": str(place[1]), "train.steps": 100_000, "eval.interval": 0}
    return load_config("tiny", None, settings)


@pytest.fixture(scope="module")
def jobs(place):
    jobs = Jobs(place[0] / "runs", ["cpu"])
    yield jobs
    jobs.close()


@pytest.fixture
def run(jobs):
    return RunDir(jobs.runs / "one")


def goes_on(run, steps=5):
    before = harness.last_step(run.path)
    until(lambda: harness.last_step(run.path) >= before + steps, 120)


def crew(run):
    """Launcher and ranks as processes."""
    ranks = rank_states(run)
    return [p for p in (ranks[0].launcher, *(rank.process for rank in ranks)) if p and p.alive()]


def stopped(jobs, run, how):
    """What a stop reported, once it is over and nobody is left within five seconds."""
    everyone = crew(run)
    assert len(everyone) == 3
    stop = jobs.stop(run.name, how)
    assert stop.wait(120) and stop.stopped, stop.lines
    until(lambda: not any(process.alive() for process in everyone), 5)
    assert json.loads(run.status_file.read_text())["state"] == "stopped" == state_of(run).state
    return {outcome.who: outcome.result for outcome in stop.outcomes}


def test_a_run_outlives_the_server_that_started_it_and_is_found_by_the_next(place, config, jobs, run):
    from mygpt2.config import to_toml

    (place[0] / "config.toml").write_text(to_toml(config))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(jobs.runs), str(place[0] / "config.toml")])
    try:
        until(lambda: harness.last_step(run.path) >= 10, 120)
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    goes_on(run)
    began = time.monotonic()
    jobs.start()
    (job,) = jobs.queue()
    assert jobs.owner and (job.run, job.state) == ("one", "running") and job.launcher.alive()
    assert state_of(run).alive and time.monotonic() - began < 5
    assert job.spec.config_hash == config_hash(load_config(None, run.config_file)) == config_hash(config)


def test_a_killed_rank_is_told_and_the_run_goes_on_by_itself(jobs, run):
    os.kill(harness.rank_pids(run.path)[1], signal.SIGKILL)
    until(lambda: jobs.alerts("one"))
    (alert,) = jobs.alerts("one")
    assert (alert.kind, alert.text) == ("crash", "rank 1 was killed by SIGKILL")
    assert alert.step and 1 < len(alert.log_tail) <= 41
    goes_on(run)
    assert len(jobs.alerts("one")) == 1 and jobs.queue()[0].launches == 1


def test_stop_and_save_ends_everybody_and_the_job_with_it(jobs, run):
    said = stopped(jobs, run, "save")
    assert said == dict.fromkeys(("launcher", "rank 0", "rank 1"), "ended as asked")
    until(lambda: not jobs.queue())
    job = jobs.history()[0]
    assert (job.state, job.code) == ("stopped", 85)
    step = json.loads(run.status_file.read_text())["step"]
    assert (run.checkpoints_dir / f"step-{step:08d}" / "MANIFEST.json").exists()


def test_a_run_started_from_a_terminal_is_stopped_now_like_any_other(jobs, run, place):
    words = [sys.executable, "-m", "mygpt2.launch", "--nproc", "2", "--runs", str(jobs.runs), "--run", "one"]
    with open(place[0] / "terminal", "wb") as log:
        terminal = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    goes_on(run)
    with pytest.raises(UserError, match="at work already"):
        jobs.resume_run("one")
    said = stopped(jobs, run, "now")
    assert said == dict.fromkeys(("launcher", "rank 0", "rank 1"), "ended after SIGTERM")
    assert terminal.wait(10) == 85


def test_a_value_that_is_not_finite_pauses_the_run_with_a_good_checkpoint(jobs, config, place, monkeypatch):
    poison = place[0] / "poison"
    poison.mkdir()
    (poison / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", f"{poison}{os.pathsep}{os.environ['PYTHONPATH']}")
    submit_config(jobs, config, "tiny", "two", 2)
    until(lambda: not jobs.queue() and jobs.alerts("two"), 120)
    assert jobs.history()[0].launches == 1
    (alert,) = jobs.alerts("two")
    assert alert.kind == "nonfinite" and "step 12" in alert.text
    assert "the checkpoint of step 12 is whole and good to go on from" in alert.text
    run = RunDir(jobs.runs / "two")
    assert state_of(run).state == "failed" and len(list(run.attempts_dir.iterdir())) == 1


def test_a_resumed_run_goes_on_and_is_killed_with_every_rank_and_its_folder_says_so(jobs):
    run = RunDir(jobs.runs / "two")
    assert jobs.resume_run("two").spec.config_hash == jobs.history()[0].spec.config_hash
    goes_on(run)
    assert state_of(run).status["attempt"] == 2 and harness.last_step(run.path) > 12
    said = stopped(jobs, run, "kill")
    assert said == dict.fromkeys(("launcher", "rank 0", "rank 1"), "killed")
    until(lambda: not jobs.queue())
    assert jobs.history()[0].state == "stopped"
    assert "killed on request" in state_of(run).reason
    assert [alert.kind for alert in jobs.alerts("two")] == ["nonfinite"], "what was asked for is not a crash"


def test_the_hubs_token_is_in_no_file_and_no_command_line(place):
    found = [path for path in place[0].rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert found == []
