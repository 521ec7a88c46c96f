"""Run folders: their names, their making, and what an unknown one answers."""

import datetime
import os
import stat
import threading
import time

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, list_runs
from mygpt2.run_dir.control import ControlFiles
from mygpt2.run_dir.writer import write_queued

DAY = datetime.date(2026, 11, 22)


def test_the_contract_names_every_path(run):
    inside = {str(getattr(run, name).relative_to(run.path)) for name in dir(RunDir) if name.endswith(("_file", "_dir"))
              and isinstance(getattr(RunDir, name), property)}  # fmt: skip
    assert inside >= {
        "config.toml", "command.json", "status.json", "ranks", "metrics.jsonl", "events.jsonl", "samples.jsonl",
        "trace", "checkpoints", "control", "logs", "evals", "loss_plot.png", "notes.md", "exit.json",
    }  # fmt: skip
    assert run.rank_file(3).name == "3.json" and run.log_file(0).name == "rank-0.log"


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0" * 64])
def test_allowed_names(tmp_path, name):
    assert RunDir.create(tmp_path, name).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "a/b", "../a", "a b", "a;touch x", "a\n", "a" * 65, "\u00e4", "a\x00"]
)
def test_other_names_are_refused_and_leave_nothing(tmp_path, name):
    for action in (RunDir.create, RunDir.open):
        with pytest.raises(UserError, match="not allowed") as caught:
            action(tmp_path / "runs", name)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").glob("*")) and not (tmp_path / "a").exists()


def test_only_the_owner_may_look_in(run):
    assert stat.S_IMODE(os.stat(run.path).st_mode) == 0o700


def test_a_taken_name_is_refused_with_both_ways_out(run):
    with pytest.raises(UserError, match=r"exists.*--resume auto.*another --run"):
        RunDir.create(run.path.parent, run.name)


def test_default_names_count_up_and_never_collide(tmp_path):
    first = RunDir.create(tmp_path, preset="tiny", today=DAY)
    assert first.name == "2026-11-22-tiny-001"
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda: names.append(RunDir.create(tmp_path, preset="tiny", today=DAY).name))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [f"2026-11-22-tiny-{n:03d}" for n in range(2, 10)]
    assert RunDir.create(tmp_path, preset="my preset/x", today=DAY).name == "2026-11-22-my-preset-x-001"


def test_an_unknown_run_offers_the_nearest(tmp_path):
    with pytest.raises(UserError, match="there is none yet"):
        RunDir.open(tmp_path / "runs", "tiny-2")
    for name in ("tiny-1", "tiny-3", "gpt2"):
        RunDir.create(tmp_path / "runs", name)
    with pytest.raises(UserError, match=r"no run 'tiny-2' in .*nearest: tiny-[13], tiny-[13]"):
        RunDir.open(tmp_path / "runs", "tiny-2")
    assert RunDir.open(tmp_path / "runs", "gpt2").name == "gpt2"


def test_only_runs_are_listed(tmp_path):
    assert list_runs(tmp_path / "absent") == []
    RunDir.create(tmp_path, "b")
    RunDir.create(tmp_path, "a")
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "file").write_text("")
    assert [run.name for run in list_runs(tmp_path)] == ["a", "b"]


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--runs"):
        RunDir.create(tmp_path / "file" / "runs", "x")


def test_requests_are_seen_once_cleared_and_only_known_ones(run):
    control = ControlFiles(run)
    assert control.poll() == set()
    control.request("stop")
    control.request("stop")
    control.request("save")
    (run.control_dir / "format-disk").write_text("")
    assert control.poll() == {"stop", "save"}
    control.clear("save")
    control.clear("save")
    assert control.poll() == {"stop"}
    control.clear_older(than=0.0)
    assert control.poll() == {"stop"}, "what was asked after the start is meant for this start"
    control.clear_older(than=time.time() + 1)
    assert control.poll() == set()
    with pytest.raises(UserError, match="allowed: stop, save, sample"):
        control.request("explode")
    run.control_dir.joinpath("format-disk").unlink()
    run.control_dir.rmdir()
    assert control.poll() == set()


def test_a_queued_run_is_listed(tmp_path):
    run = RunDir.create(tmp_path, "later")
    write_queued(run, "behind one")
    assert run.status_file.is_file() and list_runs(tmp_path) == [run]


@pytest.mark.parametrize("made", range(8))
def test_a_folder_that_a_killed_process_left_half_made_is_taken_up(tmp_path, made):
    """SIGKILL may come after any of the folders of a new run."""
    whole = RunDir.create(tmp_path, "whole")
    half = RunDir(tmp_path / "half")
    half.path.mkdir()
    for folder in half.folders[:made]:
        folder.mkdir()
    assert half.exists() == (made == len(half.folders))
    if not half.exists():
        RunDir.create(tmp_path, "half")
    half.prepare()
    assert sorted(p.name for p in half.path.iterdir()) == sorted(p.name for p in whole.path.iterdir())
    with pytest.raises(UserError, match="exists"):
        RunDir.create(tmp_path, "half")


def test_a_folder_of_something_else_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"exists and is not a run: it holds thesis.tex; choose another --run"):
        RunDir.create(tmp_path, "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
