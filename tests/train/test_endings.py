"""Ends that nobody plans: a stop while it starts, a full disk, a console that has gone, a thread that hangs."""

import errno
import json
import os
import signal
import threading
import time

import pytest

from mygpt2.checkpoint import FileSystem
from mygpt2.data.trace import TraceWriter
from mygpt2.errors import TryAgain, UserError
from mygpt2.orphans import STARTED
from mygpt2.run_dir import RunDir, RunWriter, read_events
from mygpt2.run_dir import writer as run_writer
from mygpt2.train import attempt, setup
from tests.train.test_attempt import at_step, cache, poison, source, train  # noqa: F401 (fixtures)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def quick(train):  # noqa: F811
    """`train` without what these tests do not look at."""

    def go(name="run", **changes):
        return train(name, **{"sample__prompts": [], "data__validation_fraction": 0.0, "steps": 6, **changes})

    go.runs = train.runs
    return go


def record(folder, name):
    return json.loads((folder / name).read_text())


def full(*_, **__):
    raise FULL


# Stops while it starts


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "control file"])
def test_a_stop_while_the_run_is_built_ends_it_at_once_as_stopped(quick, monkeypatch, how):
    folder = quick.runs / "run"

    def built(*_):
        if how == "control file":
            (folder / "control" / "stop").touch()
            threading.Event().wait(60)  # what a download would do
        os.kill(os.getpid(), getattr(signal, how))
        raise AssertionError("not reached")

    monkeypatch.setattr(setup, "_data", built)
    monkeypatch.setattr(attempt, "CONTROL_S", 0.01)
    assert quick() == 85
    assert (record(folder, "exit.json")["code"], record(folder, "status.json")["state"]) == (85, "stopped")
    assert record(folder, "exit.json")["asked"] == ("folder" if how == "control file" else "signal")
    assert not list((folder / "control").iterdir())


@pytest.mark.parametrize("asked, code", [("before the start", 0), ("between a crash and the restart", 85)])
def test_only_a_stop_that_was_asked_since_the_start_is_meant_for_it(quick, monkeypatch, asked, code):
    assert quick(steps=3) == 0
    (quick.runs / "run" / "control" / "stop").touch()
    if code:
        monkeypatch.setenv(STARTED, repr(time.time() - 60))  # when the launcher was started, which restarts it now
    assert quick(steps=6) == code


# Full disks


def test_what_is_not_vital_may_fail_and_is_told(quick, monkeypatch, capsys):
    flush = TraceWriter.flush
    failing = [True]
    monkeypatch.setattr(TraceWriter, "flush", lambda self: full() if failing[0] else flush(self))
    monkeypatch.setattr("mygpt2.plots.draw_loss_plot", full)
    at_step(monkeypatch, 5, failing.clear)
    at_step(monkeypatch, 5, lambda: failing.append(False))
    assert quick(plot=True, log__plot_interval=2) == 0
    told = [event["message"] for event in read_events(RunDir(quick.runs / "run"), ["alert"])]
    assert sum("the trace cannot be written just now: No space left" in message for message in told) == 1
    assert any("loss_plot.png could not be written" in message for message in told)
    assert "training goes on" in capsys.readouterr().out
    assert list((quick.runs / "run" / "trace").glob("*-step-00000001-*.parquet")), "the rows waited for room"


def test_a_nan_on_a_full_disk_is_still_told_in_exit_json_so_that_no_restart_meets_it_again(quick, monkeypatch, capsys):
    poison(monkeypatch, 3)
    monkeypatch.setattr(FileSystem, "free_bytes", lambda self, path: 1000)
    at_step(monkeypatch, 2, lambda: monkeypatch.setattr(run_writer, "replace_file", full))
    assert quick() == 70
    ended = record(quick.runs / "run", "exit.json")
    assert ended["code"] == 70 and ended["reason"].startswith("non-finite: ")
    assert "step 2 could not be saved (not enough space" in ended["reason"]
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("MYGPT2_RESTART", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert quick() == 70, "a restart sees it"


def test_exit_json_and_status_tell_the_end_though_the_disk_is_full(quick, monkeypatch):
    monkeypatch.setattr(FileSystem, "free_bytes", lambda self, path: 1000)

    def fill():
        monkeypatch.setattr(run_writer, "replace_file", full)
        monkeypatch.setattr(run_writer, "replace_json", full)

    at_step(monkeypatch, 4, fill)
    with pytest.raises(TryAgain, match="free some"):
        quick()
    ended, status = record(quick.runs / "run", "exit.json"), record(quick.runs / "run", "status.json")
    assert (ended["code"], ended["state"], status["state"]) == (75, "stopped", "stopped")
    assert "free some space" in ended["reason"] and status["message"] == ended["reason"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("where", ["_write_status", "config", "command"])
def test_a_disk_that_cannot_be_written_before_the_start_is_75_and_leaves_nothing(quick, monkeypatch, number, where):
    def sick(*_, **__):
        raise OSError(number, os.strerror(number))

    if where == "_write_status":
        monkeypatch.setattr(RunWriter, "__init__", sick)
    else:
        monkeypatch.setattr(RunWriter, where, sick)
    with pytest.raises(TryAgain, match=os.strerror(number)):
        quick()
    assert where != "_write_status" or not list(quick.runs.iterdir())


@pytest.mark.parametrize("part", ["write_rank", "logged"])
def test_a_rank_that_cannot_write_its_record_or_its_log_says_so(quick, monkeypatch, part):
    if part == "logged":
        monkeypatch.setattr("mygpt2.train.logs.open", full, raising=False)
    else:
        monkeypatch.setattr(attempt, part, full)
    with pytest.raises(TryAgain, match="No space left on device"):
        quick()
    assert record(quick.runs / "run", "exit.json")["code"] == 75


# Folders, trackers, threads


def test_a_run_whose_folder_is_deleted_ends_with_a_sentence_and_makes_no_other(quick, monkeypatch):
    import shutil

    at_step(monkeypatch, 3, lambda: shutil.rmtree(quick.runs / "run"))
    with pytest.raises(UserError, match="moved or deleted"):
        quick()
    assert not list(quick.runs.iterdir())


def test_a_tracker_that_fails_does_not_end_the_run(quick, monkeypatch, capsys):
    class Sick:
        def log(self, step, values):
            raise ConnectionError("the tracker's server answers 500")

        def close(self):
            raise AssertionError("it was given up")

    monkeypatch.setattr(setup, "open_sinks", lambda *_: [Sick()])
    assert quick() == 0
    assert capsys.readouterr().out.count("the tracker's server answers 500; training goes on") == 1


def test_threads_that_hang_in_the_network_do_not_hold_up_the_end(quick, monkeypatch):
    from mygpt2.data.loader import Loader

    waits = []

    class Hanging(threading.Thread):
        def join(self, timeout=None):
            waits.append(timeout)

    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    close = Loader.close

    def close_hanging(self):
        self._thread = Hanging()
        close(self)

    monkeypatch.setattr(Loader, "close", close_hanging)
    assert quick() == 85
    assert waits and None not in waits


def test_a_defect_as_the_end_is_written_down_is_a_failure_that_is_written_down(quick, monkeypatch, capsys):
    """The run seemed to train on, and the program to have ended well."""

    def broken(*_, **__):
        raise KeyError("state")

    monkeypatch.setattr(RunWriter, "finish", broken)
    assert quick() == 70
    folder = quick.runs / "run"
    ended, status = record(folder, "exit.json"), record(folder, "status.json")
    assert (ended["code"], ended["state"], status["state"]) == (70, "failed", "failed")
    assert "KeyError: 'state'" in ended["reason"] and "KeyError: 'state'" in capsys.readouterr().err
    assert "Traceback" in (folder / "logs" / "rank-0.log").read_text()


def test_a_failure_whose_end_cannot_be_written_down_keeps_its_sentence(quick, monkeypatch):
    def broken(*_, **__):
        raise KeyError("state")

    monkeypatch.setattr(RunWriter, "finish", broken)
    monkeypatch.setattr(attempt.Trainer, "fit", lambda self: (_ for _ in ()).throw(UserError("no such token")))
    with pytest.raises(UserError, match="no such token"):
        quick()
    folder = quick.runs / "run"
    assert (record(folder, "exit.json")["code"], record(folder, "status.json")["state"]) == (2, "failed")
    assert record(folder, "exit.json")["reason"] == "no such token"
