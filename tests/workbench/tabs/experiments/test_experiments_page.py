"""Experiments in a real Chromium: three clicks to a running sweep that outlives its server, and a verdict from disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import load_config
from mygpt2.run_dir import RunDir, state_of
from mygpt2.run_dir.paths import list_runs
from tests.life.harness import corpus
from tests.workbench.accessible import violations
from tests.workbench.conftest import RunningServer, Start
from tests.workbench.tabs.experiments.made import a_base, judged

SHORT = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 32, "data.tokenizer": "gpt2:300",
    "data.lanes": 4, "data.window": 2, "data.threads": 1, "data.validation_fraction": 0.1, "log.trace": False,
    "data.validation_tokens": 2048, "train.batch_tokens": 256, "train.steps": 40, "train.device": "cpu",
    "train.compile": "false", "eval.interval": 0, "eval.yardstick": "off", "sample.interval": 0, "sample.prompts": [],
    "log.plot_interval": 0, "schedule.warmup_steps": 2, "optimizer.name": "adamw",
}  # fmt: skip
MENU = ".wb-run-buttons .wb-menu > summary"
START = ".wb-exp-form[open] .wb-exp-start:not([disabled])"
HOSTILE = '<img src=x onerror="window.hurt=1">'


def until(done: Callable[[], bool], seconds: float = 240) -> None:
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a second to sweep from, and an experiment that was judged."""
    from tests.experiments.made import finished, text

    folder = tmp_path_factory.mktemp("experiments")
    source = {"data.source": str(corpus(folder / "corpus")), "data.cache_dir": str(folder / "cache")}
    finished(folder / "runs", "base", load_config("tiny", None, {**SHORT, **source}), *text())
    a_base(folder / "runs")
    judged(folder / "runs", "--optimizer.lr", "3e-3")
    return folder


def serve(start: Start, place: Path) -> RunningServer:
    return start(place / "runs", "--data-root", str(place), env={"MYGPT2_CACHE": str(place / "cache")})


def test_three_clicks_from_a_finished_run_to_a_sweep_that_outlives_the_server(
    workbench_server: Start, place: Path, new_page: Callable[..., Any]
) -> None:
    server = serve(workbench_server, place)
    page = new_page()
    page.goto(f"{server.url}?runs=base")
    page.click(MENU)
    page.get_by_role("menuitem", name="Would another rate be better?").click()
    page.wait_for_selector(START)
    told = page.inner_text(".wb-exp-form[open] .wb-exp-cost")
    assert (
        "5 values of optimizer.lr on base" in told
        and "5 runs to train" in told
        and "one run after the other" in told.lower()
    )
    page.click(START)
    page.wait_for_selector(".wb-exp-progress")
    name = "sweep-base-lr"
    assert f"name={name}" in page.url and page.locator(".wb-exp-arm").count() == 5

    runs = place / "runs"
    arms = lambda: [run.name for run in list_runs(runs) if run.name.startswith(f"{name}.")]  # noqa: E731
    until(lambda: any(state_of(RunDir(runs / arm)).alive for arm in arms()))
    first = arms()
    server.kill()
    until(lambda: state_of(RunDir(runs / first[0])).state in ("stopped", "finished"))  # it ends without a server
    server = serve(workbench_server, place)
    until(lambda: len(arms()) > len(first))  # and the sweep goes on
    page.goto(f"{server.url}?tab=experiments&name={name}")
    page.locator("[data-act=stop]").click()
    page.wait_for_selector("[data-act=go]")
    page.wait_for_function("!document.querySelector('.wb-exp-progress')")
    until(lambda: not any(state_of(RunDir(runs / arm)).alive for arm in arms()))  # one just begun is stopped too


def test_a_verdict_is_shown_from_files_with_its_interval_and_everything_behind_it(
    workbench_server: Start, place: Path, new_page: Callable[..., Any]
) -> None:
    folder = next(path for path in (place / "runs" / "_experiments").iterdir() if path.name.startswith("judge-"))
    record = json.loads((folder / "verdict.json").read_text())
    record["looks"][0]["notices"] = [HOSTILE]
    (folder / "verdict.json").write_text(json.dumps(record))
    server = serve(workbench_server, place)
    page = new_page()
    page.goto(f"{server.url}?tab=experiments&name={folder.name}")
    page.wait_for_selector(".wb-exp-chart")
    assert page.locator(".wb-verdict .wb-chip").inner_text() == "keep" and page.locator(".wb-exp-dot").count() == 5
    assert HOSTILE in page.inner_text(".wb-exp-notice") and not page.evaluate("window.hurt")
    for width in (1360, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert violations(page) == []
    page.set_viewport_size({"width": 1360, "height": 844})
    page.focus(".wb-exp-can .wb-menu summary")
    page.keyboard.press("Enter")
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Save everything as JSON").click()
    assert json.loads(Path(download.value.path()).read_text())["looks"][0]["verdict"] == "keep"
    page.locator(".wb-exp-arm button").first.click()
    page.wait_for_function("location.search.includes('tab=monitor')")
    assert "tiny" in page.url
