"""One trainer per folder, and a stop that accounts for every process."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import ControlFiles, Process, RunDir, RunLock, RunWriter, read_records, state_of, stop
from mygpt2.run_dir.lock import PATIENCE_SECONDS, Claims
from mygpt2.run_dir.writer import FolderLost
from tests.run_dir.processes import DEAF, OBEDIENT, POLITE, Clock, record_rank, running

HOLD_LOCK = """
import sys, time
from pathlib import Path
from mygpt2.run_dir import RunDir, RunLock
lock = RunLock(RunDir(Path(sys.argv[1]))).acquire()
print(flush=True)
time.sleep(600)
"""


def begin(run, attempt=1):
    writer = RunWriter(run, attempt)
    writer.status(state="running", phase="training", step=5, steps=10)
    writer.close()


def test_a_second_trainer_is_refused_by_the_owners_pid_until_the_owner_dies(run):
    owner = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(run.path)], stdout=subprocess.PIPE)
    try:
        assert owner.stdout and owner.stdout.readline()
        clock = Clock()
        with pytest.raises(UserError, match=f"'one' is being written by process {owner.pid} on .*runs stop one.*--run"):
            RunLock(run).acquire(clock=clock, sleep=clock.sleep)
        assert clock.now >= 1000 + PATIENCE_SECONDS, "an attempt that is just ending is given some seconds"
    finally:
        owner.kill()
        owner.communicate()
    with RunLock(run).acquire(patience=0):
        pass


def test_the_lock_is_free_again_after_release(run):
    lock = RunLock(run).acquire(patience=0)
    with pytest.raises(UserError):
        RunLock(run).acquire(patience=0)
    lock.release()
    lock.release()
    RunLock(run).acquire(patience=0).release()


def test_ranks_that_outlive_their_rank_0_are_waited_for(run):
    with running() as orphan:
        record_rank(run, 1, orphan.pid)
        clock = Clock()
        with pytest.raises(UserError, match=f"process {orphan.pid} \\(rank 1\\)"):
            RunLock(run).acquire(clock=clock, sleep=clock.sleep)

        def sleep(seconds: float) -> None:
            orphan.kill()
            orphan.wait()

        RunLock(run).acquire(sleep=sleep).release()


def test_a_folder_one_may_not_write_is_the_users_error(run):
    run.lock_file.mkdir()
    with pytest.raises(UserError, match="cannot write in"):
        RunLock(run).acquire()


def test_a_polite_run_ends_as_asked(run):
    begin(run)
    with running(POLITE, str(run.control_dir / "stop")) as rank:
        record_rank(run, 0, rank.pid)
        seen = []
        report = stop(run, on_progress=lambda state: seen.append(state.state))
        assert [(o.who, o.pid, o.result) for o in report.outcomes] == [("rank 0", rank.pid, "ended as asked")]
        assert report.stopped and ControlFiles(run).poll() == set()


def test_a_run_that_does_not_listen_is_still_running_after_the_patience(run):
    begin(run)
    with running() as rank:
        record_rank(run, 0, rank.pid)
        clock = Clock()
        report = stop(run, patience=5, clock=clock, sleep=clock.sleep)
        assert [o.result for o in report.outcomes] == ["still running"] and not report.stopped
        assert ControlFiles(run).poll() == {"stop"}


def test_now_sends_sigterm_and_then_kills_the_deaf(run):
    begin(run)
    with running(OBEDIENT) as obedient, running(DEAF) as deaf:
        record_rank(run, 0, obedient.pid)
        record_rank(run, 1, deaf.pid)
        report = stop(run, "now", grace=1)
        assert {o.who: o.result for o in report.outcomes} == {"rank 0": "ended after SIGTERM", "rank 1": "killed"}
        assert report.stopped and obedient.wait() == -signal.SIGTERM and deaf.wait() == -signal.SIGKILL


def test_a_living_launcher_gets_the_sigterm_alone_and_everything_left_is_killed(run):
    begin(run)
    with running() as launcher, running() as rank:
        record_rank(run, 0, rank.pid, launcher=launcher.pid)
        clock = Clock()

        def sleep(seconds: float) -> None:
            clock.sleep(seconds)
            launcher.poll()
            if clock.now > 1060.1:  # the grace is over and it was killed
                rank.wait(timeout=20)

        report = stop(run, "now", clock=clock, sleep=sleep)
        assert {o.who: o.result for o in report.outcomes} == {"launcher": "ended after SIGTERM", "rank 0": "killed"}
        assert rank.wait() == -signal.SIGKILL


def test_a_reused_pid_is_never_signalled(run):
    begin(run)
    with running() as innocent:
        record_rank(run, 0, innocent.pid, start="another boot:7")
        report = stop(run, "now", grace=0)
        assert [o.result for o in report.outcomes] == ["was gone already"] and innocent.poll() is None
        assert not Process(innocent.pid, "another boot:7", Process.current().host).send(signal.SIGKILL)
        assert innocent.poll() is None


def test_a_run_of_another_machine_is_asked_and_reported_as_such(run):
    begin(run)
    with running() as rank:
        record_rank(run, 0, rank.pid, host="elsewhere")
        clock = Clock()
        report = stop(run, "now", grace=3, clock=clock, sleep=clock.sleep)
        assert "on elsewhere: not visible from here" in report.outcomes[0].result and not report.stopped
        assert rank.poll() is None and ControlFiles(run).poll() == {"stop"}


def test_a_finished_run_is_left_alone(run):
    with RunWriter(run, 1) as writer:
        writer.finish("finished", 0)
    report = stop(run)
    assert report.stopped and report.final.state == "finished" and ControlFiles(run).poll() == set()
    assert state_of(run).state == "finished"


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without locks, as some network ones are."""

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("mygpt2.run_dir.lock.fcntl.flock", refuse)


def test_without_flock_one_of_many_gets_the_folder(run, no_flock):
    ready, winners = threading.Barrier(8), []

    def launch():
        ready.wait()
        with contextlib.suppress(UserError):
            winners.append(RunLock(run).acquire(patience=0))

    threads = [threading.Thread(target=launch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    with pytest.raises(UserError, match=f"by process {os.getpid()} on"):
        RunLock(run).acquire(patience=0)
    winners[0].release()
    with RunLock(run).acquire(patience=0), pytest.raises(UserError):
        RunLock(run).acquire(patience=0)


def test_without_flock_the_folder_of_a_dead_owner_goes_to_one_of_many(run, no_flock):
    with running() as owner:
        dead = Process.of(owner.pid)
    (run.path / ".claim-3").write_text(json.dumps(dead.to_json()))
    first, second = RunLock(run).acquire(patience=0), RunLock(run)
    with pytest.raises(UserError):
        second.acquire(patience=0)
    assert run.names(run.path).count(".claim-4") == 1 and ".claim-3" not in run.names(run.path)
    first.release()
    second.acquire(patience=0).release()


def test_without_flock_who_comes_late_finds_the_higher_claim(run, no_flock, monkeypatch):
    """Between looking for the highest number and making the next one a whole run may have come and gone."""
    late, seen = Claims(run, Process.current()), []
    numbers = Claims._numbers

    def and_then_others_ran(self):
        found = numbers(self)
        if not seen:
            seen.append(True)
            RunLock(run).acquire(patience=0).release()
            (run.path / ".claim-1").unlink()
            (run.path / ".claim-2").write_text(json.dumps(Process.current().to_json()))
        return found

    monkeypatch.setattr(Claims, "_numbers", and_then_others_ran)
    assert late.owner() == Process.current(), "the other has the folder"


@pytest.mark.parametrize("another", [True, False])
def test_a_folder_that_is_moved_while_it_is_written_ends_the_run_and_nothing_lands_in_another_one(run, another):
    lock = RunLock(run).acquire()
    writer = RunWriter(run, 1, lock=lock)
    writer.metrics(step=1)
    moved = RunDir(run.path.rename(run.path.with_name("moved")))
    if another:
        RunDir.create(run.path.parent, run.name)
        RunLock(run).acquire().release()
        before = sorted(p for p in run.path.rglob("*"))
    with pytest.raises(FolderLost, match="was moved or deleted while it trained"):
        writer.metrics(step=2)
    with pytest.raises(FolderLost):
        writer.status(step=2)
    writer._write_status()
    writer.finish("failed", 2, "moved")
    assert [row["step"] for row in read_records(moved.metrics_file)] == [1]
    assert read_records(moved.events_file)[-1]["message"] == "moved"
    assert not run.path.exists() if not another else sorted(p for p in run.path.rglob("*")) == before
    lock.release()
