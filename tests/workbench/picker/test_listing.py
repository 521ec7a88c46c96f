"""What a picker lists: the roots and nothing else, whatever lies there and however much of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mygpt2.errors import UserError
from tests.workbench.conftest import make_run
from tests.workbench.tabs.data.data_runs import context_of
from workbench.context import Context
from workbench.picker import listing as listings
from workbench.picker.listing import listing


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_of(tmp_path)


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("some text\n")


def ask(context: Context, kind: str = "data", **asked: Any) -> dict[str, Any]:
    found = listing(context, {"kind": kind, **asked})
    json.dumps(found)
    return found


def names(found: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in found["entries"]]


def group(found: dict[str, Any], title: str) -> list[dict[str, Any]]:
    return next((g["entries"] for g in found["groups"] if g["title"] == title), [])


def test_the_start_has_what_goes_by_a_name_the_uploads_and_the_roots(context: Context) -> None:
    write(context.data_roots[0], "books/a.txt", "books/b.txt")
    write(context.runs / ".workbench" / "uploads", "mine.txt", "set/x.txt", "set/y.txt", ".incoming/abc/half.txt")
    found = ask(context)
    assert [entry["value"] for entry in group(found, "Built in")] == ["pydocs"]
    assert {entry["name"] for entry in group(found, "Uploaded")} == {"mine.txt", "set"}
    (root,) = group(found, "Folders")
    assert root["folder"] == str(context.data_roots[0]) and root["detail"] == "2 text files"


def test_a_folder_has_its_files_with_sizes_and_folders_with_counts_in_natural_order(context: Context) -> None:
    root = context.data_roots[0]
    write(root, "a10.txt", "a2.txt", "deep/er/x.jsonl", "none/x.docx", "_aside.txt", ".hidden/x.txt", "notes.md")
    found = ask(context, folder=str(root))
    assert names(found) == ["deep", "a2.txt", "a10.txt"] and found["count"] == 3
    deep, text = found["entries"][:2]
    assert (deep["value"], deep["detail"], deep["choose"]) == ("deep", "1 jsonl file", True)
    assert (text["value"], text["detail"], text["size"]) == ("a2.txt", "text", "10 B")
    assert "1 folder without anything to choose" in found["notes"][0]
    assert ask(context, folder=str(root / "deep"))["here"] == {"value": "deep", "detail": "1 jsonl file, 10 B"}
    assert [step["name"] for step in ask(context, folder=str(root / "deep" / "er"))["crumbs"]] == ["root", "deep", "er"]


def test_a_folder_of_several_formats_is_a_source_too(context: Context) -> None:
    write(context.data_roots[0], "mixed/a.txt", "mixed/b.jsonl")
    (entry,) = ask(context, folder=str(context.data_roots[0]))["entries"]
    assert entry["choose"] and entry["detail"] == "1 jsonl, 1 text files"
    here = ask(context, folder=str(context.data_roots[0] / "mixed"))["here"]
    assert here["value"] == "mixed" and here["detail"].startswith("1 jsonl, 1 text files")


@pytest.mark.parametrize("folder", ["/etc", "../..", "~", "/", "\0", "root/../../elsewhere", "out", "x" * 9999])
def test_no_folder_outside_the_roots_is_listed(context: Context, tmp_path: Path, folder: str) -> None:
    write(tmp_path / "elsewhere", "secret.txt")
    (context.data_roots[0] / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError):
        ask(context, folder=folder)


def test_links_out_of_the_roots_are_counted_and_neither_shown_followed_nor_searched(
    context: Context, tmp_path: Path
) -> None:
    root = context.data_roots[0]
    write(tmp_path / "elsewhere", "secret.txt")
    write(root, "inside/plain.txt")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "one.txt").symlink_to(tmp_path / "elsewhere" / "secret.txt")
    (root / "again").symlink_to(root / "inside")
    (root / "inside" / "round").symlink_to(root)
    found = ask(context, folder=str(root))
    assert names(found) == ["again", "inside"] and "2 links out of" in found["notes"][0]
    assert "secret" not in json.dumps(ask(context, search="e"))
    assert len(ask(context, search="plain")["entries"]) == 1, "a circle of links ends"


def test_thousands_of_files_come_by_pages(context: Context) -> None:
    root = context.data_roots[0]
    write(root, *(f"f{number}.txt" for number in range(2050)))
    first, last = ask(context, folder=str(root)), ask(context, folder=str(root), page=21)
    assert (first["pages"], first["count"], len(first["entries"])) == (21, 2050, 100)
    assert names(first)[:2] == ["f0.txt", "f1.txt"] and names(last)[-1] == "f2049.txt" and len(last["entries"]) == 50
    for odd in (-1, 10**30, "x", None, 2.5, True):
        assert 1 <= ask(context, folder=str(root), page=odd)["page"] <= 21


def test_a_search_finds_names_below_and_says_where_it_stopped(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = context.data_roots[0]
    write(root, "a/Moby.txt", "a/b/moby-2.jsonl", "c/other.txt", "moby.docx")
    found = ask(context, search=" MOBY ")
    assert sorted(names(found)) == ["a/Moby.txt", "a/b/moby-2.jsonl"] and not found["notes"]
    assert names(ask(context, folder=str(root / "c"), search="moby")) == []
    assert [entry["value"] for entry in group(ask(context, search="pyd"), "Built in")] == ["pydocs"]
    monkeypatch.setattr(listings, "SEARCH_ENTRIES", 2)
    assert "too much to look through" in ask(context, search="moby")["notes"][0]


def test_a_large_folder_is_counted_as_far_as_the_budget_goes(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    write(context.data_roots[0], *(f"d/{n}.txt" for n in range(40)))
    monkeypatch.setattr(listings, "TALLY_ENTRIES", 10)
    monkeypatch.setattr(listings, "TALLY_LEAST", 10)
    (entry,) = ask(context, folder=str(context.data_roots[0]))["entries"]
    assert entry["detail"].endswith("+ text files")


def test_a_short_name_that_means_something_else_is_written_in_full(context: Context) -> None:
    root = context.data_roots[0]
    write(root, "pydocs/x.txt", "owner/set/x.txt", "runs.txt")
    found = {entry["name"]: entry["value"] for entry in ask(context, folder=str(root))["entries"]}
    assert found["pydocs"] == str(root / "pydocs") and found["runs.txt"] == "runs.txt"
    for entry in ask(context, folder=str(root))["entries"]:
        if entry["choose"]:
            assert context.source(entry["value"]) == str(root / entry["name"])


def test_each_kind_lists_its_own(context: Context) -> None:
    root = context.data_roots[0]
    write(root, "tok/tokenizer.json", "logs/loss.csv", "gpt/model.safetensors")
    (root / "gpt" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    make_run(context.runs, "first", 3)
    (entry,) = ask(context, "model", folder=str(root))["entries"]
    assert (entry["name"], entry["value"], entry["detail"]) == ("gpt", "gpt", "GPT-2")
    (entry,) = ask(context, "tokenizer", folder=str(root))["entries"]
    assert (entry["value"], entry["detail"]) == ("tok", "tokenizer")
    assert [e["value"] for e in group(ask(context, "tokenizer"), "Built in")] == ["gpt2", "gpt2:8192"]
    assert [e["name"] for e in group(ask(context, "log"), "Runs")] == ["first"]
    assert "loss.csv" in [e["name"] for e in ask(context, "log", folder=str(root / "logs"))["entries"]]


@pytest.mark.parametrize("asked", [None, [], {}, {"kind": "run"}, {"kind": ["data"]}, {"kind": None}])
def test_questions_that_make_no_sense_are_one_sentence(context: Context, asked: Any) -> None:
    with pytest.raises(UserError, match="cannot be chosen; allowed: data"):
        listing(context, asked)


def test_a_name_that_no_settings_could_hold_hides_itself_and_no_other(context: Context) -> None:
    root = context.data_roots[0]
    write(root, "a.txt")
    for name in (b"\xff.txt", b"\xfe"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).mkdir()
    found = ask(context, folder=str(root))
    assert names(found) == ["a.txt"] and found["notes"] == [
        "2 names not in UTF-8, which no settings could hold: not shown"
    ]
    assert names(ask(context, search="t")) == ["a.txt"]
    with pytest.raises(UserError, match="give a path"):
        ask(context, folder="\ud800")
