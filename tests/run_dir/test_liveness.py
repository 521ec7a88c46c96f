"""Whether a run is alive is decided by its processes, not by what its status says."""

import os
import signal
import socket

import pytest

from mygpt2.files import read_json, replace_json
from mygpt2.run_dir import Process, RunWriter, state_of, write_queued
from mygpt2.run_dir.liveness import FRESH_SECONDS, STARTING_SECONDS
from mygpt2.run_dir.process import start_of
from tests.run_dir.processes import record_rank, running


def begin(run, attempt=1, state="running"):
    writer = RunWriter(run, attempt)
    writer.status(state=state, phase="training", step=5, steps=10)
    writer.close()


@pytest.mark.parametrize("state", ["starting", "running", "saving"])
def test_a_run_is_alive_while_its_process_is(run, state):
    begin(run, state=state)
    with running() as rank:
        record_rank(run, 0, rank.pid)
        found = state_of(run)
        assert found.state == state and found.alive and [p.pid for p in found.processes] == [rank.pid]
    found = state_of(run)
    assert found.state == "lost" and not found.alive and not found.processes
    assert f"rank 0 (pid {rank.pid}) is gone" in found.reason


def test_a_reused_pid_is_not_the_rank(run):
    begin(run)
    with running() as other:
        record_rank(run, 0, other.pid, start="another boot:1")
        assert state_of(run).state == "lost"


def test_a_zombie_is_gone(run):
    begin(run)
    with running() as rank:
        record_rank(run, 0, rank.pid)
        rank.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, rank.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has collected it
        assert start_of(rank.pid) is None and state_of(run).state == "lost"


def test_a_living_process_without_heartbeat_is_lost_but_shown(run):
    begin(run)
    with running() as rank:
        record_rank(run, 0, rank.pid)
        now = (read_json(run.status_file) or {})["heartbeat"]
        assert state_of(run, now=now + FRESH_SECONDS - 1).state == "running"
        late = state_of(run, now=now + FRESH_SECONDS + 10)
        assert late.state == "lost" and "no sign of life for" in late.reason and late.processes


def test_touching_the_status_is_a_heartbeat_for_a_full_disk(run):
    begin(run)
    with running() as rank:
        record_rank(run, 0, rank.pid)
        later = (read_json(run.status_file) or {})["heartbeat"] + 1000
        os.utime(run.status_file, (later, later))
        assert state_of(run, now=later + 1).state == "running"


def test_one_dead_rank_of_two_is_named(run):
    begin(run)
    with running() as rank:
        record_rank(run, 0, rank.pid)
        record_rank(run, 1, rank.pid, start="gone")
        found = state_of(run)
        assert found.state == "running" and "rank 1" in found.reason
        assert [r.alive for r in found.ranks] == [True, False]


def test_ranks_of_earlier_attempts_do_not_keep_a_run_alive_nor_kill_it(run):
    begin(run, attempt=2)
    with running() as rank:
        record_rank(run, 1, rank.pid, attempt=1)
        record_rank(run, 0, rank.pid, attempt=2, start="gone")
        assert state_of(run).state == "lost"
        record_rank(run, 0, rank.pid, attempt=2)
        record_rank(run, 1, rank.pid, attempt=1, start="gone")
        assert state_of(run).state == "running"


def test_another_machines_run_is_judged_by_its_heartbeat_alone(run):
    begin(run)
    with running() as rank:
        record_rank(run, 0, rank.pid, host="elsewhere", start="x")
        now = (read_json(run.status_file) or {})["heartbeat"]
        found = state_of(run, now=now + 1)
        assert found.state == "running" and found.ranks[0].alive is None and not found.processes
        assert state_of(run, now=now + FRESH_SECONDS + 10).state == "lost"


def test_a_heartbeat_of_the_days_to_come_keeps_no_run_alive(run):
    begin(run)
    status = read_json(run.status_file) or {}
    with running() as rank:
        record_rank(run, 0, rank.pid, host="elsewhere", start="x")
        now = status["heartbeat"]
        replace_json(run.status_file, {**status, "heartbeat": now + 1e8})
        os.utime(run.status_file, (now + 1e8, now + 1e8))
        assert state_of(run, now=now).state == "lost"
        replace_json(run.status_file, {**status, "heartbeat": now + 3600})  # the other machine's clock is ahead
        assert state_of(run, now=now).state == "running"


def test_starting_before_any_rank_is_recorded_has_a_longer_grace(run):
    begin(run, state="starting")
    now = (read_json(run.status_file) or {})["heartbeat"]
    assert state_of(run, now=now + FRESH_SECONDS + 10).state == "starting"
    assert state_of(run, now=now + STARTING_SECONDS + 10).state == "lost"


@pytest.mark.parametrize("state, code", [("finished", 0), ("stopped", 85), ("failed", 70)])
def test_an_end_is_believed_for_ever(run, state, code):
    with RunWriter(run, 1) as writer:
        writer.finish(state, code, "why")
    found = state_of(run, now=9e9)
    assert found.state == state and found.reason == "why" and (found.exit or {})["code"] == code


def test_the_exit_of_an_earlier_attempt_does_not_end_a_later_one(run):
    with RunWriter(run, 1) as writer:
        writer.finish("stopped", 85)
    ended = read_json(run.exit_file) or {}
    begin(run, attempt=2)
    replace_json(run.exit_file, ended)
    with running() as rank:
        record_rank(run, 0, rank.pid, attempt=2)
        assert state_of(run).state == "running"
    write_queued(run)
    assert state_of(run).state == "queued"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"state": 3}', b'{"state": "running", "heartbeat": "x"}'])
def test_damaged_files_never_raise(run, raw):
    run.status_file.write_bytes(raw)
    run.exit_file.write_bytes(raw)
    run.rank_file(0).write_bytes(raw)
    os.utime(run.status_file, (1, 1))
    assert state_of(run).state == "lost"


def test_this_process_is_itself_and_no_other():
    me = Process.current()
    assert me.alive() and me.local and me.pid == os.getpid() and me.host == socket.gethostname()
    assert Process.from_json(me.to_json()) == me
    assert Process.of(2**22 + 1) is None
    unnamed = {"start": "", "host": ""}
    damaged: list = [None, {}, [], {"pid": "x", **unnamed}, {"pid": 1, **unnamed}, {"pid": -1, **unnamed}]
    for record in damaged:
        assert Process.from_json(record) is None


def test_the_portable_start_time_is_stable_too():
    from mygpt2.run_dir.process import _start_portable

    with running() as process:
        assert _start_portable(process.pid) == _start_portable(process.pid) is not None
    assert _start_portable(process.pid) is None
