"""A run's whole life, as someone at the page sees it: two clicks, a closed tab, a killed server, a killed rank."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mygpt2.run_dir import RunDir, rank_states, state_of
from tests.workbench.conftest import RunningServer, Start

LIMIT = 240.0


def wait_for(what: Callable[[], Any], why: str, limit: float = LIMIT) -> Any:
    """The first true answer; the limit only keeps a broken program from hanging the tests."""
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{why} did not happen in {limit:.0f} s")


def step_of(run: RunDir) -> int:
    return int(state_of(run).status.get("step") or 0)


def processes_of(run: RunDir) -> list[psutil.Process]:
    """Every process whose command names this run's folder of runs."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "mygpt2" in " ".join(words) and str(run.path.parent) in words and run.name in words:
            found.append(process)
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    runs = tmp_path_factory.mktemp("life") / "runs"
    yield runs
    for folder in runs.glob("[!.]*"):
        for process in processes_of(RunDir(folder)):
            process.kill()


def points_drawn(page: Any) -> int:
    """How many points of the loss the page holds, from the chart's own text alternative or its data."""
    return int(
        page.evaluate("""() => Math.max(0, ...[...document.querySelectorAll('.wb-chart .js-plotly-plot')]
        .flatMap((plot) => plot.data.map((trace) => trace.x ? trace.x.length : 0)))""")
    )


def open_monitor(page: Any, server: RunningServer, name: str) -> None:
    page.goto(f"{server.url}?tab=monitor&runs={name}")
    page.wait_for_selector("#wb-monitor-head :text('" + name + "')")


def test_two_clicks_a_killed_server_a_stop_and_a_killed_rank(
    workbench_server: Start, runs: Path, new_page: Callable[..., Any]
) -> None:
    server = workbench_server(runs)
    page = new_page()
    page.goto(server.url)
    page.click("#train-welcome-start")  # the first click; the second was never needed
    wait_for(lambda: (runs / "tiny").is_dir() or list(runs.glob("tiny*")), "a run's folder")
    run = RunDir(next(runs.glob("tiny*")))
    wait_for(lambda: step_of(run) >= 3, "the third step")
    assert len(rank_states(run)) == 2, "two torchrun processes"
    open_monitor(page, server, run.name)
    wait_for(lambda: points_drawn(page) >= 3, "a loss on the chart")
    before = points_drawn(page)
    wait_for(lambda: points_drawn(page) > before, "a moving loss")

    page.close()  # the tab is closed, then the server is killed: the run goes on
    server.kill()
    seen = step_of(run)
    wait_for(lambda: step_of(run) > seen + 1, "another step without a server")

    server = workbench_server(runs)
    page = new_page()
    began = time.monotonic()
    open_monitor(page, server, run.name)
    page.wait_for_selector("#wb-monitor-head .wb-badge.wb-running")
    listed = time.monotonic() - began
    steps = [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1)), "no gap"
    wait_for(lambda: points_drawn(page) >= len(steps), "all points after the restart")
    assert listed < 60  # 5 s is promised for an idle machine; here it only must not hang

    page.get_by_role("button", name="Stop and save").click()
    page.locator("#wb-monitor-head").get_by_text("every process is gone").click(timeout=120_000)
    page.wait_for_selector("#wb-monitor-head .wb-pop[open] :text('rank 1')")
    page.wait_for_selector("#wb-monitor-head .wb-badge.wb-stopped", timeout=120_000)
    wait_for(lambda: not processes_of(run), "the end of every process of the run", 30)
    assert state_of(run).state == "stopped" and json.loads(run.exit_file.read_text())["code"] == 85
    at = step_of(run)
    assert (run.checkpoints_dir / f"step-{at:08d}" / "MANIFEST.json").is_file()

    page.get_by_role("button", name="Resume").click()
    wait_for(lambda: step_of(run) > at, "a step after the resume")
    page.close()
    rank = next(r for r in rank_states(run) if r.rank == 1)
    assert rank.process is not None
    os.kill(rank.process.pid, signal.SIGKILL)  # with no browser open
    page = new_page()
    open_monitor(page, server, run.name)
    page.get_by_role("tab", name="Events").click()
    alert = page.locator("#wb-monitor-alerts")
    alert.get_by_text("rank 1").first.wait_for(timeout=120_000)
    assert "SIGKILL" in alert.inner_text()

    wait_for(lambda: state_of(run).state == "running" and state_of(run).processes, "the restart of the dead rank")
    page.locator("#wb-monitor-head [data-press=wb-do-kill]").wait_for(state="attached")
    page.locator("#wb-monitor-head .wb-menu > summary").click()
    page.get_by_role("menuitem", name="Kill …").click()
    page.click("#wb-do-kill-yes")
    wait_for(lambda: not processes_of(run), "the end of every killed process", 60)
    page.locator("#wb-monitor-head").get_by_text("every process is gone").click()
    page.wait_for_selector("#wb-monitor-head .wb-pop[open] :text('rank 0')")
    assert not state_of(run).alive
