"""The look below the data fields: what it says, when it waits for a click, and a run's name after its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.planning import plan
from tests.workbench.tabs.data.data_runs import HOSTILE, context_of
from workbench import draft as drafts
from workbench import forms
from workbench.context import Context
from workbench.live import News
from workbench.survey.sample import Survey
from workbench.survey.surveys import Look
from workbench.tabs.train import look, outlook

FOUND = Survey(kind="txt", files=3, size=4000, documents=300, counted=True, tokens=60_000, bytes_per_token=4.2,
               held_out=3, pieces=0, looked=300, encodings={"UTF-8": 3}, beginnings=("Once upon a time",))  # fmt: skip
TEXTS = {"train.steps": "100", "train.batch_tokens": "8192"}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_of(tmp_path)


def asked(context: Context, view: look.View, source: str, **texts: str) -> News:
    given = {**forms.texts(load_config("tiny")), "data.source": source, **texts}
    news = News()
    view({"values": [given[name] for name in (*look.SOURCE, *look.LENGTH)]}, news)
    return news


def test_it_says_how_often_this_run_reads_the_text_and_what_to_do_about_it() -> None:
    passes, batch = look.passes_of(FOUND, TEXTS)
    assert passes == pytest.approx(100 * 8192 / (60_000 * 0.99)) and batch == 8192
    (line,) = look.warnings(FOUND, passes, batch)
    assert "about 14 times" in line and "about 29 steps" in line
    assert look.warnings(FOUND, 3.0, batch) == []
    shown = look.found(FOUND, TEXTS)
    assert 'data-act="look-steps" data-id="29"' in shown and "Set 29 steps" in shown
    assert "look-steps" not in look.found(FOUND, {**TEXTS, "train.steps": "20"})
    (little,) = look.warnings(replace(FOUND, tokens=2_500), 400.0, batch)
    assert little.endswith("or about 1 step.")


def test_how_often_the_text_is_read_is_said_once_by_whoever_knows_it_best(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a small text " * 400)
    config = load_config("tiny", None, {"data.source": str(tmp_path / "a.txt")})
    made = plan(config, world_size=1, runs=tmp_path, device="cpu")
    assert "passes over the text" in outlook.length(made) and "the data is read" in outlook.estimate(made)
    assert "passes" not in outlook.length(made, True) and "the data is read" not in outlook.estimate(made, True)
    mix = [{"name": name, "source": str(tmp_path / "a.txt"), "weight": 1.0} for name in ("one", "two")]
    mixed = plan(load_config("tiny", None, {"data.mix": mix}), world_size=1, runs=tmp_path, device="cpu")
    assert "tokens in all" in outlook.length(mixed) and "passes" not in outlook.length(mixed), (
        "each source tells its own"
    )


@pytest.mark.parametrize("steps", ["", "x", "-1", "0", "9" * 40, "1e3"])
def test_a_form_without_numbers_has_no_passes(steps: str) -> None:
    assert look.passes_of(FOUND, {**TEXTS, "train.steps": steps})[0] is None


def test_what_is_left_out_unreadable_or_odd_is_a_sentence_each() -> None:
    odd = replace(FOUND, left_out={"empty": 2, "too_long": 1}, unreadable=("a.txt, part 0: gone",), pieces=7,
                  notes=("not read: 2 files of other formats (2 .md): a.md", "too few documents for it"))  # fmt: skip
    lines = look.warnings(odd, None, 0)
    assert lines[0] == "Left out: 3 of the 300 documents looked at (2 empty, 1 too long (data.max_document_chars))."
    assert lines[1].startswith("Cannot be read: a.txt, part 0: gone. Repair") and "7 pieces" in lines[2]
    assert lines[3].startswith("Not read: 2 files of other formats") and len(lines) == 4


def test_documents_are_shown_as_text() -> None:
    shown = look.found(replace(FOUND, beginnings=(HOSTILE,)), TEXTS)
    assert "<img" not in shown and "&lt;img" in shown and "3 text files · 4 kB · UTF-8" in shown


def test_what_costs_a_connection_or_a_harvest_waits_for_a_click(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    begun: list[Any] = []

    def ask(data: Any, begin: bool = True) -> Look | None:
        begun.extend([data.source] if begin else [])
        return Look("working") if begin else None

    monkeypatch.setattr(context.surveys, "ask", ask)
    view = look.View(context)
    for source, said in (
        ("fineweb-edu-10BT", "over the network"),
        ("owner/name", "over the network"),
        ("pydocs", "gathered"),
    ):
        news = asked(context, view, source)
        assert said in news.changed["markup"]["look"] and 'data-act="look"' in news.changed["markup"]["look"]
        assert not news.busy
    assert not begun
    view.act("look", "pydocs", forms.texts(load_config("tiny")))
    assert asked(context, view, "pydocs").busy and begun == ["pydocs"]


@pytest.mark.parametrize("source", ["/etc", "../x", "", "no-such-folder", "\0"])
def test_nothing_outside_the_roots_is_looked_into(
    context: Context, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context.surveys, "ask", lambda *_, **__: pytest.fail("it was looked into"))
    view = look.View(context)
    assert asked(context, view, source).changed["markup"]["look"] == ""
    with pytest.raises(UserError):
        view.act("look", source, forms.texts(load_config("tiny")))


def test_a_problem_has_the_form_looked_at_once_more_and_only_once(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (context.data_roots[0] / "a.jsonl").write_text("{}")
    monkeypatch.setattr(context.surveys, "ask", lambda *_, **__: Look("done", None, "it has no text"))
    view = look.View(context)
    news = asked(context, view, "a.jsonl")
    assert "it has no text" in news.changed["markup"]["look"] and news.changed["fields"]["filled"]["value"]
    again = News(news.digests)
    given = {**forms.texts(load_config("tiny")), "data.source": "a.jsonl"}
    view({"values": [given[name] for name in (*look.SOURCE, *look.LENGTH)]}, again)
    assert not again.changed["fields"]


@pytest.mark.parametrize("values", [None, "x", [], [1, 2], [{}] * 7, {"a": 1}])
def test_questions_that_make_no_sense_show_nothing(context: Context, values: Any) -> None:
    news = News()
    look.View(context)({"values": values}, news)
    assert news.changed["markup"]["look"] == "" and not news.busy


def test_a_problem_that_the_look_found_keeps_a_run_from_starting(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (context.data_roots[0] / "a.jsonl").write_text('{"words": "x"}\n')
    values = {**forms.preset_texts("tiny"), "data.source": "a.jsonl"}
    draft = drafts.Draft("tiny", values, "mine", ["cpu"], "1")
    assert not drafts.check(context, draft).problems.get("data.source")
    monkeypatch.setattr(context.surveys, "problem", lambda data: "its first line has no key text; set another")
    assert drafts.check(context, draft).problems["data.source"] == ["its first line has no key text; set another"]
