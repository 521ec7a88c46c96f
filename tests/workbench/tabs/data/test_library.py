"""The list of sources: what runs used, uploads, the built-in text and the roots; a press opens one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from tests.workbench.conftest import make_run
from tests.workbench.tabs.data.data_runs import HOSTILE, context_of, parquet_folder
from workbench.context import Context
from workbench.live import News
from workbench.tabs.data import library
from workbench.tabs.data.library import Known, Library, Used, known, table


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = context_of(tmp_path)
    parquet_folder(made.data_roots[0] / "docs", files=2)
    uploads = made.runs / ".workbench" / "uploads"
    uploads.mkdir(parents=True)
    (uploads / "mine.txt").write_text("some text")
    return made


def run_on(context: Context, name: str, source: str, age: float = 0.0) -> None:
    run = make_run(context.runs, name, 2, settings=(f"--data.source={source}",))
    then = os.stat(run / "config.toml").st_mtime - age
    os.utime(run / "config.toml", (then, then))


def test_what_runs_use_stands_first_with_their_names_newest_first(context: Context) -> None:
    docs = str(context.data_roots[0] / "docs")
    run_on(context, "old", docs, age=100)
    run_on(context, "new", docs)
    run_on(context, "other", "pydocs", age=50)
    found = known(context, Used(context).sources())
    assert [each.name for each in found] == ["docs", "pydocs", "mine.txt", "fineweb-edu-10BT"]
    entry = next(each for each in found if each.name == "docs")
    assert entry.runs == ("new", "old") and entry.place == docs and entry.detail == "2 parquet files"
    for each in found:
        assert context.source(each.value) == each.place, "what is shown can be opened"


def test_a_run_of_a_mixture_uses_each_of_its_sources_and_an_upload_among_them_stays(context: Context) -> None:
    mine, docs = context.runs / ".workbench" / "uploads" / "mine.txt", context.data_roots[0] / "docs"
    mix = [f'{{name = "s{n}", source = "{s}", weight = 1.0}}' for n, s in enumerate((mine, docs, "pydocs", docs))]
    run = make_run(context.runs, "mixed", 2, settings=(f"--data.mix=[{', '.join(mix)}]",))
    assert Used(context).sources() == dict.fromkeys((str(mine), str(docs), "pydocs"), ("mixed",))
    with pytest.raises(UserError, match="run 'mixed' was trained on"):
        library.delete(context, str(mine))
    assert mine.exists()
    for odd in ("mix = 3", "mix = [3]", 'mix = [{source = 3}, {name = "x"}]'):
        (run / "config.toml").write_text(f"[data]\n{odd}\n")
        assert Used(context).sources() == {}


def test_a_source_outside_the_roots_or_gone_is_not_offered(context: Context, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    run_on(context, "foreign", str(tmp_path / "secret"))
    run_on(context, "gone", str(context.data_roots[0] / "deleted"))
    assert not [each for each in known(context, Used(context).sources()) if each.runs]


def test_damaged_runs_hide_themselves_only(context: Context) -> None:
    run_on(context, "good", "pydocs")
    for name, text in (("bad", "data = 3"), ("worse", "[data]\nsource = 5"), ("worst", "\0\xff")):
        run_on(context, name, "pydocs")
        (context.runs / name / "config.toml").write_text(text)
    (context.runs / "linked").mkdir()
    (context.runs / "linked" / "config.toml").symlink_to("/etc/passwd")
    assert Used(context).sources() == {"pydocs": ("good",)}


def test_settings_are_read_again_only_when_they_change(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    run_on(context, "first", "pydocs")
    read: list[str] = []
    inner = library._sources_of
    monkeypatch.setattr(library, "_sources_of", lambda run: read.append(run.name) or inner(run))
    used = Used(context)
    assert used.sources() == used.sources() == {"pydocs": ("first",)} and read == ["first"]
    run_on(context, "second", "pydocs", age=9)
    used.sources()
    assert read == ["first", "second"]


def test_the_list_is_made_when_the_tab_opens_and_when_runs_change_not_at_every_question(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    inner = library.known
    monkeypatch.setattr(library, "known", lambda *given: looked.append(1) or inner(*given))
    view, news = Library(context), News()
    view({"opened": 1}, news)
    again = News(news.digests)
    view({"opened": 1}, again)
    assert len(looked) == 1 and "library" in news.changed["markup"] and not again.changed["markup"]
    run_on(context, "first", "pydocs")
    view({"opened": 1}, News(news.digests))
    view({"opened": 2}, News(news.digests))
    assert len(looked) == 3


def test_an_upload_is_deleted_only_while_no_run_was_trained_on_it(context: Context) -> None:
    mine = context.runs / ".workbench" / "uploads" / "mine.txt"
    run_on(context, "first", str(mine))
    with pytest.raises(UserError, match="run 'first' was trained on"):
        library.delete(context, str(mine))
    (context.runs / "first" / "config.toml").unlink()
    assert library.delete(context, str(mine)) == "mine.txt" and not mine.exists()


@pytest.mark.parametrize("place", ["docs", "pydocs", "/etc/passwd", "", "docs/part-0.parquet", ".workbench/uploads"])
def test_nothing_but_an_upload_is_deleted(context: Context, place: str) -> None:
    with pytest.raises(UserError):
        library.delete(context, place)
    assert len(list((context.data_roots[0] / "docs").iterdir())) == 2 and (context.runs / ".workbench/uploads").is_dir()


def test_a_link_among_the_uploads_is_not_followed_to_be_deleted(context: Context) -> None:
    link = context.runs / ".workbench" / "uploads" / "link"
    link.symlink_to(context.data_roots[0] / "docs")
    with pytest.raises(UserError, match="is not an upload"):
        library.delete(context, str(link))
    assert len(list((context.data_roots[0] / "docs").iterdir())) == 2


def test_a_read_only_workbench_deletes_nothing(context: Context) -> None:
    mine = context.runs / ".workbench" / "uploads" / "mine.txt"
    with pytest.raises(UserError, match="--read-only"):
        library.delete(replace(context, read_only=True), str(mine))
    assert mine.exists()


def test_names_are_shown_as_text_and_buttons_carry_what_is_opened() -> None:
    made = table([Known(f"{HOSTILE}/x", HOSTILE, "/elsewhere/x", "folder", runs=("a", "b", "c", "d"))])
    assert "<img" not in made and 'data-act="open"' in made and 'data-act="train"' in made and "and 1 more" in made
    assert 'href="?tab=monitor&amp;runs=a"' in made
