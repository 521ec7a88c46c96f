"""Detached processes: what they are given, how they are found, and what can be read of them."""

import fcntl
import os
import signal
import threading

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import Process
from mygpt2.run_dir.process import descendants
from tests.run_dir.processes import running
from tests.workbench.jobs.helpers import PYTHON, until
from workbench.jobs import spawn
from workbench.jobs.devices import check_slots, default_slots, device_environment


def test_secrets_stay_behind_except_the_hubs():
    given = {
        "HF_TOKEN": "a", "WANDB_API_KEY": "b", "AWS_SECRET_ACCESS_KEY": "c", "MY_PASSWORD": "d", "PATH": "/bin",
        "TOKENIZERS_PARALLELISM": "false", "RANK": "1", "TORCHELASTIC_RUN_ID": "x", "GRADIO_SHARE": "1",
    }  # fmt: skip
    kept = spawn.child_environment({"MYGPT2_JOB": "1"}, environ=given)
    assert set(kept) == {
        "HF_TOKEN", "PATH", "TOKENIZERS_PARALLELISM", "MYGPT2_JOB", "PYTHONPATH", "PYTHONUNBUFFERED",
    }  # fmt: skip
    assert "WANDB_API_KEY" in spawn.child_environment({}, secrets=spawn.TRACKER_SECRETS, environ=given)


def test_marks_of_the_servers_own_job_are_not_inherited():
    environ = {"MYGPT2_JOB": "outer", "MYGPT2_TASK": "outer", "MYGPT2_PROGRESS": "/x", "MYGPT2_CACHE": "/cache"}
    assert set(spawn.child_environment({}, environ=environ)) == {"MYGPT2_CACHE", "PYTHONPATH", "PYTHONUNBUFFERED"}


def test_the_engine_is_importable_by_the_child_whatever_its_folder():
    first = spawn.child_environment({}, environ={"PYTHONPATH": "/mine"})["PYTHONPATH"].split(os.pathsep)
    assert first[1:] == ["/mine"] and os.path.isdir(os.path.join(first[0], "mygpt2"))
    again = spawn.child_environment({}, environ={"PYTHONPATH": os.pathsep.join(first)})
    assert again["PYTHONPATH"].split(os.pathsep) == first


@pytest.mark.parametrize(
    ("devices", "seen", "expected"),
    [(["cpu"], None, None), (["cuda:1"], None, "1"), (["cuda:0", "cuda:2"], "4,5,7", "4,7"), (["mps"], "0", None)],
)
def test_a_child_sees_its_devices_among_those_the_server_sees(devices, seen, expected):
    environ = {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}
    assert device_environment(devices, environ).get("CUDA_VISIBLE_DEVICES") == expected


def test_slots_are_the_visible_devices(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert default_slots() == ["cuda:0", "cuda:1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert default_slots() in (["cpu"], ["mps"])
    with pytest.raises(UserError, match="choose from: cpu"):
        check_slots(["cuda:1"], ["cpu"])


def test_the_log_is_held_as_long_as_the_child_or_a_child_of_it_lives(tmp_path):
    """Also when the child itself is killed and its own child is left, which nobody recorded."""
    log, pid = tmp_path / "log", tmp_path / "pid"
    nested = "import time; time.sleep(600)"
    code = (
        f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-S', '-c', {nested!r}]);"
        f"open({str(pid)!r}, 'w').write(str(c.pid)); c.wait()"
    )
    assert not spawn.log_is_held(log)
    child = spawn.start_detached([*PYTHON, code], log, spawn.child_environment({"MYGPT2_JOB": "m1"}), tmp_path)
    assert spawn.log_is_held(log)
    until(lambda: pid.exists() and pid.read_text())
    first = Process.of(child.pid)
    assert [p.pid for p in descendants(first)] == [int(pid.read_text())]
    assert [p.pid for p in spawn.marked("MYGPT2_JOB", "m1")] == [child.pid, int(pid.read_text())]
    child.kill()
    child.wait()
    assert spawn.log_is_held(log) and descendants(first) == []
    (left,) = spawn.marked("MYGPT2_JOB", "m1")
    left.send(signal.SIGKILL)
    until(lambda: not spawn.log_is_held(log))
    assert spawn.marked("MYGPT2_JOB", "m1") == []


def test_other_peoples_processes_are_not_marked():
    with running() as other:
        assert Process.of(other.pid) not in spawn.marked("MYGPT2_JOB", "m1")


def test_the_tail_is_the_last_lines_up_to_a_place_and_progress_bars_count_as_one(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d\n" % n for n in range(100)) + b"10%\r50%\r100%\nlast \xff")
    assert spawn.tail(log, 3) == ["line 99", "100%", "last \ufffd"]
    assert spawn.tail(log, 2, end=log.read_bytes().index(b"line 50")) == ["line 48", "line 49"]
    assert spawn.tail(log, 2, within=8) == ["%", "last \ufffd"]
    assert spawn.tail(tmp_path / "none") == []


def test_a_command_that_cannot_be_started_leaves_the_log_free(tmp_path):
    with pytest.raises(OSError):
        spawn.start_detached(["/does/not/exist"], tmp_path / "log", {}, tmp_path)
    assert not spawn.log_is_held(tmp_path / "log")


def test_a_log_is_locked_for_life_though_somebody_looked_at_it_just_then(tmp_path):
    """The look was taken for a holder: a run started at that instant had an unlocked log, and of two who looked at
    once each saw the other as a run."""
    log = tmp_path / "log"
    locked, leave = threading.Event(), threading.Event()

    def hold():
        with spawn.held(log):
            locked.set()
            leave.wait(60)

    log.touch()
    with open(log) as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as `log_is_held` does
        assert not spawn.log_is_held(log), "two look at once"
        thread = threading.Thread(target=hold)
        thread.start()
    assert locked.wait(60) and spawn.log_is_held(log)
    leave.set()
    thread.join()
    assert not spawn.log_is_held(log)
