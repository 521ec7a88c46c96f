"""A live view: only what changed is sent, and patching it in leaves alone what a person is doing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.routes import App
from starlette.testclient import TestClient

from mygpt2.errors import UserError
from workbench.live import News, answered, update
from workbench.page import Page

SCRIPT = Path(__file__).parents[2] / "ui_assets" / "live.js"


def test_what_the_page_has_is_neither_sent_nor_made_again() -> None:
    made: list[str] = []

    def view(asked: Any, news: News) -> None:
        news.show("cheap", f"<p>{asked.get('set')}</p>")
        news.show("dear", lambda: made.append("once") or "<b>dear</b>", stamp="unchanged")
        news.set("list", choices=["a"], value=asked.get("set"))
        news.tell("enabled", {"button": True})

    first = answered(view, {"asked": {"set": "a"}, "digests": {}})
    assert first["markup"] == {"cheap": "<p>a</p>", "dear": "<b>dear</b>"} and made == ["once"]
    assert first["fields"] == {"list": {"choices": ["a"], "value": "a"}} and first["data"]["enabled"]["button"]
    again = answered(view, {"asked": {"set": "a"}, "digests": first["digests"]})
    assert not any(again[kind] for kind in ("markup", "fields", "data", "digests")) and made == ["once"]
    other = answered(view, {"asked": {"set": "b"}, "digests": first["digests"]})
    assert other["markup"] == {"cheap": "<p>b</p>"} and list(other["fields"]) == ["list"] and not other["data"]
    assert json.dumps(other)


@pytest.mark.parametrize("request_", [None, 7, [], {"asked": 1, "digests": "x"}])
def test_a_damaged_question_is_an_empty_one(request_: Any) -> None:
    assert answered(lambda asked, news: news.show("a", asked), request_)["markup"] == {"a": {}}


def test_what_goes_wrong_is_said_in_the_page_and_a_defect_without_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    def mistake(asked: Any, news: News) -> None:
        raise UserError("<i>not</i> allowed")

    def defect(asked: Any, news: News) -> None:
        raise RuntimeError("the inside")

    assert "&lt;i&gt;not" in answered(mistake, {})["problem"]
    found = answered(defect, {})
    assert "defect" in found["problem"] and "inside" not in found["problem"] and "the inside" in caplog.text


def test_one_works_quickly_and_nothing_slowly() -> None:
    def busy(asked: Any, news: News) -> None:
        news.busy = True

    assert answered(busy, {})["pause"] < 3 < answered(lambda asked, news: None, {})["pause"]


def test_of_a_component_only_a_few_properties_are_changed_and_as_gradio_sends_them() -> None:
    with gr.Blocks():
        box, one = gr.Dropdown([], allow_custom_value=True), gr.JSON()
    found = update(box, {"value": "b", "choices": ["a", ("B", "b")], "elem_id": "x", "__type__": "y"})
    assert found == {"choices": [("a", "a"), ("B", "b")], "value": "b"}
    assert json.dumps(update(one, {"value": {"run": "a"}})) == '{"value": {"run": "a"}}'


def test_a_view_changes_its_fields_in_the_browser_and_no_click_on_its_buttons_is_left_out() -> None:
    with gr.Blocks() as blocks:
        page = Page()
        box = gr.Dropdown([])
        made = page.live("compare", lambda asked, news: news.set("set", choices=["a"], value="a"), {"set": box})
        page.acts("compare", made, lambda: None, None, None)
    events = {name: event for event in blocks.get_config_file()["dependencies"] for _, name in event["targets"]}
    assert not events["apply"]["backend_fn"] and events["apply"]["outputs"] == [box._id]
    assert events["act"]["backend_fn"] and events["act"]["trigger_mode"] == "multiple"
    assert made.live_news({})["fields"] == {"set": {"choices": [("a", "a")], "value": "a"}}


def test_an_open_page_costs_the_server_the_same_memory_after_many_questions() -> None:
    with gr.Blocks() as blocks:
        view = Page().live("compare", lambda asked, news: news.show("view", "text"))
    app = App.create_app(blocks)
    client = TestClient(app)

    def ask() -> int:
        question = {"data": {"asked": {}, "digests": {}}, "fn_name": "live_news", "component_id": view._id}
        answer = client.post("/gradio_api/component_server/", json={**question, "session_hash": "page"})
        assert answer.json()["markup"] == {"view": "text"}
        session = app.state_holder["page"]
        return len(session.blocks_config.blocks) + len(session.config_values)

    first = ask()
    assert [ask() for _ in range(5)] == [first] * 5


@pytest.fixture
def patching(new_page: Any) -> Any:
    """now(markup) puts it into a part of an empty page, patched as a live view does."""
    page = new_page()
    page.set_content("<div id='part'></div>")
    page.evaluate("window.workbench = {}")
    page.add_script_tag(content=SCRIPT.read_text(encoding="utf-8"))

    def now(markup: str) -> Any:
        page.evaluate("text => window.workbench.live.patch(document.getElementById('part'), text)", markup)
        assert page.inner_html("#part") == page.evaluate(
            "text => { const t = document.createElement('template'); t.innerHTML = text; return t.innerHTML; }", markup
        )
        return page

    return now


def rows(*names: str, words: str = "x") -> str:
    return (
        "<ul>"
        + "".join(f'<li data-key="{n}">{words} <button data-act="stop">{n}</button></li>' for n in names)
        + "</ul>"
    )


def test_focus_stays_on_the_same_row_whatever_comes_and_goes_around_it(patching: Any) -> None:
    page = patching(rows("a", "b", "c"))
    page.evaluate("window.mine = document.querySelectorAll('button')[1]; mine.focus()")
    for markup in (rows("a", "b", "c", words="later"), rows("b", "c"), rows("new", "b", "other", "c"), rows("b")):
        patching(markup)
        assert page.evaluate("document.activeElement === mine && mine.isConnected && mine.textContent") == "b", markup
    patching(rows("a", "c"))
    assert page.evaluate("document.activeElement.tagName") == "BODY", "gone with its row, and on no other"


def test_selected_text_an_opened_fold_and_a_scrolled_box_stay(patching: Any) -> None:
    def markup(number: int) -> str:
        lines = "".join(f"<p>line {n}</p>" for n in range(40))
        return (f"<p>{number} done</p><p>a long text</p><details><summary>more</summary><p>{number}</p></details>"
                f'<div style="height: 50px; overflow: auto">{lines}</div>')  # fmt: skip

    page = patching(markup(1))
    page.evaluate("""() => { const p = document.querySelectorAll('#part > p')[1].firstChild;
        getSelection().setBaseAndExtent(p, 2, p, 6); document.querySelector('#part div').scrollTop = 120; }""")
    patching(markup(2))
    assert page.evaluate("getSelection().toString()") == "long"
    assert page.evaluate("document.querySelector('#part div').scrollTop") == 120
    page.evaluate("document.querySelector('details').open = true")
    page.evaluate("text => window.workbench.live.patch(document.getElementById('part'), text)", markup(3))
    assert page.evaluate("document.querySelector('details').open") and "3" in page.inner_text("details")


def test_an_element_of_another_kind_takes_its_place(patching: Any) -> None:
    patching("<section>under way</section><p>one</p>")
    patching("text &amp; <details><summary>done</summary></details>")
    patching("")


@pytest.fixture
def answering(patching: Any) -> Any:
    """A page with a live view; answer(fields=, markup=) answers its oldest question, `chosen` is what it asks about."""
    page = patching("")
    page.set_content("<div id='view'></div><p data-live='x.look'></p><p data-live='x.done'></p>")
    page.evaluate("""() => {
        window.held = [];
        window.sent = [];
        window.chosen = "a";
        const element = document.getElementById('view');
        const live_news = ({ asked, digests }) => new Promise((answer) => held.push({ asked, digests, answer }));
        const { live } = window.workbench, server = { live_news };
        window.workbench.x = { ask: () => ({ chosen: window.chosen }) };
        const trigger = (event, data) => sent.push(event === "act" ? data.id : live.fields("x", ["one"])[0].value);
        live.mount({ name: "x", element, props: {}, server, watch: () => {}, trigger });
    }""")

    def answer(fields: Any = None, markup: Any = None) -> Any:
        """(what was asked about, digests that the page had)"""
        page.wait_for_function("held.length > 0")
        given = {"fields": fields or {}, "markup": markup or {}}
        return page.evaluate("""({ fields, markup }) => {
            const { asked, digests, answer } = held.shift(), had = { ...digests };
            const names = [...Object.keys(fields), ...Object.keys(markup)];
            const digests_now = Object.fromEntries(names.map((name) => [name, asked.chosen]));
            answer({ fields, markup, data: {}, digests: digests_now, problem: "", pause: 300, rests: true });
            return [asked.chosen, had];
        }""", given)  # fmt: skip

    answer.page = page  # type: ignore[attr-defined]
    return answer


def test_an_answer_that_a_choice_has_overtaken_changes_no_field_and_is_asked_for_again(answering: Any) -> None:
    page = answering.page
    page.wait_for_function("held.length === 1")
    page.evaluate("() => { chosen = 'b'; document.querySelector('[data-live=\"x.look\"]').live = false; }")
    assert answering({"one": {"value": "a"}}, {"look": "of a", "done": "of a"}) == ["a", {}]
    assert answering({"one": {"value": "b"}}, {"look": "of b"}) == ["b", {"done": "a"}]
    page.wait_for_function("sent.length === 1")
    assert page.evaluate("sent") == ["b"]
    assert page.locator("[data-live]").all_inner_texts() == ["of b", "of a"]


def test_buttons_pressed_while_another_is_answered_are_heard_each_once(answering: Any) -> None:
    page = answering.page
    buttons = "".join(f"<button data-act='up' data-id='{one}'>{one}</button>" for one in "ab")
    answering(markup={"look": buttons})
    for name in ("a", "a", "b", "a"):
        page.get_by_role("button", name=name).click()
    assert page.evaluate("sent") == ["a", "b"]
    page.evaluate("window.workbench.live.acted('x')")
    page.get_by_role("button", name="a").click()
    assert page.evaluate("sent") == ["a", "b", "a"]


def test_a_change_told_while_an_answer_is_under_way_is_asked_for_after_it(patching: Any) -> None:
    """The answer may have been made before the change, and a page at rest asks no more by itself."""
    page = patching("")
    page.evaluate("""() => {
        const element = document.getElementById('part');
        window.asked = [];
        const server = { live_news: () => new Promise((answer) => asked.push(() => answer({
            markup: {}, fields: {}, data: {}, digests: {}, problem: "", pause: 300, rests: true,
        }))) };
        window.workbench.live.mount({ name: "x", element, props: {}, server, watch: () => {}, trigger: () => {} });
    }""")
    for number in (1, 2):
        page.wait_for_function("number => asked.length === number", arg=number)
        page.evaluate("document.dispatchEvent(new CustomEvent('wb-changed'))")
        page.evaluate("asked.at(-1)()")
    page.wait_for_function("asked.length === 3")
    page.evaluate("asked.at(-1)()")
    page.wait_for_timeout(200)
    assert page.evaluate("asked.length") == 3, "without news it rests"
