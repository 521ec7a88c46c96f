"""The table of runs in a real browser: keys, address, acts, and that only what is in sight is in the page."""

from __future__ import annotations

import json
import shutil

import pytest

from mygpt2.files import replace_json
from mygpt2.run_dir import RunDir, list_runs
from mygpt2.run_dir.moves import trash
from tests.workbench.accessible import COLOURS, violations
from tests.workbench.conftest import make_run

BAD = "<img src=x onerror=alert(1)>"
LINES = ".wb-rt tbody tr[data-id]"


@pytest.fixture
def runs(tmp_path):
    """Two runs of an experiment, one of another tokenizer and text, one that failed, and one that is archived."""
    folder = tmp_path / "runs"
    make_run(folder, "alpha", 20, settings=("--optimizer.lr", "0.01"))
    make_run(folder, "exp.a.1", 20)
    make_run(folder, "exp.a.2", 30, seed=3)
    own = RunDir(make_run(folder, "own", 20, settings=("--data.tokenizer", "gpt2:2048")))
    with own.events_file.open("a") as events:
        line = {
            "kind": "eval",
            "attempt": 1,
            "step": 20,
            "protocol": "run",
            "loss": 3.5,
            "bits_per_byte": 2.5,
            "bytes": 9,
        }
        events.write(json.dumps(line) + "\n")
    make_run(folder, "crashed", 10, state="failed")
    make_run(folder, "old", 10)
    replace_json(folder / "old" / "workbench.json", {"archived": True, "tags": ["x"]})
    replace_json(folder / "alpha" / "workbench.json", {"star": True, "tags": ["keep"], "group": BAD})
    return folder


@pytest.fixture
def server(workbench_server, runs):
    return workbench_server(runs)


def opened(page, server, address="&view=table"):
    page.goto(f"{server.url}?tab=monitor{address}")
    page.wait_for_selector(LINES if "view=table" in address else "#wb-monitor .wb-run")


def lines(page):
    return page.locator(LINES).evaluate_all("found => found.map(row => row.dataset.id)")


def until_lines(page, expected):
    page.wait_for_function(
        "want => JSON.stringify([...document.querySelectorAll('.wb-rt tr[data-id]')].map(r => r.dataset.id)) === want",
        arg=json.dumps(expected, separators=(",", ":")),
    )


def address(page):
    return page.evaluate("Object.fromEntries(new URL(location.href).searchParams)")


def test_keys_sorting_groups_and_the_address(browser_page, server):
    page = browser_page
    opened(page, server, "")
    page.locator("#wb-monitor-head h2").wait_for()
    page.keyboard.press("l")
    page.wait_for_selector(LINES)
    assert not page.locator("#wb-monitor-head").is_visible() and address(page)["view"] == "table"
    assert "old" not in lines(page) and "group exp" in lines(page)

    page.get_by_role("button", name="Name", exact=True).click()
    until_lines(page, ["alpha", "crashed", "group exp", "own"])
    page.get_by_role("button", name="Validation loss").click()
    head = page.locator("th[aria-sort=ascending]")
    assert head.inner_text().startswith("Validation loss")
    warning = page.locator(".wb-rt-warning")
    assert "2 tokenizers, so validation loss per token does not compare" in warning.inner_text()
    mark = page.locator('tr[data-id="own"] .wb-rt-other').first
    assert mark.get_attribute("title").startswith("Measured on held-out text, 9 bytes of text; most")
    warning.get_by_role("button", name="Sort by bits per byte").click()
    assert address(page)["sort"] == "bpb"

    page.locator('tr[data-id="group exp"]').focus()
    page.keyboard.press("Enter")
    until_lines(page, ["alpha", "crashed", "group exp", "exp.a.1", "exp.a.2", "own"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    assert page.locator(".wb-rt-bulk b").inner_text() == "1 ticked"
    assert page.locator('tr[data-id="group exp"] input').evaluate("box => box.indeterminate")
    page.get_by_label("Search the table").fill("crash")
    until_lines(page, ["crashed"])
    page.reload()
    page.wait_for_selector(LINES)
    until_lines(page, ["crashed"])
    assert page.get_by_label("Search the table").input_value() == "crash" and address(page)["open"] == "exp"
    page.locator(LINES).focus()
    page.keyboard.press("Enter")
    page.locator("#wb-monitor-head h2", has_text="crashed").wait_for()
    assert "view" not in address(page)
    page.go_back()
    page.wait_for_selector(LINES)


def test_columns_of_any_setting_are_found_by_search_and_kept_in_the_address(browser_page, server):
    page = browser_page
    opened(page, server)
    heads = page.locator(".wb-rt-head")
    page.wait_for_function(
        "[...document.querySelectorAll('.wb-rt-head')].some(h => h.textContent.includes('optimizer.lr'))"
    )
    page.get_by_role("button", name="Columns").click()
    picker = page.get_by_role("dialog", name="Columns")
    assert "optimizer.lr" in picker.locator("fieldset").first.inner_text(), "what differs is proposed first"
    picker.get_by_label("Search columns").fill("weight decay")
    picker.get_by_role("checkbox", name="optimizer.weight_decay").check()
    picker.get_by_label("Search columns").fill("bits per byte")
    picker.get_by_role("checkbox", name="Bits per byte").uncheck()
    picker.get_by_role("button", name="Done").click()
    shown = heads.all_inner_texts()
    assert any("optimizer.weight_decay" in text for text in shown) and "Bits per byte" not in shown
    assert "optimizer.weight_decay" in address(page)["cols"].split(",")
    cell = page.locator('tr[data-id="alpha"] td[data-key="optimizer.lr"]')
    assert cell.inner_text() == "AdamW 0.01 · Muon 0.02" and "wb-rt-number" in cell.get_attribute("class")


def test_runs_are_deleted_renamed_and_brought_back(browser_page, server, runs):
    page = browser_page
    opened(page, server, "&view=table&flat=1&sort=name")
    until_lines(page, ["alpha", "crashed", "exp.a.1", "exp.a.2", "own"])
    toast = page.locator(".wb-rt-toast")
    page.locator('tr[data-id="crashed"]').focus()
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    page.keyboard.press("Delete")
    question = page.get_by_role("dialog", name="Delete 2 runs?")
    assert "crashed, exp.a.1" in question.inner_text()
    page.keyboard.press("Enter")
    until_lines(page, ["alpha", "exp.a.2", "own"])
    page.locator(".wb-rt-toast", has_text="2 runs are in the trash").wait_for()
    assert len(trash(runs)) == 2
    toast.get_by_role("button", name="Undo").click()
    until_lines(page, ["alpha", "crashed", "exp.a.1", "exp.a.2", "own"])
    assert not trash(runs)

    page.locator('tr[data-id="own"] .wb-rt-tick input').click()
    for name, said in (("alpha", "there is a 'alpha'"), (BAD, "is not allowed"), ("renamed", "own is now renamed")):
        page.get_by_role("button", name="Rename …").click()
        page.get_by_label("New name").fill(name)
        page.keyboard.press("Enter")
        page.locator(".wb-rt-toast", has_text=said).wait_for()
    until_lines(page, ["alpha", "crashed", "exp.a.1", "exp.a.2", "renamed"])
    opened(page, server, "&runs=own")
    page.locator("#wb-monitor-head h2", has_text="renamed").wait_for()
    page.wait_for_function("new URL(location.href).searchParams.get('runs') === 'renamed'")

    page.locator("#wb-monitor-head summary", has_text="More").click()
    page.get_by_role("menuitem", name="Delete …").click()
    page.get_by_role("button", name="Move to trash").click()
    page.locator(".wb-rt-toast", has_text="renamed is in the trash").wait_for()
    page.keyboard.press("l")
    page.get_by_role("button", name="Trash (1)").click()
    page.get_by_role("button", name="Empty trash …").click()
    assert "1 run, " in page.get_by_role("dialog").inner_text()
    page.get_by_role("button", name="Remove for good").click()
    page.locator(".wb-rt-toast", has_text="1 deleted run removed for good").wait_for()
    assert not trash(runs) and len(list_runs(runs)) == 5


def test_of_many_runs_only_those_in_sight_are_in_the_page(browser_page, workbench_server, tmp_path):
    page, folder = browser_page, tmp_path / "many"
    make_run(folder, "r000", 5)
    for number in range(1, 200):
        shutil.copytree(folder / "r000", folder / f"r{number:03d}")
    opened(page, workbench_server(folder), "&view=table&sort=name")
    page.locator(".wb-rt-count", has_text="200 runs").wait_for()
    assert len(lines(page)) < 80 and lines(page)[0] == "r000"
    page.locator(LINES).first.focus()
    page.keyboard.press("End")
    page.wait_for_function("document.activeElement.dataset.id === 'r199'")
    assert len(lines(page)) < 80 and page.locator("table.wb-rt").get_attribute("aria-rowcount") == "201"
    page.keyboard.press("l")
    page.locator("#wb-monitor .wb-run").first.wait_for()
    assert page.locator("#wb-monitor .wb-run").count() <= 121


def test_cards_on_a_phone_and_no_finding_in_either_theme(new_page, server):
    page = new_page(viewport={"width": 390, "height": 844})
    opened(page, server, "&view=table&archived=1")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    card = page.locator('tr[data-id="alpha"]')
    assert card.bounding_box()["width"] > 300 and not page.locator(".wb-rt thead").is_visible()
    assert "Validation loss" in card.locator('td[data-key="val"]').evaluate(
        "c => getComputedStyle(c, '::before').content"
    )
    page.locator('tr[data-id="alpha"] .wb-rt-tick input').click()
    found = violations(page)
    page.set_viewport_size({"width": 1360, "height": 900})
    found += violations(page)
    page.get_by_role("button", name="Columns").click()
    found += violations(page)
    page.keyboard.press("Escape")
    page.emulate_media(color_scheme="dark")
    found += violations(page, *COLOURS)
    assert not found, found
    assert page.locator("img[src=x]").count() == 0, "a group's name is text"
