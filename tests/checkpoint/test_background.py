"""Saves beside training: what is written is the moment of the call, and no full disk ends a run."""

import errno
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from mygpt2.checkpoint import Checkpointer, FileSystem, load, newest, steps, verify
from mygpt2.config.schema import CheckpointConfig
from tests.checkpoint.faults import DyingFileSystem, FullFileSystem, Killed, tensors


class Gate(FileSystem):
    """Holds every save at its first file until opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def create(self, path: Path) -> int:
        self.entered.set()
        assert self.opened.wait(20)
        return super().create(path)


def checkpointer(
    folder: Path, events: list | None = None, files: FileSystem | None = None, keep_last: int = 2
) -> Checkpointer:
    sink = (lambda event: None) if events is None else events.append
    return Checkpointer(folder, CheckpointConfig(keep_last=keep_last), sink, files=files)


def test_a_background_save_holds_the_values_of_the_moment_it_was_asked_for(tmp_path):
    gate = Gate()
    saver = checkpointer(tmp_path, files=gate)
    model, state = {"w": torch.zeros(4)}, {"inner": {"step": 5}}
    saver.save(5, model, {}, state, background=True)
    assert gate.entered.wait(20) and saver.saving
    model["w"].fill_(9)
    state["inner"]["step"] = 6
    gate.opened.set()
    path = saver.wait()
    assert path is not None
    found = load(path)
    assert found.model["w"].tolist() == [0, 0, 0, 0] and found.state == {"inner": {"step": 5}}
    assert not saver.saving


def test_one_save_is_in_flight_at_a_time_and_the_second_waits(tmp_path):
    gate = Gate()
    events: list = []
    saver = checkpointer(tmp_path, events, gate)
    saver.save(1, *tensors(1), {}, background=True)
    assert gate.entered.wait(20)
    threading.Timer(0.05, gate.opened.set).start()
    held = saver.save(2, *tensors(2), {}, background=True)
    assert [event["step"] for event in events] == [1]  # the first was over before the second began
    assert held >= 0.04
    saver.wait()
    assert events[1]["kind"] == "save" and events[1]["held_seconds"] == pytest.approx(held, abs=1e-3)
    assert steps(tmp_path) == [1, 2]


def test_buffers_of_the_snapshot_are_used_again(tmp_path):
    saver = checkpointer(tmp_path)
    model, optimizer = tensors(1)
    saver.save(1, model, optimizer, {}, background=True)
    first = {key: buffer.data_ptr() for key, buffer in saver._snapshot._buffers.items()}
    saver.save(2, model, {}, {}, background=True)
    second = {key: buffer.data_ptr() for key, buffer in saver._snapshot._buffers.items()}
    assert second == {key: pointer for key, pointer in first.items() if key[0] == "model"}
    saver.wait()


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_at_any_write_keeps_the_previous_checkpoint_and_training(tmp_path, background):
    counting = FullFileSystem(1 << 30)
    checkpointer(tmp_path / "count", files=counting).save(2, *tensors(2), {}, background=False)
    assert counting.writes >= 10
    for at in range(counting.writes):
        folder = tmp_path / str(at)
        events: list = []
        saver = checkpointer(folder, events, keep_last=1)
        saver.save(1, *tensors(1), {"step": 1}, background=background)
        saver.wait()
        saver._files = FullFileSystem(at, free=10**9)
        saver.save(2, *tensors(2), {"step": 2}, background=background)
        assert saver.wait() == folder / "step-00000001"
        assert saver.failure == "No space left on device"
        failed = events[-1]
        assert failed["kind"] == "save_failed" and failed["step"] == 2 and failed["reason"] == saver.failure
        assert failed["free_bytes"] == 10**9 and failed["needed_bytes"] > 0
        assert [entry.name for entry in folder.iterdir()] == ["step-00000001"]  # the scratch folder is gone
        saver._files = FileSystem()
        saver.save(3, *tensors(3), {"step": 3}, background=background)
        assert saver.wait() == folder / "step-00000003" and saver.failure is None


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.EROFS])
def test_other_disk_faults_are_reported_the_same_way(tmp_path, number):
    events: list = []
    saver = checkpointer(tmp_path, events, FullFileSystem(0, number))
    saver.save(1, *tensors(1), {}, background=True)
    assert saver.wait() is None
    assert [event["kind"] for event in events] == ["save_failed"] and newest(tmp_path) == (None, [])


def test_a_save_that_cannot_fit_is_not_begun(tmp_path):
    events: list = []
    files = FullFileSystem(0, free=100)
    saver = checkpointer(tmp_path, events, files)
    saver.save(1, *tensors(1), {}, background=True)
    saver.wait()
    assert files.writes == 0
    (event,) = events
    assert event["kind"] == "save_failed" and event["free_bytes"] == 100
    assert event["needed_bytes"] == 432  # 1.2 x 6 tensors x 15 x 4 bytes


def test_state_that_is_not_json_is_the_callers_error_at_once(tmp_path):
    saver = checkpointer(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        saver.save(1, {}, {}, {"loss": float("nan")}, background=True)
    with pytest.raises(TypeError):
        saver.save(1, {}, {}, {"rng": b"bytes"}, background=True)


def test_a_defect_in_the_thread_is_raised_and_not_swallowed(tmp_path):
    class Defective(FileSystem):
        def fsync(self, descriptor: int) -> None:
            raise ZeroDivisionError

    saver = checkpointer(tmp_path, files=Defective())
    saver.save(1, {}, {}, {}, background=True)
    with pytest.raises(ZeroDivisionError):
        saver.wait()
    assert list(tmp_path.iterdir()) == []


def test_the_best_is_kept_through_rotation_and_restart(tmp_path):
    saver = checkpointer(tmp_path, keep_last=1)
    losses = {10: 4.0, 20: 3.0, 30: 3.5, 40: 3.0}
    verdicts = []
    for step, loss in losses.items():
        verdicts.append(saver.best(step, loss))
        saver.save(step, {}, {}, {}, background=True)
    saver.wait()
    assert verdicts == [True, True, False, False] and steps(tmp_path) == [20, 40]
    again = checkpointer(tmp_path, keep_last=1)
    assert again.best_step == 20
    assert again.best(45, 2.0) and not again.best(46, float("nan"))  # never saved, so nothing to keep
    again.save(50, {}, {}, {}, background=False)
    assert steps(tmp_path) == [20, 50]
    again.best(50, 2.9)  # noted after the save
    again.save(60, {}, {}, {}, background=False)
    assert steps(tmp_path) == [50, 60]


def test_a_checkpoint_found_broken_at_rotation_is_reported_once(tmp_path):
    events: list = []
    saver = checkpointer(tmp_path, events, keep_last=1)
    saver.save(9, {}, {}, {}, background=False)
    (tmp_path / "step-00000009" / "state.json").unlink()
    for step in (1, 2):
        saver.save(step, {}, {}, {}, background=False)
    broken = [event for event in events if event["kind"] == "checkpoint_broken"]
    assert len(broken) == 1 and broken[0]["path"] == "step-00000009" and "missing" in broken[0]["reason"]


def test_a_process_that_ends_with_an_exception_still_finishes_its_save(tmp_path):
    code = """
import sys, time, torch
from pathlib import Path
from mygpt2.checkpoint import Checkpointer, FileSystem
from mygpt2.config.schema import CheckpointConfig
class Slow(FileSystem):
    def fsync(self, descriptor):
        time.sleep(0.02)
saver = Checkpointer(Path(sys.argv[1]), CheckpointConfig(), lambda event: None, files=Slow())
saver.save(3, {"w": torch.ones(5)}, {}, {}, background=True)
raise SystemExit(9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == 9
    path, _ = newest(tmp_path)
    assert path is not None and path.name == "step-00000003"


def test_a_kill_anywhere_in_a_save_and_its_rotation_leaves_a_whole_checkpoint(tmp_path):
    outcomes = []
    for at in range(200):
        saver = checkpointer(tmp_path / str(at), keep_last=1)
        saver.save(1, *tensors(1), {"step": 1}, background=False)
        saver._files = DyingFileSystem(at, torn=True)
        try:
            saver.save(2, *tensors(2), {"step": 2}, background=True)
            saver.wait()
        except Killed:
            path, skipped = newest(tmp_path / str(at))
            assert path is not None and skipped == []
            outcomes.append(load(path).step)
        else:
            break
    assert outcomes == sorted(outcomes) and set(outcomes) == {1, 2}
    assert steps(tmp_path / str(at)) == [2]


FILL = """
import sys, torch
from pathlib import Path
from mygpt2.checkpoint import Checkpointer
from mygpt2.config.schema import CheckpointConfig
events = []
saver = Checkpointer(Path(sys.argv[1]), CheckpointConfig(keep_last=9), events.append)
saver._files.free_bytes = lambda path: 1 << 40  # as if the space went while it was being written to
for step in range(1, 6):
    saver.save(step, {"w": torch.full((100_000,), float(step))}, {}, {}, background=True)
saver.wait()
print(*(event["kind"] for event in events), saver.failure)
"""


def test_a_file_system_that_is_really_full(tmp_path):
    """1 MB holds two checkpoints of 400 kB; the third and later ones fail, and both stay whole."""
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && "$2" -c "$3" "$1" && cp -a "$1/." "$4"'
    copy = tmp_path.with_name("copy")
    copy.mkdir()
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs rights this user does not have")
    command = ["unshare", "-m", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, FILL, str(copy)], capture_output=True, text=True, timeout=60
    )
    if "mount:" in done.stderr:
        pytest.skip(f"mounting a small file system is not possible here: {done.stderr.strip()}")
    assert done.stdout.split("\n")[0] == "save save save_failed save_failed save_failed No space left on device"
    assert sorted(entry.name for entry in copy.iterdir()) == ["step-00000001", "step-00000002"]
    assert [verify(entry) for entry in sorted(copy.iterdir())] == [[], []]
