"""Real processes, small ones: started once, looked after, found again after the server died between any two calls."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import Process, RunDir, RunLock, RunWriter, state_of, write_rank
from tests.run_dir.processes import record_rank, running
from tests.workbench.jobs.helpers import ENDS, NOTE, WAITS, spec, starts, until
from workbench.jobs import Jobs, supervisor
from workbench.jobs.policy import FIRST_DELAY
from workbench.jobs.spawn import JOB, child_environment, marked, start_detached

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def jobs(tmp_path):
    """A server over an empty folder whose rounds the test calls itself; what it started is killed afterwards."""
    jobs = Jobs(tmp_path / "runs", ["cpu"])
    jobs.store.prepare()
    yield jobs
    jobs.close()
    for job in [*jobs.store.active(), *jobs.store.ended()]:
        for process in marked(JOB, job.id):
            process.send(signal.SIGKILL)


@pytest.fixture
def tick(jobs):
    return jobs._supervisor.tick


def finish(jobs, tick):
    """Rounds until nothing is left in the queue."""

    def over():
        tick()
        return not jobs.queue()

    until(over)


def states(jobs):
    return {job.run: job.state for job in [*jobs.history(), *jobs.queue()]}


def test_three_on_one_slot_the_first_failing_the_others_run_one_after_the_other(jobs, tick, tmp_path):
    note = tmp_path / "note"
    for name, code in (("a", 2), ("b", 0), ("c", 0)):
        overlaps = f"import os, sys; os.mkdir({str(tmp_path / 'only one')!r}); "
        leaves = f"os.rmdir({str(tmp_path / 'only one')!r}); "
        jobs.submit(spec(name, overlaps + NOTE + leaves + "sys.exit(int(sys.argv[2]))", note, code))
    finish(jobs, tick)
    assert states(jobs) == {"a": "failed", "b": "finished", "c": "finished"}
    assert starts(note) == 3 and state_of(RunDir(jobs.runs / "a")).state == "failed"


def test_a_paused_queue_starts_nothing_and_goes_on_later(jobs, tick, tmp_path):
    jobs.pause()
    jobs.submit(spec("a", ENDS, tmp_path / "note", 0))
    tick()
    assert states(jobs) == {"a": "queued"}
    jobs.resume()
    finish(jobs, tick)
    assert starts(tmp_path / "note") == 1


def test_why_a_run_could_not_start_is_told_in_its_own_words(jobs, tick):
    jobs.submit(spec("a", "import sys; print('error: no such preset'); sys.exit(2)"))
    finish(jobs, tick)
    assert jobs.history()[0].reason == "no such preset"
    (alert,) = jobs.alerts("a")
    assert alert.kind == "failed" and "no such preset" in alert.text
    assert state_of(RunDir(jobs.runs / "a")).status["message"] == "no such preset"


def test_a_command_that_does_not_exist_fails_and_says_so(jobs, tick):
    jobs.submit(replace(spec("a"), argv=("/does/not/exist",)))
    finish(jobs, tick)
    assert states(jobs) == {"a": "failed"} and "No such file" in jobs.history()[0].reason


def test_a_run_started_elsewhere_meanwhile_is_not_started_twice(jobs, tick, tmp_path):
    jobs.submit(spec("a", ENDS, tmp_path / "note", 0))
    run = RunDir(jobs.runs / "a")
    with RunLock(run), RunWriter(run, 1) as writer:
        write_rank(run, 0, world_size=1, device="cpu", attempt=1)
        writer.status(state="running")
        finish(jobs, tick)
    assert starts(tmp_path / "note") == 0 and "at work already" in jobs.history()[0].reason


def test_the_child_holds_nothing_of_the_server(jobs, tick, tmp_path, monkeypatch):
    """Its own session, no terminal, three descriptors, no secret but the hub's, which is nowhere in a file."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "z" * 30)
    monkeypatch.setenv("GRADIO_PASSWORD", "12345678")
    out = tmp_path / "child"
    code = (
        "import os, sys; out = open(sys.argv[1], 'w'); fds = os.listdir('/proc/self/fd');"
        "print(os.getsid(0) == os.getpid(), sorted(map(int, fds))[:5], os.readlink('/proc/self/fd/0'),"
        "'HF_TOKEN' in os.environ, 'GRADIO_PASSWORD' in os.environ, file=out)"
    )
    with open(tmp_path / "open in the server", "w") as held:
        os.set_inheritable(held.fileno(), True)
        jobs.submit(spec("a", code, out))
        finish(jobs, tick)
    # 3 is the file it writes to and 4 the folder it lists.
    assert out.read_text().strip() == "True [0, 1, 2, 3, 4] /dev/null True False"
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hf_zzz" in p.read_bytes()]


def test_a_dead_launcher_is_started_again_after_a_while_and_given_up_in_the_end(tmp_path):
    clock = [1000.0]
    jobs = Jobs(tmp_path / "runs", ["cpu"])
    jobs._supervisor.now = lambda: clock[0]
    jobs.store.prepare()
    jobs.submit(spec("a", NOTE + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "note"))

    def one_life():
        before = jobs.job_of("a").launches
        jobs._supervisor.tick()
        until(lambda: jobs._supervisor.tick() or jobs.job_of("a").state in ("waiting", "failed"))
        return jobs.job_of("a").launches - before

    assert one_life() == 1 and jobs.job_of("a").state == "waiting"
    assert jobs.job_of("a").not_before == clock[0] + FIRST_DELAY["died"]
    jobs._supervisor.tick()
    assert starts(tmp_path / "note") == 1, "not before its time"
    for _ in range(2):
        clock[0] += 3600
        assert one_life() == 1
    clock[0] += 3600
    jobs._supervisor.tick()
    assert starts(tmp_path / "note") == 3 and states(jobs) == {"a": "failed"}
    assert "given up" in jobs.history()[0].reason
    assert [alert.kind for alert in jobs.alerts("a")] == ["crash"] * 3
    jobs.close()


def test_a_job_of_another_machine_is_alive_as_long_as_its_heart_beats(jobs, tick, tmp_path):
    """A shared folder: the owner on that machine is gone, its run is not."""
    job = jobs.submit(spec("a", NOTE, tmp_path / "note"))
    run = RunDir(jobs.runs / "a")
    elsewhere = Process(4321, "x:1", "elsewhere")
    with jobs.store.locked():
        jobs.store.change(job.id, ("queued",), state="running", launcher=elsewhere, launches=1)
    with RunWriter(run, 1) as writer:
        writer.status(state="running")
        record_rank(run, 0, os.getpid(), host="elsewhere", start="x:2")
        tick()
        assert jobs.job_of("a").state == "running"
        writer.finish("finished", 0)
    tick()
    assert jobs.job_of("a").state == "finished" and starts(tmp_path / "note") == 0


def test_a_source_out_of_reach_is_waited_out_and_told(jobs, tick, tmp_path):
    jobs.submit(spec("a", "print('error: the source is out of reach'); raise SystemExit(75)", restarts=1))
    until(lambda: tick() or jobs.job_of("a").state == "waiting")
    assert jobs.job_of("a").not_before - jobs._supervisor.now() > 30
    (alert,) = jobs.alerts("a")
    assert (alert.kind, alert.level) == ("outage", "warning") and "started again in 60 s" in alert.text
    with jobs.store.locked():
        jobs.store.change(jobs.job_of("a").id, ("waiting",), not_before=0.0)
    until(lambda: tick() or jobs.job_of("a").state == "failed")
    assert jobs.alerts("a")[0].level == "error" and "given up" in jobs.alerts("a")[0].text


def test_a_server_that_restarts_finds_its_run_and_its_end(jobs, tick, tmp_path):
    jobs.submit(spec("a", WAITS, tmp_path / "note"))
    tick()
    until(lambda: starts(tmp_path / "note"))
    jobs.close()
    again = Jobs(jobs.runs, ["cpu"])
    again._supervisor.tick()
    (job,) = again.queue()
    assert job.state == "running" and job.launcher and job.launcher.alive()
    stop = again.stop("a", "now")
    assert stop.wait(30) and stop.stopped
    finish(again, again._supervisor.tick)
    assert states(again) == {"a": "stopped"} and starts(tmp_path / "note") == 1
    again.close()


SERVER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from workbench.jobs import Jobs
    from workbench.jobs import supervisor
    from workbench.jobs.store import Store

    runs, point = Path(sys.argv[1]), sys.argv[2]
    jobs = Jobs(runs, ["cpu"])
    start, change = supervisor.spawn.start_detached, Store.change

    def die_around_start(*arguments):
        if point == "before the start":
            os._exit(9)
        child = start(*arguments)
        if point == "after the start":
            os._exit(9)
        return child

    def die_around_change(self, id, states, **fields):
        if point == f"before {fields.get('state')}":
            os._exit(9)
        changed = change(self, id, states, **fields)
        if point == f"after {fields.get('state')}":
            os._exit(9)
        return changed

    supervisor.spawn.start_detached, Store.change = die_around_start, die_around_change
    jobs.store.prepare()
    jobs._supervisor.tick()
    os._exit(1)
""")


@pytest.mark.parametrize(
    "point",
    ["before claimed", "after claimed", "before the start", "after the start", "before running", "after running"],
)
def test_wherever_the_server_dies_the_run_is_started_exactly_once(jobs, tick, tmp_path, point):
    jobs.submit(spec("a", WAITS, tmp_path / "note"))
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    died = subprocess.run([sys.executable, "-c", SERVER, str(jobs.runs), point], env=environment, timeout=60)
    assert died.returncode == 9
    tick()
    (job,) = jobs.queue()
    assert job.state == "running" and job.launcher and job.launcher.alive()
    until(lambda: starts(tmp_path / "note"))
    tick()
    assert starts(tmp_path / "note") == 1 == len(marked(JOB, job.id)) and job.launches == 1


def test_a_claim_whose_command_ran_and_ended_unseen_is_judged_not_repeated(jobs, tick, tmp_path):
    """The server died after the start, and so did the run, before anybody wrote down who it was."""
    job = jobs.submit(spec("a", "print('error: it is full'); raise SystemExit(2)"))
    with jobs.store.locked():
        job = jobs.store.change(job.id, ("queued",), state="claimed", launches=1)
    environment = child_environment({JOB: job.id})
    start_detached(job.argv, jobs.store.log_file(job), environment, tmp_path).wait(30)
    tick()
    tick()
    assert jobs.job_of("a").state == "waiting" and jobs.job_of("a").launches == 1


@pytest.mark.parametrize("how", ["save", "now", "kill"])
def test_a_stop_between_the_claim_and_the_start_is_not_lost(jobs, tick, tmp_path, how, monkeypatch):
    jobs.submit(spec("a", WAITS, tmp_path / "note"))
    real = supervisor.spawn.start_detached

    def stopped_meanwhile(*arguments):
        assert jobs.stop("a", how).wait(30)
        return real(*arguments)

    monkeypatch.setattr(supervisor.spawn, "start_detached", stopped_meanwhile)
    finish(jobs, tick)
    assert states(jobs) == {"a": "stopped"} and jobs.history()[0].launches == 1


def test_a_run_is_asked_to_save_and_to_sample_only_while_it_is_at_work(jobs):
    run = RunDir.create(jobs.runs, "a")
    with RunLock(run), RunWriter(run, 1) as writer:
        write_rank(run, 0, world_size=1, device="cpu", attempt=1)
        writer.status(state="running")
        jobs.ask("a", "save")
        jobs.ask("a", "sample")
        assert {path.name for path in run.control_dir.iterdir()} == {"save", "sample"}
        with pytest.raises(UserError, match="allowed: save, sample"):
            jobs.ask("a", "stop")
        writer.finish("finished", 0)
    with pytest.raises(UserError, match="is finished"):
        jobs.ask("a", "save")


def test_of_two_servers_one_launches_and_the_other_takes_over_when_it_is_gone(jobs, tmp_path):
    jobs.start()
    other = Jobs(jobs.runs, ["cpu"])
    other.start()
    assert (jobs.owner, other.owner) == (True, False)
    other.submit(spec("a", ENDS, tmp_path / "note", 0))
    until(lambda: states(other) == {"a": "finished"})
    jobs.close()
    until(lambda: other.owner)
    other.submit(spec("b", ENDS, tmp_path / "note", 0))
    until(lambda: states(other) == {"a": "finished", "b": "finished"})
    assert starts(tmp_path / "note") == 2
    other.close()


def test_the_ownership_of_a_killed_server_is_free_at_once(tmp_path):
    runs = tmp_path / "runs"
    code = (
        "import sys, time; from pathlib import Path; from workbench.jobs import Jobs;"
        "jobs = Jobs(Path(sys.argv[1]), ['cpu']); jobs.start(); print(jobs.owner, flush=True); time.sleep(600)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(runs)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPO)}
    )
    assert server.stdout.readline() == b"True\n"
    jobs = Jobs(runs, ["cpu"])
    jobs.start()
    assert not jobs.owner
    server.kill()
    server.communicate()
    until(lambda: jobs.owner)
    jobs.close()


def test_ranks_that_outlive_their_launcher_are_ended_before_it_is_started_again(jobs, tick, tmp_path):
    clock = [1000.0]
    jobs._supervisor.now = lambda: clock[0]
    jobs.submit(spec("a", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    run = RunDir(jobs.runs / "a")
    with running() as rank:
        tick()
        with RunWriter(run, 1) as writer:
            writer.status(state="running")
        record_rank(run, 0, rank.pid)
        until(lambda: not jobs.job_of("a").launcher.alive())
        tick()
        assert jobs.job_of("a").state == "running" and psutil.pid_exists(rank.pid)
        clock[0] += 60
        tick()
        rank.wait(20)
    until(lambda: tick() or jobs.job_of("a").state == "waiting")


def test_an_error_in_one_round_does_not_end_supervision(jobs, tmp_path, monkeypatch):
    jobs.start()
    monkeypatch.setattr(jobs._supervisor._watch, "look", lambda: 1 / 0)
    jobs.submit(spec("a", ENDS, tmp_path / "note", 0))
    until(lambda: states(jobs) == {"a": "finished"})
    assert Process.current().alive()


def test_one_job_that_cannot_be_looked_after_stops_no_launch_of_another(jobs, tick, tmp_path, monkeypatch):
    jobs.slots = jobs._supervisor._slots = ("cpu", "cuda:0")
    jobs.submit(spec("bad", WAITS, tmp_path / "bad"))
    tick()
    jobs.submit(spec("good", ENDS, tmp_path / "good", 0, devices=("cuda:0",)))
    real = jobs._supervisor._look_after

    def broken(job):
        if job.run == "bad":
            raise RuntimeError("what nobody has thought of")
        real(job)

    monkeypatch.setattr(jobs._supervisor, "_look_after", broken)
    until(lambda: tick() or states(jobs)["good"] == "finished")
    assert states(jobs)["bad"] == "running"


DAMAGED = [
    {"order": 10**400}, {"launches": "x"}, {"created": float("nan")}, {"not_before": "z"}, {"started": []},
    {"best_step": None}, {"reason": 7}, {"spec": 3},
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_job_hides_no_other_and_stops_nothing(jobs, tick, tmp_path, damage):
    import json

    bad, _ = jobs.submit(spec("bad")), jobs.submit(spec("good", ENDS, tmp_path / "good", 0))
    file = jobs.store.jobs_dir / f"{bad.id}.json"
    file.write_text(json.dumps({**bad.to_json(), **damage}))
    finish(jobs, tick)
    assert states(jobs) == {"good": "finished"}
