"""The compare tab in a real Chromium: two small models on a local text, their progress, their chart, their export."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workbench.accessible import violations
from tests.workbench.conftest import RunningServer, Start
from tests.workbench.tabs.sample.places import small_place

LINES = ".wb-chart-lines .wb-line:not(.wb-axis)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    _, data = small_place(folder)
    documents = [f"Document {number} of a text that is measured. " * (number % 5 + 1) for number in range(40)]
    (data / "texts").mkdir()
    for number, text in enumerate(documents):
        (data / "texts" / f"{number:02}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(workbench_server: Start, place: Path) -> RunningServer:
    cache = {"MYGPT2_CACHE": str(place / "cache")}
    return workbench_server(place / "runs", "--data-root", str(place / "data"), env=cache)


def test_two_models_on_a_text_of_ones_own(server: RunningServer, new_page: Callable[..., Any], place: Path) -> None:
    page = new_page()
    page.goto(f"{server.url}?tab=compare&models=first,other&protocol=texts")
    page.wait_for_selector("#wb-compare-evaluate", state="visible")
    page.get_by_text("Here you will see which model is best on a text").wait_for()
    page.wait_for_function("document.querySelector('#wb-compare-models').innerText.includes('other')")
    page.click("#wb-compare-evaluate")
    page.wait_for_function("document.querySelectorAll('.wb-task').length === 2")
    page.wait_for_url(re.compile("models=first%2Cother.*protocol=texts"))
    assert page.get_by_role("button", name="Stop: first/step-00000005 on texts").is_visible()
    page.click("#wb-compare-command summary")
    assert "-m mygpt2 eval --model" in page.inner_text("#wb-compare-command")
    page.close()  # the evaluations go on without it

    page = new_page()
    page.goto(f"{server.url}?tab=compare")
    page.wait_for_function(f"document.querySelectorAll({LINES!r}).length === 2", timeout=180_000)
    page.wait_for_function("document.querySelectorAll('.wb-task .wb-finished').length === 2", timeout=180_000)
    view = page.inner_text("#wb-compare-view")
    assert "Loss in nats per token" in view and "of 2 with" in view and "tokens' SHA-256" in view
    assert page.locator(".wb-whisker").count() == 2  # several documents: errors are known
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
    page.focus("#wb-compare-save summary")
    page.keyboard.press("Enter")
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Table as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert {row["model"] for row in rows} == {"first/step-00000005", "other"}
    assert float(rows[0]["loss"]) < float(rows[1]["loss"]) and rows[0]["token_sha256"] == rows[1]["token_sha256"]
    assert list((place / "runs" / "first" / "evals").glob("step-00000005-*.json"))

    page.click(".wb-tasks-over summary")
    page.get_by_role("button", name="Remove: other on texts").click()
    page.wait_for_function("document.querySelectorAll('.wb-task').length === 1")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.locator("#wb-compare-view").bounding_box()["y"] < page.locator("#wb-compare-models").bounding_box()["y"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate("""const view = document.querySelector(".wb-compare"), section = document.createElement("section");
        section.append(view.querySelector(".wb-scroll").cloneNode(true)); view.append(section)""")  # as by source
    right = page.evaluate("document.querySelector('.wb-verdict').getBoundingClientRect().right")
    assert right <= 390, "a wide table scrolls in its own box, and the answer is not cut off"


def test_the_ticked_runs_of_an_address_are_those_a_tab_begins_with(
    workbench_server: Start, new_page: Callable[..., Any], tmp_path: Path
) -> None:
    runs, _ = small_place(tmp_path)
    for name in ("second", "third"):
        shutil.copytree(runs / "first", runs / name)
    page = new_page()
    page.goto(f"{workbench_server(runs).url}?tab=compare&runs=second,first")
    page.wait_for_function("""['second', 'first'].every((name) =>
        document.querySelector('#wb-compare-models')?.innerText.includes(name))""")
    assert "third" not in page.inner_text("#wb-compare-models")


def test_a_wrong_text_is_a_word_and_starts_nothing(server: RunningServer, browser_page: Any, place: Path) -> None:
    page = browser_page
    before = sorted((place / "runs" / ".workbench" / "tasks").glob("*")) if (place / "runs").exists() else []
    page.goto(f"{server.url}?tab=compare&models=first&protocol=../../etc/passwd")
    page.wait_for_selector("#wb-compare-evaluate", state="visible")
    page.wait_for_function("document.querySelector('#wb-compare-protocol input').value.includes('passwd')")
    page.click("#wb-compare-evaluate")
    page.get_by_text("is outside the folders of this workbench").wait_for()
    assert sorted((place / "runs" / ".workbench" / "tasks").glob("*")) == before
