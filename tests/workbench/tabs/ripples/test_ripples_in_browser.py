"""The ripples tab in a real Chromium: a finished run, a run that grows, an imported log, and a study's beginning."""

from __future__ import annotations

import math
import random
import re

import pytest

from mygpt2.__main__ import main
from mygpt2.config import load_config, to_toml
from mygpt2.run_dir import RunDir, RunWriter, write_rank
from tests.workbench.accessible import violations
from tests.workbench.tabs.data.data_runs import context_of, parquet_folder, small_config, traced_run
from workbench.tabs.ripples.reports import Reports, command
from workbench.tabs.ripples.subject import subject_of

PERIOD, AMPLITUDE, STEPS = 25.0, 0.1, 400
VERDICT = "#wb-ripples-verdict .wb-verdict"


def loss(step, noise):
    return 3 + 2 / (1 + step / 50) + AMPLITUDE * math.cos(2 * math.pi * step / PERIOD) + noise.gauss(0, 0.03)


def write_steps(writer, first, last, noise):
    for step in range(first, last + 1):
        writer.metrics(step=step, tokens=step * 256, loss=loss(step, noise), lr=1e-3)
    writer.status(state="running", phase="training", step=last, steps=1000, tokens=last * 256, loss=3.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run with a trace, analysed already, and one at work; a CSV to import lies beside them."""
    folder = tmp_path_factory.mktemp("ripples")
    context, noise = context_of(folder), random.Random(0)
    context.jobs.pause()  # a study is queued here; training it is not what this file is about
    source = parquet_folder(context.data_roots[0] / "corpus")
    run = traced_run(context.runs, "finished", small_config(source, order="sequential"), folder / "cache")
    with RunWriter(run, 1) as writer:
        write_steps(writer, 1, STEPS, noise)
        writer.finish("finished", 0, "finished")
    subject, reports = subject_of(context, "finished"), Reports(context)
    file = reports.file(subject)
    file.parent.mkdir(parents=True)
    assert main(command(subject, file)[3:]) == 0
    rows = "".join(f"{step},{step * 256},{loss(step, noise)}\n" for step in range(1, STEPS + 1))
    (folder / "others.csv").write_text("step,tokens,train_loss\n" + rows)
    return folder


@pytest.fixture(scope="module")
def server(place, workbench_server):
    env = {"OMP_NUM_THREADS": "1", "MYGPT2_CACHE": str(place / "cache")}
    return workbench_server(place / "runs", "--data-root", str(place / "root"), env=env)


def test_finished_run_its_peaks_its_steps_and_its_files(server, browser_page):
    page = browser_page
    page.goto(f"{server.url}?tab=ripples&run=finished")
    page.wait_for_selector(VERDICT)
    assert "A ripple" in page.inner_text(VERDICT) and "every 25.0 steps" in page.inner_text(VERDICT)
    assert page.locator(f"{VERDICT} .wb-figure").count() == 3
    curves = page.locator("#wb-ripples-curves figure svg[role=img]")
    assert curves.count() == 2 and curves.last.bounding_box()["y"] < 600, "residual and periodogram: the first screen"
    assert page.locator("#wb-ripples-figures figure svg[role=img]").count() >= 3
    page.wait_for_function("document.querySelector('#wb-ripples-chart .wb-chart')?.chart?.shown.length === 1")
    shade = "document.querySelector('#wb-ripples-chart .wb-chart').chart.view.shade.period"
    assert abs(page.evaluate(shade) / PERIOD - 1) < 0.02

    # by pointer: another peak, and back by keyboard
    peaks = page.locator("#wb-ripples-spectrum .fig-peak")
    before, label = page.evaluate(shade), peaks.last.get_attribute("aria-label")
    peaks.last.click()
    page.wait_for_function(f"{shade} !== {before}")
    assert page.input_value("#wb-ripples-peak input") == label.removeprefix("Shade ")
    peaks.first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"{shade} === {before}")

    # a step, typed and hovered
    page.fill("#wb-ripples-step input", "1")
    line = page.locator("#wb-ripples-step p")
    page.wait_for_function("document.querySelector('#wb-ripples-step p').textContent.startsWith('Step 1:')")
    assert "file part-0.parquet, row group 0, first document 0" in line.inner_text()
    plot = page.locator("#wb-ripples-chart .wb-chart-panel-loss .wb-chart-plot")
    plot.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#wb-ripples-chart .wb-chart').chart.panels.get('loss').drawn")
    moved = "!document.querySelector('#wb-ripples-step p').textContent.startsWith('Step 1:')"
    for x in range(400, 460):  # a hand does not rest either: a movement while the chart is drawn anew may be lost
        plot.hover(position={"x": x, "y": 120})
        page.wait_for_timeout(100)
        if page.evaluate(moved):
            break
    page.wait_for_function(moved)
    assert re.match(r"Step \d+", line.inner_text())

    page.focus("#wb-ripples-status .wb-menu summary")
    page.keyboard.press("Enter")
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name="Report as one HTML file").click()
    assert saved.value.suggested_filename == "ripples-finished.html"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tops = page.evaluate(
        "['verdict', 'run'].map((n) => document.getElementById(`wb-ripples-${n}`).getBoundingClientRect().top)"
    )
    assert tops[0] < tops[1], "results first, then settings"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []

    page.get_by_role("button", name="Open in Train with data.order=lanes").click()
    page.wait_for_function("document.querySelector('#wb-tab-train')?.checkVisibility()")
    page.wait_for_function(
        "document.querySelector('#train-message')?.textContent.includes('run finished with data.order=lanes')"
    )


def test_run_that_grows_is_analysed_again_without_a_click(server, place, browser_page):
    page, noise = browser_page, random.Random(1)
    numbers = "document.querySelector('#wb-ripples-figures .wb-card')"
    run = RunDir.create(place / "runs", "live")
    with RunWriter(run, 1) as writer:
        writer.config(to_toml(load_config("tiny")))
        write_rank(run, 0, world_size=1, device="cpu", attempt=1)
        write_steps(writer, 1, 150, noise)
        page.goto(f"{server.url}?tab=ripples&run=live")
        page.wait_for_selector(VERDICT)
        page.wait_for_function(f"{numbers}?.textContent.includes('to 150,')")
        write_steps(writer, 151, 300, noise)
        page.wait_for_function(f"{numbers}.textContent.includes('to 300,')")
        writer.finish("finished", 0, "finished")


def test_log_of_others_is_uploaded_and_analysed(server, place, browser_page):
    page = browser_page
    page.goto(f"{server.url}?tab=ripples")
    page.wait_for_selector("#wb-ripples-verdict section")  # of the newest run, without a choice
    page.get_by_role("button", name="Browse: Choose a log").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload files").click()
    chooser.value.set_files(str(place / "others.csv"))
    page.wait_for_function(f"document.querySelector({VERDICT!r})?.textContent.includes('others.csv')")
    assert page.locator("#wb-ripples-loss svg path.fig-is-shade").count() == 1
    assert "others.csv" in page.url
    page.reload()  # the address opens it again
    page.wait_for_function(f"document.querySelector({VERDICT!r})?.textContent.includes('others.csv')")


def test_study_is_queued_by_one_click_and_is_there_after_a_reload(server, place, browser_page):
    page = browser_page
    page.goto(f"{server.url}?tab=ripples&part=study")
    page.wait_for_selector("#wb-study-standing .wb-empty")
    page.fill("#wb-study-steps input", "80")
    small = "model.n_layer=1 model.n_embd=16 model.n_head=1 data.tokenizer=gpt2:300"
    page.fill("#wb-study-settings textarea, #wb-study-settings input", small)
    page.click("#wb-study-begin")
    page.wait_for_selector("#wb-study-standing table")
    assert page.locator("#wb-study-standing tbody tr").count() == 4
    assert re.search(r"study-\w+-sequential", page.inner_text("#wb-study-standing"))
    page.reload()
    page.wait_for_selector("#wb-study-standing table")
    assert len(list((place / "runs").glob("study-*"))) == 4
    page.click("#wb-study-remove")
    page.wait_for_selector("#wb-study-standing .wb-empty")
    assert not list((place / "runs").glob("study-*")), "what only waited leaves nothing behind"
