"""The page around the tabs, in a real Chromium: links, keys, themes, narrow screens, foreign requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.workbench.conftest import RunningServer, Start, make_run
from workbench.page import TABS

SELECTED = "#wb-tabs > .tab-wrapper button[role=tab][aria-selected=true]"
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs, "one", 40)
    make_run(runs, "two", 40, seed=1)
    return runs


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server under test writes down whom it tried to reach."""
    return tmp_path_factory.mktemp("network") / "reached.txt"


@pytest.fixture(scope="module")
def server(workbench_server: Start, runs: Path, reached: Path) -> RunningServer:
    here = Path(__file__)
    path = os.pathsep.join([str(here.parents[2]), str(here.parent / "watched")])
    return workbench_server(runs, env={"PYTHONPATH": path, "WATCHED_NETWORK": str(reached)})


def open_page(page: Any, url: str) -> Any:
    page.goto(url)
    page.wait_for_selector(SELECTED)
    return page


def select(page: Any, tab: str) -> None:
    page.click(f'button[role=tab][data-tab-id="{tab}"]')
    page.wait_for_selector(f'{SELECTED}[data-tab-id="{tab}"]')
    page.wait_for_timeout(400)  # the tab's first answers


def code_of(url: str, headers: dict[str, str], data: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_foreign_hosts_and_origins_are_refused_for_pages_events_and_server_functions(server: RunningServer) -> None:
    assert code_of(server.url, {}) == 200
    for path in ("", "config", "gradio_api/queue/join", "gradio_api/component_server", "gradio_api/call/list_runs"):
        url = server.url + path
        assert code_of(url, {"Host": "evil.com"}, b"{}") == 400, path
        assert code_of(url, {"Origin": "http://evil.com", "Content-Type": "text/plain"}, b"{}") == 403, path


def test_files_of_the_machine_and_of_runs_are_not_served(server: RunningServer, runs: Path) -> None:
    for path in (runs / "one" / "config.toml", Path("/etc/passwd"), Path(__file__)):
        assert code_of(f"{server.url}gradio_api/file={path}", {}) in (403, 404), path
    assert code_of(f"{server.url}gradio_api/runs", {}) == 404  # the library's own history is off


def test_tabs_links_keys_and_themes(server: RunningServer, browser_page: Any) -> None:
    page = open_page(browser_page, server.url)
    assert page.locator(SELECTED).inner_text() == "Monitor"  # there are runs
    assert page.evaluate("getComputedStyle(document.body).getPropertyValue('--wb-accent').trim()")
    names = [tab.get_attribute("data-tab-id") for tab in page.query_selector_all("button[role=tab]")]
    assert [name for name in names if name in TABS] == list(TABS)
    page.locator("body").press("g")
    page.locator("body").press("s")
    page.wait_for_selector(f'{SELECTED}[data-tab-id="sample"]')
    page.wait_for_function("new URL(location).searchParams.get('tab') === 'sample'")
    page.locator("body").press("?")
    page.wait_for_selector("dialog.wb-help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.wb-help", state="hidden")
    before = page.evaluate("document.body.classList.contains('dark')")
    page.click("[data-wb=theme]")
    assert page.evaluate("document.body.classList.contains('dark')") is not before
    open_page(page, server.url + "?tab=data")  # the choice is kept, the link is followed
    page.wait_for_selector(f'{SELECTED}[data-tab-id="data"]')
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(not before).lower()}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_is_accessible_in_both_themes(
    server: RunningServer, new_page: Callable[..., Any], scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(new_page(color_scheme=scheme), server.url)
    found = []
    for tab in TABS:
        select(page, tab)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in SERIOUS:
                nodes = [node["html"][:160] for node in violation["nodes"][:4]]
                found.append((tab, violation["id"], violation["help"], nodes))
    assert not found, "\n".join(map(str, found))


def test_a_narrow_screen_has_no_sideways_scroll(server: RunningServer, new_page: Callable[..., Any]) -> None:
    page = open_page(new_page(viewport={"width": 390, "height": 800}), server.url)
    for tab in TABS:
        open_page(page, f"{server.url}?tab={tab}")
        page.wait_for_selector(f'{SELECTED}[data-tab-id="{tab}"], button[role=tab]')
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), tab


def test_the_server_itself_reaches_nobody(server: RunningServer, reached: Path, browser_page: Any) -> None:
    """After every tab of the page was opened; the watch is shown to work by a look-up of its own."""
    page = open_page(browser_page, server.url)
    for tab in TABS:
        select(page, tab)
    assert not reached.exists(), reached.read_text()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "watched"), "WATCHED_NETWORK": str(reached)}
    look_up = "import socket\ntry: socket.getaddrinfo('example.invalid', 80)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", look_up], env=environment, check=True)
    assert "example.invalid" in reached.read_text()
    reached.unlink()


def test_two_open_pages_on_a_growing_run_leave_the_servers_memory_flat(
    server: RunningServer, runs: Path, new_page: Callable[..., Any]
) -> None:
    """A short form of `benchmarks/workbench.py soak`."""
    metrics = runs / "one" / "metrics.jsonl"
    row = json.loads(metrics.read_text().splitlines()[-1])
    process = psutil.Process(server.process.pid)
    for _ in range(2):
        open_page(new_page(), f"{server.url}?tab=monitor&runs=one")
    page = open_page(new_page(), f"{server.url}?tab=monitor&runs=one,two")
    memory = []
    for round_ in range(8):
        with metrics.open("a") as file:
            for _ in range(100):
                row["step"] += 1
                file.write(json.dumps(row) + "\n")
        page.wait_for_function(f"document.body.innerText.includes('step {row['step']}')")
        if round_ >= 2:  # the first rounds fill what is filled once
            memory.append(process.memory_info().rss / 2**20)
    assert max(memory) - min(memory) < 50


def test_the_server_ends_at_once_although_pages_are_open_and_leaves_the_queue_to_the_next(
    workbench_server: Start, tmp_path: Path, browser_page: Any
) -> None:
    make_run(tmp_path / "runs", "one", 20)
    server = workbench_server(tmp_path / "runs")
    page = open_page(browser_page, f"{server.url}?tab=monitor&runs=one")
    for tab in ("sample", "ripples", "monitor"):
        select(page, tab)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    from workbench.jobs import Jobs

    jobs = Jobs(tmp_path / "runs", ["cpu"])
    jobs.start()
    assert jobs.owner
    jobs.close()
