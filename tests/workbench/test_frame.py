"""The page around the tabs, in a real Chromium: links, keys, themes, narrow screens, foreign requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.workbench.accessible import COLOURS, violations
from tests.workbench.conftest import RunningServer, Start, make_run
from workbench.page import TABS

SELECTED = "#wb-tabs > .tab-wrapper button[role=tab][aria-selected=true]"


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
    return workbench_server(runs, env={"PYTHONPATH": path, "WATCHED_NETWORK": str(reached)}, fresh=True)


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


@pytest.mark.parametrize("width", [1360, 390])
def test_the_tabs_are_one_stop_of_the_keyboard_and_arrows_go_along_them(
    server: RunningServer, new_page: Callable[..., Any], width: int
) -> None:
    page = open_page(new_page(viewport={"width": width, "height": 800}), f"{server.url}?tab=monitor")
    at = "document.activeElement.dataset.tabId"
    stop = "#wb-tabs > .tab-wrapper > [role=tablist] > [tabindex='0']"
    page.wait_for_selector(f"{stop}[data-tab-id=monitor]")
    assert page.locator(stop).count() == 1
    page.locator(stop).focus()
    for key, tab in (("ArrowRight", "experiments"), ("End", "data"), ("ArrowRight", "train"), ("ArrowLeft", "data"),
                     ("Home", "train")):  # fmt: skip
        page.keyboard.press(key)
        assert page.evaluate(at) == tab
    assert page.locator(SELECTED).get_attribute("data-tab-id") == "monitor", "the focus alone opens none"
    page.keyboard.press("Tab")
    assert page.evaluate(at) is None
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(at) == "monitor", "the one that is open"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{SELECTED}[data-tab-id=experiments]")
    page.wait_for_selector(f"{stop}[data-tab-id=experiments]")


def test_every_tab_is_accessible_in_both_themes(server: RunningServer, browser_page: Any) -> None:
    page = open_page(browser_page, server.url)
    dark = "document.body.classList.contains('dark')"
    found = []
    for tab in TABS:
        select(page, tab)
        first = page.evaluate(dark)
        found += [(tab, *wrong) for wrong in violations(page)]
        page.click("[data-wb=theme]")
        assert page.evaluate(dark) is not first
        found += [(tab, *wrong) for wrong in violations(page, *COLOURS)]
    assert not found, "\n".join(map(str, found))


COVERED = """() => {
  const all = document.querySelector("#wb-tabs"), bar = all.querySelector(":scope > .tab-wrapper > [role=tablist]");
  return bar.getBoundingClientRect().top < all.getBoundingClientRect().bottom;
}"""
PHONE, ZOOMED = {"width": 390, "height": 800}, {"width": 640, "height": 400}  # 1280 by 800 at 200 %


def test_a_phone_has_all_tabs_at_its_bottom_and_no_screen_scrolls_sideways(
    server: RunningServer, new_page: Callable[..., Any]
) -> None:
    page = open_page(new_page(viewport=PHONE), server.url)
    page.emulate_media(reduced_motion="reduce")
    found = []
    for tab in TABS:
        select(page, tab)
        box = page.locator(f'{SELECTED}[data-tab-id="{tab}"]').bounding_box()
        assert box["height"] >= 44 and box["width"] >= 44 and box["y"] + box["height"] <= PHONE["height"], tab
        found += [(tab, *wrong) for wrong in violations(page)]
        for size in (ZOOMED, PHONE):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (tab, size)
            page.evaluate("scrollTo(0, 1e6)")
            assert not page.evaluate(COVERED), f"the bar covers the end of {tab}"
    assert not found, "\n".join(map(str, found))
    page.set_viewport_size({"width": 1360, "height": 900})  # turned, or put on a larger screen
    page.wait_for_function("document.querySelector('[data-tab-id=data]').getBoundingClientRect().bottom < 200")


def test_something_is_seen_before_the_page_is_made_in_the_colours_that_were_chosen(
    server: RunningServer, new_page: Callable[..., Any]
) -> None:
    page = new_page(color_scheme="light")
    page.route("**/assets/*.js", lambda route: route.abort())
    page.goto(f"{server.url}?tab=compare")
    opening = page.locator("#wb-opening")
    assert opening.evaluate("box => getComputedStyle(box).backgroundColor") == "rgb(246, 247, 245)"
    page.evaluate("localStorage.setItem('workbench-theme', 'dark')")
    page.reload()
    assert opening.locator(".now").inner_text() == "Compare"
    assert opening.locator(".tabs").inner_text().split() == [name.capitalize() for name in TABS]
    assert opening.evaluate("box => getComputedStyle(box).backgroundColor") == "rgb(17, 22, 27)"
    page.wait_for_function("document.querySelector('#wb-opening p').textContent.includes('did not arrive')")


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
    process = psutil.Process(server.pid)
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
    assert server.end() == 0
    from workbench.jobs import Jobs

    jobs = Jobs(tmp_path / "runs", ["cpu"])
    jobs.start()
    assert jobs.owner
    jobs.close()


def test_back_and_forward_go_between_tabs_and_runs(server: RunningServer, browser_page: Any) -> None:
    page = open_page(browser_page, f"{server.url}?tab=monitor&runs=one")
    asked = "new URL(location).searchParams.get"
    before = page.evaluate("history.length")
    shown = "document.querySelector('.wb-chart')?.chart?.view.runs.join() === "
    page.wait_for_function(f"{shown}'one'")
    page.get_by_text("two", exact=True).first.click()
    page.wait_for_function(f"{shown}'two' && {asked}('runs') === 'two'")
    page.go_back()
    page.wait_for_function(f"{shown}'one' && {asked}('runs') === 'one'")
    page.go_forward()
    page.wait_for_function(f"{shown}'two'")
    page.go_back()
    page.wait_for_function(f"{shown}'one'")
    select(page, "train")
    select(page, "compare")
    assert page.evaluate("history.length") == before + 2
    page.go_back()
    page.wait_for_selector(f'{SELECTED}[data-tab-id="train"]')
    page.go_back()
    page.wait_for_selector(f'{SELECTED}[data-tab-id="monitor"]')
    page.wait_for_function(f"{asked}('runs') === 'one'")
    page.go_forward()
    page.wait_for_selector(f'{SELECTED}[data-tab-id="train"]')
    assert page.evaluate("history.length") == before + 2  # going there is no move of its own


def test_a_page_at_rest_asks_nothing_and_wakes(workbench_server: Start, tmp_path: Path, browser_page: Any) -> None:
    runs = tmp_path / "runs"
    make_run(runs, "one", 3)
    server, page = workbench_server(runs), browser_page
    requests: list[str] = []
    page.goto(f"{server.url}?tab=monitor&runs=one")
    page.wait_for_function("document.querySelector('.wb-chart')?.chart?.series.get('one')?.n === 3")
    page.on("request", lambda request: requests.append(request.url))
    for _ in range(15):  # what opening asks for may take its time
        requests.clear()
        page.wait_for_timeout(3500)  # more than twice as long as there is between two questions about a run at work
        if not [url for url in requests if "/changes" not in url]:
            break
    else:
        pytest.fail(f"it goes on asking: {requests}")
    make_run(runs, "two", 3)
    page.get_by_text("two", exact=True).first.wait_for()


def test_a_rewritten_host_is_told_on_the_page(server: RunningServer, browser_page: Any) -> None:
    """As behind a proxy that asks the server for its own address: the server sees another Host than the browser."""
    page = browser_page
    outside = server.url.replace("127.0.0.1", "localhost")

    def rewritten(route: Any) -> None:
        headers = {name: value for name, value in route.request.headers.items() if name != "host"}
        route.fulfill(response=route.fetch(url=route.request.url.replace(outside, server.url), headers=headers))

    page.route(f"{outside}**/*", rewritten)
    page.goto(outside)
    name = outside.removeprefix("http://").rstrip("/")
    page.wait_for_function(f"document.querySelector('#wb-opening').innerText.includes('--allow-host {name}')")
    assert page.locator("#wb-opening").is_visible()


ATTACK = """<a id=go href="{url}?tab=data&source=owner/name">look</a><iframe src="{url}"></iframe><script>
  const post = (path, more) => fetch("{url}" + path, {{ method: "POST", mode: "no-cors", ...more }});
  const call = {{ headers: {{ "content-type": "text/plain" }}, body: '{{"fn_index": 0, "data": []}}' }};
  new Image().src = "{url}logout"; new Image().src = "{url}gradio_api/file=http://127.0.0.1:1/x";
  Promise.allSettled([
    post("gradio_api/run/predict", call), post("gradio_api/upload", {{ body: new FormData() }}),
    post("login", {{ body: new URLSearchParams("password=x") }}),
    fetch("{url}config").then((r) => r.text()).then((text) => {{ window.stolen = text; }}),
  ]).then(() => {{ window.tried = true; }});
</script>"""


@pytest.fixture
def other_site(server: RunningServer) -> Iterator[str]:
    """The address of a page of another site that attacks the server."""

    class Attack(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(ATTACK.format(url=server.url).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Attack) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://localhost:{site.server_port}/"
        site.shutdown()


def test_a_page_of_another_site_gets_nothing_and_its_link_starts_no_work(
    server: RunningServer, reached: Path, browser_page: Any, other_site: str
) -> None:
    page, let_in = browser_page, []
    page.on("response", lambda answer: let_in.append(answer.url) if answer.status < 400 else None)
    page.goto(other_site)
    page.wait_for_function("window.tried")
    assert page.evaluate("window.stolen") is None
    assert [url for url in let_in if url.startswith(server.url)] in ([], [server.url])  # the page, for the frame
    assert all("gradio" not in frame.content() for frame in page.frames[1:])  # which does not show it
    page.click("#go")
    page.wait_for_function("document.querySelector('#wb-data-message')?.innerText.includes('press Open')")
    assert page.input_value("#wb-data-source textarea, #wb-data-source input") == "owner/name"
    assert not reached.exists(), reached.read_text()


def test_markup_that_got_into_the_page_runs_no_script(server: RunningServer, browser_page: Any) -> None:
    page = open_page(browser_page, server.url)
    page.evaluate("""() => {
      const box = document.querySelector(".wb-head"), script = document.createElement("script");
      box.insertAdjacentHTML("beforeend", "<img src=data:, onerror='window.ran = 1'>");
      box.insertAdjacentHTML("beforeend", "<a href='javascript:window.ran = 1' id=bad>x</a>");
      script.textContent = "window.ran = 1";
      box.append(script);
      document.querySelector("#bad").click();
    }""")
    page.wait_for_function("document.querySelector('.wb-head img').complete")
    assert page.evaluate("window.ran") is None


def test_windows_of_one_browser_hold_none_of_its_six_connections(
    server: RunningServer, browser_page: Any, new_page: Callable[..., Any]
) -> None:
    asked: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    open_page(browser_page, server.url)
    another = new_page()
    open_page(another, server.url)
    asked.clear()
    for _ in range(2):
        with browser_page.expect_request(lambda request: "/changes" in request.url):
            pass
    assert not [url for url in asked if "since=" in url or "heartbeat" in url]
    assert browser_page.evaluate("window.gradio_config.connect_heartbeat") is False
