"""Menus, times, chips and figures: as markup, and what a browser makes of them."""

from __future__ import annotations

from typing import Any

from tests.workbench.conftest import Start
from workbench import html


def test_a_menus_entries_act_link_or_press_and_take_no_markup_from_others() -> None:
    press, link = html.item("Stop", press="stop"), html.item("Help", href="?tab=data")
    made = html.menu("More <b>", [html.item("Rename", "rename", "run<1>"), link, press])
    assert "<b>" not in made and "run&lt;1&gt;" in made
    assert made.count('role="menuitem"') == 3 and 'data-act="rename"' in made
    assert 'href="?tab=data"' in made and 'data-press="stop"' in made


def test_a_time_is_told_in_utc_until_a_browser_writes_it_and_an_unknown_one_is_na() -> None:
    made = html.when(1_000_000_000.7)
    assert 'at="1000000001"' in made and 'datetime="2001-09-09T01:46:40Z"' in made and "2001-09-09 01:46 UTC" in made
    assert html.when(None) == html.when(float("nan")) == html.when(1e300) == "n/a"


def test_figures_and_chips_escape_what_they_are_given() -> None:
    assert "&lt;i&gt;" in html.figures([("Loss", "<i>", "of GPT-2")]) and "of GPT-2" in html.figures(
        [("a", 1, "of GPT-2")]
    )
    assert (
        html.chip("<b>", "bad", 'a "title"')
        == '<span class="wb-chip wb-chip-bad" title="a &quot;title&quot;">&lt;b&gt;</span>'
    )
    assert "wb-chip-neutral" in html.chip("queued")


def test_a_menu_obeys_the_keys_and_a_time_is_local(
    workbench_server: Start, tmp_path_factory: Any, browser_page: Any
) -> None:
    page = browser_page
    page.goto(workbench_server(tmp_path_factory.mktemp("runs")).url)
    page.wait_for_selector(".wb-head")
    entries = [
        html.item("Rename", "rename", "r"),
        html.item("Gone", press="nowhere"),
        html.item("Press", press="pressed"),
    ]
    stuff = html.join([html.menu("More", entries), html.when(0, exact=True), html.when(4e9)])
    page.evaluate(
        """stuff => document.querySelector(".wb-head").insertAdjacentHTML("beforeend",
        `<div id=here>${stuff}<button id=pressed onclick="">x</button></div>`)""",
        stuff,
    )
    page.evaluate("document.getElementById('pressed').addEventListener('click', () => { window.wasPressed = true; })")
    summary = page.locator("#here summary")
    focused = "document.activeElement.textContent === "
    summary.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"{focused}'Rename'")
    page.keyboard.press("ArrowDown")  # past the one that has nothing to press
    page.wait_for_function(f"{focused}'Press'")
    page.keyboard.press("ArrowDown")
    page.wait_for_function(f"{focused}'Rename'")
    page.keyboard.press("Escape")
    page.wait_for_function(f"{focused}'More' && !document.querySelector('#here details').open")
    summary.click()
    box = page.locator("#here .wb-menu-list").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 1360
    page.evaluate("document.body.style.minHeight = '4000px'; scrollTo(0, 20)")
    page.wait_for_function(
        f"document.querySelector('#here .wb-menu-list').getBoundingClientRect().y === {box['y'] - 20}"
    )
    page.evaluate("scrollTo(0, 3000)")
    page.wait_for_function("!document.querySelector('#here details').open")  # its button has left the screen
    page.evaluate("scrollTo(0, 0)")
    summary.click()
    page.mouse.click(5, 850)
    page.wait_for_function("!document.querySelector('#here details').open")
    summary.click()
    page.locator("#here .wb-item", has_text="Press").click()
    page.wait_for_function("window.wasPressed && !document.querySelector('#here details').open")
    page.evaluate(
        """both => { const place = document.querySelector(".wb-head").appendChild(document.createElement("div"));
        place.id = "live"; window.workbench.live.patch(place, both[0]);
        place.querySelector("details").open = true; window.workbench.live.patch(place, both[1]); }""",
        [html.join([html.Markup("<button>Stop</button>"), html.menu("More", entries)]), html.menu("More", entries)],
    )
    assert page.locator("#live details").get_attribute("open") is not None, "what stood beside it went; it stayed open"
    local = page.evaluate(
        "new Date(0).toLocaleString('sv').slice(0, 16)"
    )  # in Swedish it is year-month-day hour:minute
    assert page.locator("#here wb-when").nth(0).text_content() == local
    assert page.locator("#here wb-when").nth(1).text_content().startswith("2 Oct 2096")
