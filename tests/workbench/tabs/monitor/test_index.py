"""The list of runs: what it says, and that nothing is read that has not changed."""

from __future__ import annotations

import os
import shutil

import pytest

from mygpt2.files import replace_json
from mygpt2.run_dir import state_of, write_queued
from tests.run_dir.processes import record_rank, running
from tests.workbench.tabs.monitor.folders import run_folder
from workbench.tabs.monitor import index as module
from workbench.tabs.monitor import labels
from workbench.tabs.monitor.index import RunIndex


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_AGE", 0.0)
    monkeypatch.setattr(module, "SIZE_SECONDS", 3600.0)  # whatever else the machine does, one look measures them all
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def names(changes):
    return sorted(row["name"] for row in changes["rows"])


def test_an_unchanged_poll_of_200_runs_reads_no_file_and_sends_no_row(runs, monkeypatch):
    first = run_folder(runs, "run-000")
    for number in range(1, 200):
        shutil.copytree(first.path, runs / f"run-{number:03d}")
    index = RunIndex(runs)
    changes = index.changes()
    assert len(changes["rows"]) == 200 == index.inspected and len(changes["names"]) == 200

    for way in ("builtins.open", "io.open"):
        monkeypatch.setattr(way, lambda *_, **__: pytest.fail("a file was read"))
    again = index.changes(changes["mark"])
    assert (again["rows"], again["names"], again["mark"]) == ([], None, changes["mark"])
    assert index.inspected == 200


def test_only_what_changed_is_read_and_sent(runs):
    for name in ("a", "b", "c"):
        run_folder(runs, name)
    index = RunIndex(runs)
    mark = index.changes()["mark"]
    labels.write_tags(module.RunDir(runs / "b"), "keep, lr-sweep")
    labels.toggle_star(module.RunDir(runs / "b"))
    changes = index.changes(mark)
    assert names(changes) == ["b"] and changes["names"] is None and index.inspected == 4
    assert changes["rows"][0]["tags"] == ["keep", "lr-sweep"] and changes["rows"][0]["star"] is True


def test_runs_that_come_and_go_are_told_by_all_names(runs):
    run_folder(runs, "a")
    index = RunIndex(runs)
    mark = index.changes()["mark"]
    run_folder(runs, "b")
    came = index.changes(mark)
    assert names(came) == ["b"] and came["names"] == ["a", "b"]
    shutil.rmtree(runs / "a")
    went = index.changes(came["mark"])
    assert went["rows"] == [] and went["names"] == ["b"]


def test_a_mark_of_another_server_or_none_at_all_gets_everything(runs):
    run_folder(runs, "a")
    before, after = RunIndex(runs), RunIndex(runs)
    mark = before.changes()["mark"]
    for strange in (mark, "", "nonsense", "1.2.3", "٣.٣"):
        changes = after.changes(strange)
        assert names(changes) == ["a"] and changes["names"] == ["a"]


def test_a_living_run_is_looked_at_every_time_and_its_death_is_seen(runs):
    with running() as process:
        run = run_folder(runs, "live", state="running")
        record_rank(run, 0, process.pid)
        index = RunIndex(runs)
        changes = index.changes()
        row = changes["rows"][0]
        assert (row["state"], row["step"], row["steps"], row["share"]) == ("running", 3, 10, 0.3)
        assert row["speed"] == 1000.0 and row["loss"] == pytest.approx(4.7)
    lost = index.changes(changes["mark"])["rows"][0]
    assert lost["state"] == "lost" and "rank 0" in lost["reason"] and lost["speed"] is None
    inspected = index.inspected
    index.changes(), index.changes()
    assert index.inspected == inspected, "a dead run is not looked at again"


def test_a_queued_run_without_a_configuration_is_listed(runs):
    run = module.RunDir.create(runs, "waits")
    write_queued(run, "waiting")
    assert RunIndex(runs).changes()["rows"][0]["state"] == "queued"


def test_links_strange_names_and_other_folders_are_no_runs(runs, tmp_path):
    elsewhere = run_folder(tmp_path / "other", "secret")
    os.symlink(elsewhere.path, runs / "link")
    (runs / ".workbench").mkdir()
    (runs / "<img src=x onerror=alert(1)>").mkdir()
    (runs / "empty").mkdir()
    run_folder(runs, "real")
    assert names(RunIndex(runs).changes()) == ["real"]


def test_alerts_are_counted_in_the_row(runs):
    run_folder(runs, "a")
    index = RunIndex(runs)
    mark = index.changes()["mark"]
    assert index.changes(mark, {"a": 2})["rows"][0]["alerts"] == 2


@pytest.mark.parametrize("status", [b"", b"{", b"[]", b'{"state": 7, "steps": "many", "step": -1, "eta": "soon"}'])
def test_a_damaged_status_is_a_lost_run_and_no_error(runs, status):
    run = run_folder(runs, "a", state="running")
    run.status_file.write_bytes(status)
    assert RunIndex(runs).changes()["rows"][0]["state"] == "lost"


def test_damaged_labels_are_no_labels(runs):
    run = run_folder(runs, "a")
    replace_json(labels.labels_file(run), {"star": "yes", "tags": ["ok", 3, "<b>", "x" * 99]})
    assert labels.read_labels(run) == labels.Labels(False, ("ok",), "")


def test_a_run_between_two_attempts_is_starting_while_its_launcher_is_at_work(runs):
    run = run_folder(runs, "one")
    write_queued(run, "waiting")
    run.exit_file.unlink(missing_ok=True)
    at_work = {"one"}
    index = RunIndex(runs, at_work=lambda: at_work)
    (row,) = index.changes()["rows"]
    assert row["state"] == "starting" and "launcher" in row["reason"]
    at_work.clear()
    (row,) = index.changes()["rows"]
    assert row["state"] == "queued"


def test_a_branch_that_is_launched_is_starting_and_no_longer_stopped(runs):
    run = module.RunDir.create(runs, "branch")
    write_queued(run, "a branch of one at step 100, not yet begun", "stopped", 100)
    at_work: set[str] = set()
    index = RunIndex(runs, at_work=lambda: at_work)
    assert index.changes()["rows"][0]["state"] == "stopped"
    at_work.add("branch")
    assert index.changes()["rows"][0]["state"] == "starting"
    replace_json(run.status_file, {**state_of(run).status, "attempt": 1})
    assert index.changes()["rows"][0]["state"] == "stopped", "one that has ended is told as it ended"
