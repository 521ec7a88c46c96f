"""What tabs share: requests between them, what opens with them, and errors that reach the person as text."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mygpt2.errors import UserError
from tests.workbench.conftest import make_run
from workbench import html
from workbench.app import _open_link, build
from workbench.context import Context
from workbench.jobs import Jobs
from workbench.page import TABS, Act, Page


@pytest.fixture
def toasts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: told.append(message))
    return told


def test_the_same_request_twice_is_two_changes() -> None:
    first, second = Page.ask(run="one"), Page.ask(run="one")
    assert first != second and Page.request(first) == Page.request(second) == {"run": "one"}


@pytest.mark.parametrize("text", ["", None, "{", "[1]", "null", "7"])
def test_a_damaged_request_is_an_empty_one(text: str | None) -> None:
    assert Page.request(text) == {}


def test_what_a_tab_needs_at_first_is_asked_for_when_it_is_opened_and_by_nobody_else() -> None:
    with gr.Blocks():
        page = Page()
        box = gr.Textbox()
        page.on_open("train", lambda: "here", None, box)
    assert page.openings("monitor") == []
    (event,) = page.openings("train")
    assert event["fn"]() == "here" and event["outputs"] is box


def test_opening_the_page_stays_little_work(tmp_path: Path) -> None:
    """Gradio walks through all components for most of what happens: for each event that shows its progress, and for
    each that runs while the page opens."""
    runs = tmp_path.resolve()
    config = build(Context(runs, (runs,), Jobs(runs, ["cpu"]))).get_config_file()
    assert len(config["components"]) < 624  # a field for each setting, and one for each of the API's parameters
    at_first = [event for event in config["dependencies"] if any(name == "load" for _, name in event["targets"])]
    assert sum(len(event["inputs"]) + len(event["outputs"]) for event in at_first) < 25
    hidden = [event for event in config["dependencies"] if event["show_progress"] == "hidden" and not event["queue"]]
    assert hidden and all(event["show_progress_on"] == [] for event in hidden)


def test_a_persons_mistake_is_a_toast_of_text_and_leaves_the_page_as_it_is(toasts: list[str]) -> None:
    def handler(name: str) -> None:
        raise UserError(f"{name} is not allowed")

    answer = Page.friendly(partial(handler, "<img src=x onerror=alert(1)>"))()
    assert toasts == ["&lt;img src=x onerror=alert(1)&gt; is not allowed"] and answer == gr.skip()


def test_a_defect_is_one_line_without_its_traceback(toasts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    def handler() -> None:
        raise RuntimeError("the inside")

    assert Page.friendly(handler)() == gr.skip()
    assert len(toasts) == 1 and "inside" not in toasts[0] and "the inside" in caplog.text


def test_a_stream_that_fails_keeps_what_it_gave(toasts: list[str]) -> None:
    def handler() -> Any:
        yield "one"
        raise UserError("no more")

    assert list(Page.friendly(handler)()) == ["one", gr.skip()] and toasts == ["no more"]


def test_fragments_escape_whatever_is_not_markup() -> None:
    evil = "<img src=x onerror=alert(1)>"
    made = [html.badge(evil), html.card(evil, [(evil, evil)], evil), html.table([evil], [[evil]], caption=evil),
            html.empty(evil, evil), html.problem(evil), html.note(evil)]  # fmt: skip
    assert not any("<img" in fragment for fragment in made)
    assert html.escape(html.badge("running")) == html.badge("running")
    assert html.escape(None) == "n/a"


@pytest.mark.parametrize("query, foreign, marked", [({}, True, True), ({"link": "1"}, False, True), ({}, False, False)])
def test_a_foreign_link_fills_the_form_and_is_marked(
    tmp_path: Path, query: dict[str, str], foreign: bool, marked: bool
) -> None:
    runs = tmp_path.resolve()
    context = Context(runs, (runs,), Jobs(runs, ["cpu"]))
    with gr.Blocks():
        page = Page()
        asked = _open_link(context, page, "train", query | {"tab": "data", "source": "owner/name"}, foreign)
    request = page.request(asked[1 + list(TABS).index("data")])
    assert request == {"source": "owner/name"} | ({"link": True} if marked else {})


def test_a_foreign_link_starts_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.live import News
    from workbench.tabs.data import acts
    from workbench.tabs.ripples import view

    opened: list[Any] = []
    monkeypatch.setattr(acts.source, "open_source", lambda *given: iter([opened.append(given)]))
    fields = ("a/b", "text", "gpt2", 1, None, 0, 1, None)
    answers = list(acts.in_source(None, None, Act("linked"), *fields))  # type: ignore[arg-type]
    assert len(answers) == 1 and "press Open" in answers[0][0] and not opened
    assert list(acts.in_source(None, None, Act("open"), *fields)) and opened  # type: ignore[arg-type]

    class Reports:
        def look(self, subject: Any) -> Any:
            raise UserError("looked")

        def start_due(self, subject: Any) -> Any:
            raise UserError("started")

    runs = tmp_path.resolve()
    make_run(runs, "one", 5)
    context = Context(runs, (runs,), Jobs(runs, ["cpu"]))
    for asked, word in (({"run": "one", "link": True}, "looked"), ({"run": "one"}, "started")):
        news = News()
        view.look(context, Reports(), asked, news)  # type: ignore[arg-type]
        assert word in news.changed["markup"]["status"]
