"""Checkpoints kept on a log grid: which steps, what is left of old ones, and that no run goes on from weights alone."""

import contextlib
import os

import pytest
import torch

from mygpt2.checkpoint import BrokenCheckpoint, load, load_newest, prune, steps, sweep, verify, write
from mygpt2.checkpoint.format import strip, weights_alone
from mygpt2.checkpoint.store import on_grid
from tests.checkpoint.faults import DyingFileSystem, Killed

MODEL, OPTIMIZER = {"w": torch.arange(6.0)}, {"w/exp_avg": torch.ones(6), "w/exp_avg_sq": torch.ones(6)}


def save(folder, *wanted):
    for step in wanted:
        write(folder, step, MODEL, OPTIMIZER, {"step": step})


def alone(folder):
    return [step for step in steps(folder) if weights_alone(folder / f"step-{step:08d}")]


def test_the_grid_is_powers_of_two_and_then_every_nth():
    assert [step for step in range(1, 41) if on_grid(step, 10)] == [1, 2, 4, 8, 10, 20, 30, 40]
    assert [step for step in range(1, 5) if on_grid(step, 1)] == [1, 2, 3, 4]
    assert not any(on_grid(step, 0) for step in range(1, 40))


def test_old_ones_of_the_grid_are_kept_as_weights_alone_and_the_newest_whole(tmp_path):
    save(tmp_path, 1, 2, 3, 4, 5, 6, 8, 10, 12)
    done = prune(tmp_path, 2, keep_log=10)
    assert done.deleted == [3, 5, 6] and steps(tmp_path) == [1, 2, 4, 8, 10, 12]
    assert alone(tmp_path) == [1, 2, 4, 8]
    assert all(verify(tmp_path / f"step-{step:08d}") == [] for step in steps(tmp_path))
    small, large = (sum(file.stat().st_size for file in (tmp_path / f"step-{step:08d}").iterdir()) for step in (8, 10))
    assert small < large
    assert torch.equal(load(tmp_path / "step-00000004", optimizer=False).model["w"], MODEL["w"])
    assert prune(tmp_path, 2, keep_log=10).deleted == []


def test_what_else_is_kept_stays_whole(tmp_path):
    save(tmp_path, 1, 2, 4, 8, 12)
    prune(tmp_path, 1, keep_every=4, best_step=2, keep_log=10)
    assert alone(tmp_path) == [1]


def test_no_run_goes_on_from_weights_alone(tmp_path):
    save(tmp_path, 1, 2)
    prune(tmp_path, 1, keep_log=10)
    (tmp_path / "step-00000002" / "optimizer.safetensors").write_bytes(b"x")
    with pytest.raises(BrokenCheckpoint, match=r"weights alone.*runs branch NAME@1 --run NEW"):
        load(tmp_path / "step-00000001")
    found, skipped = load_newest(tmp_path)
    assert found is None and [each.path.name for each in skipped] == ["step-00000002", "step-00000001"]
    found, _ = load_newest(tmp_path, optimizer=False)
    assert found is not None and found.step == 2, "to sample it the weights are enough"


def test_a_crash_at_any_moment_leaves_the_weights(tmp_path):
    for at in range(40):
        folder = tmp_path / str(at)
        folder.mkdir()
        save(folder, 4)
        files = DyingFileSystem(at)
        with contextlib.suppress(Killed):
            strip(folder / "step-00000004", files)
        found, _ = load_newest(folder, optimizer=False)
        assert found is not None and torch.equal(found.model["w"], MODEL["w"])
        sweep(folder)
        assert steps(folder) == [4] and verify(folder / "step-00000004") == []
        assert not [name for name in os.listdir(folder) if name.startswith(".replaced")]
        if not files.dead:
            break
    assert at > 6 and alone(folder) == [4]
