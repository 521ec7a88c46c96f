"""Acts on runs from the table: each run told by itself, undone where it can be, and nothing on a read-only page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunLock, list_runs
from mygpt2.run_dir.moves import trash
from tests.workbench.tabs.monitor.folders import run_folder
from workbench.context import Context
from workbench.jobs import Jobs
from workbench.tabs.monitor.changes import change, needed
from workbench.tabs.monitor.index import RunIndex


@pytest.fixture
def context(tmp_path):
    runs = tmp_path / "runs"
    for name in ("a", "b", "c"):
        run_folder(runs, name)
    return Context(runs.resolve(), (tmp_path.resolve(),), Jobs(runs, slots=["cpu"]))


def do(context, act, *runs, value=""):
    return change(context, {"act": act, "runs": list(runs), "value": value})


def names(context):
    return [run.name for run in list_runs(context.runs)]


def test_of_many_runs_each_is_told_by_itself_and_undone(context):
    with RunLock(RunDir(context.runs / "b")).acquire():
        answer = do(context, "delete", "a", "b", "nothing", "c")
    assert answer["done"] == ["a", "c"] and answer["say"].startswith("2 runs are in the trash, ")
    assert [name for name, _ in answer["failed"]] == ["b", "nothing"]
    assert "held by a process" in answer["failed"][0][1] and "no run 'nothing'" in answer["failed"][1][1]
    assert names(context) == ["b"] and len(trash(context.runs)) == 2
    back = change(context, answer["undo"])
    assert names(context) == ["a", "b", "c"] and back["say"] == "2 runs are back"
    again = change(context, back["undo"])
    assert names(context) == ["b"] and again["done"] == ["a", "c"]
    assert do(context, "empty")["say"].startswith("2 deleted runs removed for good, ") and not trash(context.runs)


def test_a_rename_says_so_and_names_what_takes_it_back(context):
    answer = do(context, "rename", "a", value=" z ")
    assert answer["say"] == "a is now z" and answer["renamed"] == {"a": "z"} and names(context) == ["b", "c", "z"]
    assert change(context, answer["undo"])["renamed"] == {"z": "a"}
    for runs, value, why in ((("a", "b"), "x", "one at a time"), (("a",), "b", "already"), (("a",), "<b>", "allowed")):
        with pytest.raises(UserError, match=why):
            do(context, "rename", *runs, value=value)


def test_archive_group_and_tag(context):
    index = RunIndex(context.runs)

    def row(name):
        index.look_again()
        return next(row for row in index.changes()["rows"] if row["name"] == name)

    answer = do(context, "archive", "a", "b")
    assert answer["say"] == "2 runs are archived" and row("a")["archived"]
    assert change(context, answer["undo"])["say"] == "2 runs are no longer archived" and not row("a")["archived"]
    assert do(context, "group", "a", "b", value="rate sweep")["say"] == "2 runs are in the group rate sweep"
    assert row("a")["group"] == "rate sweep"
    assert do(context, "group", "a", value="")["say"] == "a is in no group of your own" and row("a")["group"] == ""
    do(context, "tag", "a", "b", value="x, y")
    assert do(context, "tag", "a", value="-x z")["say"] == "a is tagged z, -x" and row("a")["tags"] == ["y", "z"]
    for act, value, why in (
        ("tag", "", "no tag is given"),
        ("tag", "<b>", "not allowed"),
        ("group", "<b>", "not allowed"),
    ):
        with pytest.raises(UserError, match=why):
            do(context, act, "a", value=value)


def test_what_cannot_be_tried_is_refused_before_anything_happens(context):
    for asked, why in (
        ({"act": "eat", "runs": ["a"]}, "cannot be done to a run"),
        ({"act": "delete", "runs": []}, "0 runs are ticked"),
        ({"act": "delete", "runs": "a"}, "0 runs are ticked"),
        ({}, "cannot be done"),
    ):
        with pytest.raises(UserError, match=why):
            change(context, asked)
    with pytest.raises(UserError, match="--read-only"):
        change(replace(context, read_only=True), {"act": "delete", "runs": ["a"]})
    answer = do(context, "delete", "../a", "_trash")
    assert answer["done"] == [] and answer["say"] == "" and len(answer["failed"]) == 2 and answer["undo"] is None
    assert names(context) == ["a", "b", "c"]


def test_who_needs_files_of_a_run_is_said_before_it_is_deleted(context):
    RunDir(context.runs / "b").config_file.write_text(f'[data]\ntokenizer = "{context.runs}/a/tokenizer.json"\n')
    assert needed(context, ["a", "c"]) == {"a": ["b"]}
    assert needed(context, ["a", "b"]) == {} == needed(context, None) == needed(context, ["../x", 3])


def test_who_needs_files_of_many_runs_is_found_by_reading_every_settings_once(context, monkeypatch):
    read, plain = [], RunDir.read

    def counted(run, path, most):
        read.append(run.name)
        return plain(run, path, most)

    monkeypatch.setattr(RunDir, "read", counted)
    (RunDir(context.runs / "b").config_file).write_text(f'[data]\nsource = "{context.runs}/a.b/x {context.runs}/c/y"\n')
    assert needed(context, ["a", "c"]) == {"c": ["b"]}
    assert sorted(read) == ["a", "b", "c"]
