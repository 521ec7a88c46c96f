"""A crash between any two system calls of a save, or inside a write, costs at most that save."""

from pathlib import Path

import pytest
import torch

from mygpt2.checkpoint import load, newest, sweep, write
from mygpt2.checkpoint.store import load_newest
from tests.checkpoint.faults import DyingFileSystem, Killed, tensors


def save(checkpoints: Path, step: int, files: DyingFileSystem | None = None, label: int | None = None) -> None:
    model, optimizer = tensors(step if label is None else label)
    write(checkpoints, step, model, optimizer, {"step": step, "label": step if label is None else label}, files=files)


def operations(tmp_path: Path, *, replacing: bool) -> int:
    """How many operations one undisturbed save takes."""
    (tmp_path / "count").mkdir()
    if replacing:
        save(tmp_path / "count", 20)
    files = DyingFileSystem()
    save(tmp_path / "count", 20, files)
    return len(files.log)


@pytest.mark.parametrize("kind", ["clean", "torn", "power_cut"])
@pytest.mark.parametrize("replacing", [False, True], ids=["new step", "same step again"])
def test_after_a_crash_anywhere_the_newest_whole_checkpoint_loads(tmp_path, kind, replacing):
    total = operations(tmp_path, replacing=replacing)
    assert total > 25
    outcomes = set()
    for at in range(total):
        checkpoints = tmp_path / str(at)
        checkpoints.mkdir()
        save(checkpoints, 10)
        if replacing:
            save(checkpoints, 20, label=1)
        with pytest.raises(Killed):
            save(checkpoints, 20, DyingFileSystem(at, torn=kind == "torn", power_cut=kind == "power_cut"), label=2)
        for _ in range(2):  # as found, and once more after the next start has tidied up
            path, skipped = newest(checkpoints)
            assert path is not None and skipped == []
            found = load(path)
            label = found.state["label"]
            assert label in ((1, 2) if replacing else (10, 2))
            assert found.step == (10 if label == 10 else 20)
            model, optimizer = tensors(label)
            assert all(torch.equal(found.model[name], model[name]) for name in model)
            assert all(torch.equal(found.optimizer[name], optimizer[name]) for name in optimizer)
            sweep(checkpoints)
        outcomes.add(label)
    before = {1} if replacing else {10}
    lost_until_the_end = kind == "power_cut" and not replacing  # the last operation is the sync of the name
    assert outcomes == (before if lost_until_the_end else before | {2})


def test_no_moment_of_a_replacement_is_without_a_whole_checkpoint_of_that_step(tmp_path):
    save(tmp_path, 20, label=1)
    with pytest.raises(Killed):
        save(tmp_path, 20, DyingFileSystem(at=_second_rename(tmp_path)), label=2)
    assert not (tmp_path / "step-00000020").exists()  # the one moment between the renames
    found, _ = load_newest(tmp_path)
    assert found is not None and found.state["label"] == 1
    sweep(tmp_path)
    assert load(tmp_path / "step-00000020").state["label"] == 1


def _second_rename(tmp_path: Path) -> int:
    trial = tmp_path / "trial"
    trial.mkdir()
    save(trial, 20)
    files = DyingFileSystem()
    save(trial, 20, files)
    first, second = (i for i, name in enumerate(files.log) if name.startswith("rename"))
    assert second == first + 1
    return second


def test_everything_is_synced_before_the_rename_and_the_name_after_it(tmp_path):
    files = DyingFileSystem()
    save(tmp_path, 1, files)
    shown = [name for name in files.log if name not in ("write", "close")]
    assert shown == [
        "mkdir",
        "create model.safetensors", "fsync",
        "create optimizer.safetensors", "fsync",
        "create state.json", "fsync",
        "create MANIFEST.json", "fsync",
        "fsync_folder", "rename .tmp", "fsync_folder",
    ]  # fmt: skip
