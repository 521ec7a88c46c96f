"""The step card, the chips of the head, spikes and ghosts in a real browser: a click leads there, and a key back."""

from __future__ import annotations

import pytest

from mygpt2.run_dir import RunWriter
from tests.experiments.planted import Planted
from tests.experiments.test_importing import LOGS
from tests.workbench.accessible import violations
from tests.workbench.conftest import Held
from tests.workbench.tabs.data.data_runs import context_of, parquet_folder, small_config, traced_run
from workbench.jobs.alerts import AlertLog, folder_of, new_alert

LIMIT = 60_000  # milliseconds
STEPS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(runs, root): a run with a trace and an alert, and its data."""
    folder = tmp_path_factory.mktemp("step")
    context = context_of(folder)
    config = small_config(parquet_folder(folder / "root" / "data"))
    run = traced_run(context.runs, "traced", config, folder / "cache", STEPS)
    with RunWriter(run, 1) as writer:
        for number in range(1, STEPS + 1):
            writer.metrics(step=number, tokens=256 * number, loss=9.0 - number, lr=0.001, grad_norm=1.5)
        writer.finish("finished", 0, "finished")
    alert = new_alert("warning", "spike", "traced", "the loss rose by 40 %", step=3, folder=folder_of(run))
    AlertLog(context.jobs.store.folder / "alerts.jsonl").add(alert)
    spiky = Planted()
    for step in (40, 80):
        spiky.rows[step - 1] += 1.5
    spiky.rate[78:] *= 8
    spiky.write(folder, "spiky")
    return context.runs, folder


@pytest.fixture(scope="module")
def server(workbench_server, made):
    runs, root = made
    return workbench_server(runs, "--data-root", str(root))


def title(page):
    return page.locator("[data-step=title]").inner_text()


def test_a_click_on_the_curve_opens_the_step_and_escape_leads_back(new_page, server):
    page = new_page()
    page.goto(f"{server.url}?tab=monitor&runs=traced")
    plot = page.locator("#wb-monitor-chart .wb-chart-panel-loss .js-plotly-plot")
    plot.wait_for(timeout=LIMIT)
    box = plot.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator(".wb-step-row[open] .wb-seg-text").first.wait_for(timeout=LIMIT)
    assert page.locator(".wb-step-row").count() == 8 and page.locator(".wb-step-row[open]").count() == 1
    losses = [float(text) for text in page.locator(".wb-step-loss").all_inner_texts()]
    assert losses == sorted(losses, reverse=True)
    assert page.evaluate("document.activeElement.dataset.step") == "title", "a screen reader begins there"
    at = int(title(page).removeprefix("Step "))
    assert f"step={at}" in page.url and "run=traced" in page.url
    assert violations(page) == []
    marked = """document.querySelector('.wb-chart').chart.panels.get('loss').plot.layout.shapes
      .filter((shape) => shape.name === 'open step').map((shape) => shape.x0)"""
    page.wait_for_function(f"JSON.stringify({marked}) === '[{at}]'")

    page.locator("[data-step=after]").click()
    page.wait_for_function("text => document.querySelector('[data-step=title]').textContent === text",
                           arg=f"Step {at + 1}")  # fmt: skip
    page.locator(".wb-step-row summary").nth(2).click()
    page.locator(".wb-step-row[open] .wb-seg-fields").nth(1).wait_for(timeout=LIMIT)
    page.keyboard.press("Escape")
    page.locator(".wb-stepcard").wait_for(state="hidden")
    assert "step=" not in page.url
    page.wait_for_function(f"{marked}.length === 0")
    assert page.evaluate("document.activeElement.closest('#wb-monitor-chart') !== null"), "where it came from"


def test_a_link_opens_the_step_on_a_phone_and_data_has_it_too(new_page, server):
    page = new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{server.url}?run=traced&step=3")
    page.locator(".wb-step-row[open] .wb-seg-text").first.wait_for(timeout=LIMIT)
    assert title(page) == "Step 3" and "the loss rose by 40 %" in page.locator("[data-step=head]").inner_text()
    box = page.locator(".wb-stepcard").bounding_box()
    assert (box["x"], box["width"]) == (0, 390) and page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Open this step in Data").click()
    page.locator("#wb-step-rows .wb-row").first.wait_for(timeout=LIMIT)
    assert "Step 3 of traced" in page.locator("#wb-step-facts").inner_text()


def test_a_chip_opens_its_alerts_and_stays_away_once_dismissed(new_page, server):
    page = new_page()
    page.goto(f"{server.url}?tab=monitor&runs=traced")
    chip = page.locator("#wb-monitor-head .wb-pop summary", has_text="spike")
    chip.click(timeout=LIMIT)
    page.locator(".wb-pop-body").get_by_text("the loss rose by 40 %").wait_for()
    page.keyboard.press("Escape")
    page.locator(".wb-pop-body").get_by_text("the loss rose by 40 %").wait_for(state="hidden")
    chip.click()
    page.get_by_role("button", name="Dismiss").click()
    chip.wait_for(state="hidden")
    page.reload()
    page.locator("#wb-monitor-head .wb-figure").first.wait_for(timeout=LIMIT)
    assert not chip.is_visible()


def test_spikes_are_marked_and_gone_through_by_key_to_the_card_that_says_why(new_page, server):
    page = new_page()
    page.goto(f"{server.url}?tab=monitor&runs=spiky")
    page.locator(".wb-chart-spikes", has_text="Next of 2 spikes").wait_for(timeout=LIMIT)
    page.locator(".wb-chart-panel-loss .wb-chart-key", has_text="▼ spike").wait_for(timeout=LIMIT)
    page.locator(".wb-chart-panel-loss").focus()
    for key, step in (("n", 40), ("n", 80), ("n", 40), ("N", 80)):
        page.keyboard.press(key)
        page.wait_for_function(
            "words => document.querySelector('.wb-chart-heard').textContent.includes(words)", arg=f"step {step},"
        )
    page.keyboard.press("Enter")
    why = page.locator(".wb-step-why")
    why.get_by_text("the learning rate rose from 0.001 to 0.008 at step 79").wait_for(timeout=LIMIT)
    assert title(page) == "Step 80" and violations(page) == []
    page.keyboard.press("Escape")
    page.locator(".wb-chart-spikes").click()
    why.get_by_text("No cause is seen").wait_for(timeout=LIMIT)
    assert title(page) == "Step 40"


def test_a_log_is_uploaded_imported_and_drawn_as_a_ghost(new_page, server, tmp_path):
    (tmp_path / "other.log").write_text(LOGS["nanogpt.log"])
    page = new_page()
    page.goto(f"{server.url}?tab=monitor&runs=traced")
    page.locator("#wb-import button").first.click(timeout=LIMIT)
    page.locator("#wb-import").get_by_role("button", name="Browse").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload").first.click()
    chooser.value.set_files(str(tmp_path / "other.log"))
    page.locator("#wb-import").get_by_text("other.log is uploaded").wait_for(timeout=LIMIT)
    answers = Held(page, "queue/join", "other.log")
    page.locator("#wb-import-do").click()
    while not answers.kept:
        page.wait_for_timeout(10)
    typed = page.locator("#wb-import-log").locator("textarea, input").first
    typed.fill("the next one")
    answers.let_go()
    page.locator("#wb-monitor-head").get_by_text("protocol unknown").wait_for(timeout=LIMIT)
    page.locator(".wb-chart-runs", has_text="imported log, protocol unknown").wait_for(timeout=LIMIT)
    assert page.locator(".wb-runs-list .wb-ghost").inner_text() == "imported" and typed.input_value() == "the next one"
    dashes = "document.querySelector('.wb-chart').chart.panels.get('loss').plot.data.map((line) => line.line?.dash)"
    assert "1px,4px" in page.evaluate(dashes)
    assert not page.locator("[data-press=wb-do-sample]").count()
