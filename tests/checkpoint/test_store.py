"""Which checkpoints are kept, and that the last whole one never goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mygpt2.checkpoint import newest, prune, size_bytes, steps, sweep, verify, write
from mygpt2.checkpoint.format import CONTENTS, encode_manifest
from mygpt2.checkpoint.layout import make_header
from tests.checkpoint.faults import DyingFileSystem, Killed

EMPTY = make_header({})[0]


def tiny(checkpoints: Path, step: int) -> Path:
    """A whole checkpoint of no tensors, quickly and without syncs."""
    import hashlib

    folder = checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    contents = dict(zip(CONTENTS, (EMPTY, EMPTY, b"{}\n"), strict=True))
    entries = {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in contents.items()}
    for name, raw in contents.items():
        (folder / name).write_bytes(raw)
    (folder / "MANIFEST.json").write_bytes(encode_manifest(step, entries))
    return folder


def spoil(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize("keep_last, keep_every", [(1, 0), (2, 0), (3, 100), (2, 70)])
def test_rotation_keeps_exactly_the_last_k_every_nth_and_the_best_over_500_saves(tmp_path, keep_last, keep_every):
    losses = {}
    for save in range(1, 501):
        step = save * 10
        tiny(tmp_path, step)
        losses[step] = 5.0 - save / 200 if save <= 330 else 9.0  # the best is save 330
        best = min((losses[s], s) for s in steps(tmp_path))[1]
        prune(tmp_path, keep_last, keep_every, best)
        made = range(10, step + 1, 10)
        expected = {*made[-keep_last:], min(save, 330) * 10}
        expected |= {s for s in made if keep_every and s % keep_every == 0}
        if save % 25 == 0 or 325 < save < 340:
            assert set(steps(tmp_path)) == expected
    assert os.listdir(tmp_path).__len__() == len(expected)  # no trash either


def test_nothing_is_deleted_when_no_checkpoint_verifies(tmp_path):
    for step in (1, 2, 3):
        spoil(tiny(tmp_path, step))
    done = prune(tmp_path, 1)
    assert done.deleted == [] and len(done.broken) == 3
    assert steps(tmp_path) == [1, 2, 3]


def test_broken_newer_ones_neither_count_nor_cost_a_whole_one(tmp_path):
    for step in (1, 2, 3, 4, 5):
        tiny(tmp_path, step)
    spoil(tmp_path / "step-00000005")
    spoil(tmp_path / "step-00000004")
    done = prune(tmp_path, 2)
    assert done.deleted == [1] and [b.path.name for b in done.broken] == ["step-00000005", "step-00000004"]
    assert newest(tmp_path)[0] == tmp_path / "step-00000003"


def test_a_crash_anywhere_in_a_rotation_leaves_whole_checkpoints_only(tmp_path):
    for at in range(100):
        checkpoints = tmp_path / str(at)
        for step in (1, 2, 3):
            tiny(checkpoints, step)
        files = DyingFileSystem(at)
        try:
            prune(checkpoints, 1, files=files)
        except Killed:
            path, skipped = newest(checkpoints)
            assert path == checkpoints / "step-00000003" and skipped == []
            names = os.listdir(checkpoints)
            assert all(verify(checkpoints / name) == [] for name in names if name.startswith("step-"))
            assert all(name.startswith((".trash-", "step-")) for name in names)
        else:
            break
    assert at > 8  # two folders, each renamed and emptied
    assert steps(checkpoints) == [3]


def test_the_leftovers_of_dead_processes_are_swept_and_those_of_living_ones_are_not(tmp_path):
    name_one = "from mygpt2.checkpoint.files import scratch_name; print(scratch_name('tmp'), scratch_name('trash'))"
    dead = subprocess.run([sys.executable, "-c", name_one], capture_output=True, text=True, check=True).stdout.split()
    from mygpt2.checkpoint.files import scratch_name

    living = scratch_name("tmp")
    for name in (*dead, living, ".tmp-mine", "notes"):
        (tmp_path / name / "inside").mkdir(parents=True)
    tiny(tmp_path, 7)
    assert sorted(sweep(tmp_path)) == sorted(dead)
    assert sorted(os.listdir(tmp_path)) == sorted([living, ".tmp-mine", "notes", "step-00000007"])


@pytest.mark.parametrize("successor", ["whole", "broken", "absent"])
def test_of_a_replaced_checkpoint_and_its_successor_the_later_whole_one_stays(tmp_path, successor):
    replaced = tmp_path / ".replaced-step-00000007-abc123"
    (tiny(tmp_path, 7) / "old").write_text("")
    (tmp_path / "step-00000007").rename(replaced)
    if successor != "absent":
        tiny(tmp_path, 7)
    if successor == "broken":
        spoil(tmp_path / "step-00000007")
    path, _ = newest(tmp_path)  # before anybody tidies up
    assert path == (tmp_path / "step-00000007" if successor == "whole" else replaced)
    assert sweep(tmp_path) == [replaced.name]
    assert os.listdir(tmp_path) == ["step-00000007"] and newest(tmp_path)[0] == tmp_path / "step-00000007"
    assert (tmp_path / "step-00000007" / "old").exists() == (successor != "whole")


def test_deleting_never_follows_a_link_out_of_the_folder(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    checkpoints = tmp_path / "checkpoints"
    tiny(checkpoints, 1)
    (checkpoints / "step-00000001" / "link").symlink_to(outside)
    tiny(checkpoints, 2)
    assert prune(checkpoints, 1).deleted == [1]
    assert (outside / "precious").exists()


def test_steps_beyond_eight_digits_sort_as_numbers(tmp_path):
    write(tmp_path, 123_456_789, {}, {}, {})
    write(tmp_path, 99_999_999, {}, {}, {})
    assert newest(tmp_path)[0] == tmp_path / "step-123456789"
    assert steps(tmp_path) == [99_999_999, 123_456_789]
    assert size_bytes(tmp_path / "step-123456789") > 100
