"""Three ways to stop, on stand-ins for ranks: what is reported of each, and that nobody is left."""

import json
import signal

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import Process, RunDir, RunLock, RunWriter, state_of, write_queued
from mygpt2.run_dir.background_stop import BackgroundStop
from mygpt2.run_dir.stop import KILLED
from tests.run_dir.processes import DEAF, OBEDIENT, POLITE, record_rank, running
from workbench.jobs.ending import how_it_ended


@pytest.fixture
def run(tmp_path):
    return RunDir.create(tmp_path / "runs", "one")


def at_work(run, *pids, launcher=None, step=3):
    """A run folder as its trainer would have left it at this moment."""
    writer = RunWriter(run, 1)
    writer.status(state="running", phase="training", step=step)
    for rank, pid in enumerate(pids):
        record_rank(run, rank, pid, launcher=launcher)


def ended(stop):
    assert stop.start().wait(60)
    return {outcome.who: outcome.result for outcome in stop.outcomes}


def test_save_waits_for_those_who_listen_and_says_how_each_ended(run):
    listens = str(run.control_dir / "stop")
    with running(POLITE, listens) as zero, running(POLITE, listens) as one:
        at_work(run, zero.pid, one.pid)
        stop = BackgroundStop(run, "save")
        assert ended(stop) == {"rank 0": "ended as asked", "rank 1": "ended as asked"}
    assert stop.stopped and any("asked to finish the step" in line for line in stop.lines)
    assert not (run.control_dir / "stop").exists()


def test_now_ends_the_deaf_by_force_after_the_grace(run):
    with running(OBEDIENT) as zero, running(DEAF) as one:
        at_work(run, zero.pid, one.pid)
        stop = BackgroundStop(run, "now", grace=0.5)
        assert ended(stop) == {"rank 0": "ended after SIGTERM", "rank 1": "killed"}
        assert stop.stopped and one.wait(5) == -signal.SIGKILL


def test_kill_ends_the_launcher_and_every_rank_and_writes_that_down(run):
    with running(DEAF) as launcher, running(DEAF) as zero, running(DEAF) as one:
        at_work(run, zero.pid, one.pid, launcher=launcher.pid)
        stop = BackgroundStop(run, "kill")
        assert ended(stop) == {"launcher": "killed", "rank 0": "killed", "rank 1": "killed"}
    assert stop.stopped
    status, record = (json.loads(path.read_text()) for path in (run.status_file, run.exit_file))
    assert (status["state"], status["step"], record["state"], record["code"]) == ("stopped", 3, "stopped", KILLED)
    assert state_of(run).state == "stopped"
    assert how_it_ended(run, 0, -9, run.log_file(0)).state == "stopped"


def test_kill_reaches_those_who_are_recorded_nowhere(run):
    """A rank that has not written its record yet: the launcher's child, or one that only the job's mark gives away."""
    with running(DEAF) as launcher, running(DEAF) as stray:
        at_work(run)
        found = (Process.of(launcher.pid), [Process.of(stray.pid)])
        stop = BackgroundStop(run, "kill", lambda: found)
        assert ended(stop) == {"launcher": "killed", "helper process": "killed"}
        assert stray.wait(5) == -signal.SIGKILL


def test_a_reused_pid_is_never_signalled(run):
    with running(DEAF) as bystander, running(DEAF) as rank:
        at_work(run, rank.pid)
        record_rank(run, 1, bystander.pid, start="another boot:1")
        stop = BackgroundStop(run, "kill")
        assert ended(stop) == {"rank 0": "killed", "rank 1": "was gone already"}
        assert bystander.poll() is None


def test_a_launcher_without_a_rank_yet_is_ended_by_a_signal(run):
    """A control file would be cleared by the attempt that is about to begin."""
    write_queued(run)
    with running(OBEDIENT) as launcher:
        stop = BackgroundStop(run, "save", lambda: (Process.of(launcher.pid), []))
        assert ended(stop) == {"launcher": "ended after SIGTERM"}
    assert stop.stopped and stop.report.final.state == "stopped", "no longer queued"


def test_a_new_attempt_is_asked_again(run):
    """The launcher restarted its ranks just as the stop was asked for: the new attempt cleared the request."""
    code = (
        "import os, sys, time; stop = sys.argv[1]; print(flush=True)\n"
        "while not os.path.exists(stop): time.sleep(0.01)\n"
        "os.unlink(stop); open(sys.argv[2], 'w').close()\n"
        "while not os.path.exists(stop): time.sleep(0.01)\n"
    )
    forgot = run.path / "forgot"
    with running(code, str(run.control_dir / "stop"), str(forgot)) as rank:
        at_work(run, rank.pid)
        stop = BackgroundStop(run, "save").start()
        while not forgot.exists():
            assert not stop.wait(0.02)
        status = json.loads(run.status_file.read_text())
        run.status_file.write_text(json.dumps({**status, "attempt": 2}))
        record_rank(run, 0, rank.pid, attempt=2)
        assert stop.wait(60) and stop.stopped


def test_a_run_that_has_ended_is_only_reported(run):
    with RunLock(run), RunWriter(run, 1) as writer:
        writer.finish("finished", 0, "finished")
    for how in ("save", "now", "kill"):
        stop = BackgroundStop(run, how)
        assert ended(stop) == {} and stop.report.final.state == "finished" and stop.stopped


def test_a_rank_of_another_machine_is_said_to_be_out_of_reach(run):
    with running(DEAF) as rank:
        at_work(run, rank.pid)
        record_rank(run, 1, rank.pid, host="elsewhere")
        stop = BackgroundStop(run, "kill")
        ended(stop)
    assert any("rank 1 is on elsewhere" in line for line in stop.lines)
    assert not run.exit_file.exists(), "what another machine does is not for this one to write down"


def test_an_unknown_way_to_stop_is_refused(run):
    with pytest.raises(UserError, match="allowed: save, now, kill"):
        BackgroundStop(run, "gently")  # type: ignore[arg-type]


@pytest.mark.parametrize("said", [{"state": "finished"}, {"state": "queued"}, {"state": 7}, {"attempt": 9}, None])
@pytest.mark.parametrize("how", ["save", "now", "kill"])
def test_a_run_whose_status_is_wrong_is_stopped_all_the_same(run, said, how):
    """It was "not running", and trained on."""
    from workbench.tabs.monitor.view import buttons

    listens = str(run.control_dir / "stop")
    with running(POLITE, listens) as zero:
        at_work(run, zero.pid)
        record = json.loads(run.status_file.read_text())
        run.status_file.write_text("{" if said is None else json.dumps({**record, **said}))
        allowed = buttons(state_of(run), read_only=False)
        assert allowed["stop"] and allowed["kill"] and not allowed["resume"]
        stop = BackgroundStop(run, how, grace=30.0)
        assert stop.start().wait(60) and stop.stopped
        zero.wait(60)


def test_a_kill_of_a_run_whose_processes_had_died_writes_that_down(run):
    with running() as zero:
        at_work(run, zero.pid)
    stop = BackgroundStop(run, "kill")
    assert ended(stop) == {"rank 0": "was gone already"} and stop.stopped
    assert json.loads(run.exit_file.read_text())["code"] == KILLED


def test_what_the_processes_started_is_ended_with_them_and_told_only_if_it_had_to_be(run):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with running(code) as zero:
        at_work(run, zero.pid)
        stop = BackgroundStop(run, "now", grace=5.0)
        assert ended(stop) == {"rank 0": "ended after SIGTERM", "helper process": "ended after SIGTERM"}
    assert stop.stopped
