"""A real server in a process of its own, a real Chromium, and run folders to look at."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.forks import FORKS, PRELOADED, Forked

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0
PAGE = ["workbench.app", "workbench.shelf", "workbench.addresses", "workbench.document", "workbench.login",
        "uvicorn.protocols.http.auto", "uvicorn.lifespan.on", "scipy.special", "scipy.fft", "tokenizers",
        "numpy.testing"]  # fmt: skip
SIZE = {"width": 1360, "height": 900}


def _serve(words: list[str], environment: dict[str, str], fresh: bool) -> None:
    """A server's whole process: `python -m workbench` in this one, a fork that has imported it, or as a new program."""
    os.chdir(ROOT)
    if fresh:
        os.execve(sys.executable, [sys.executable, "-u", "-m", "workbench", *words], environment)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    from workbench.__main__ import main

    os._exit(main(words))


class RunningServer:
    """One workbench. Its log grows while it runs."""

    def __init__(self, words: list[str], environment: dict[str, str], fresh: bool, out: Path) -> None:
        self.process = Forked(_serve, words, environment, fresh, out=out)
        self.pid = self.process.pid
        ends = time.monotonic() + START_SECONDS
        while not (found := re.search(r"workbench: (http://\S+)\s", self.log)):
            assert self.process.poll() is None and time.monotonic() < ends, f"the server did not start:\n{self.log}"
            time.sleep(0.02)
        self.url = found[1]

    @property
    def log(self) -> str:
        try:
            return self.process.said()
        except FileNotFoundError:
            return ""  # not yet at work

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Its exit code after SIGTERM, -9 if it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


Start = Callable[..., RunningServer]


@pytest.fixture(scope="module")
def workbench_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """start(runs, *options, env={}, fresh=False) -> RunningServer; every server of the module is ended after it.

    It is forked from a process that has imported the page: half a second of processor time where a start takes four.
    `fresh` is the command as a person gives it, for what its imports do too.
    """
    from workbench.page import TABS

    FORKS.set_forkserver_preload([*PRELOADED, *PAGE, *(f"workbench.tabs.{name}.tab" for name in TABS)])
    servers: list[RunningServer] = []

    def start(runs: Path, *options: str, env: dict[str, str] | None = None, fresh: bool = False) -> RunningServer:
        words = ["--runs", str(runs), "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        servers.append(RunningServer(words, environment, fresh, tmp_path_factory.mktemp("server") / "log"))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@dataclass
class Watched:
    """What a page did that it should not have."""

    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def on_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.foreign.append(request.url)

    def judge(self) -> None:
        """AssertionError for what there was since the last time."""
        foreign, errors = self.foreign.copy(), self.errors.copy()
        self.foreign.clear()
        self.errors.clear()
        assert not foreign, f"requests to other hosts: {foreign}"
        assert not errors, f"uncaught errors in the page: {errors}"


class Held:
    """Requests of a page to an address, such as queue/join, that hold a text: each waits until `let_go`."""

    def __init__(self, page: Any, address: str, holding: str = "") -> None:
        self.kept: list[Any] = []
        self._holds = True

        def hold(route: Any) -> None:
            if self._holds and holding in (route.request.post_data or ""):
                self.kept.append(route)
            else:
                route.continue_()

        page.route(f"**/{address}*", hold)

    def let_go(self) -> None:
        """Those that wait, in the order in which they came, and all that come from now on."""
        self._holds = False
        while self.kept:
            self.kept.pop(0).continue_()


class _Nothing(BaseHTTPRequestHandler):
    """An empty page of the workbench's own site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Pages:
    """One Chromium for all tests. What they open first is always the same page: a workbench opened where another one
    was costs a third of the processor time of one in a new process, whose every script is compiled anew."""

    def __init__(self, browser: Any, empty: str) -> None:
        self.context = browser.new_context()
        self.empty = empty
        self.watched = Watched()
        self._first: Any = None
        self._taken = False
        self._more: list[Any] = []

    def open(self, viewport: dict[str, int] | None = None, color_scheme: str = "light") -> Any:
        if self._taken:
            page = self.new(self.watched)
            self._more.append(page)
        else:
            if self._first is None or self._first.is_closed():
                self._first = self.new(self.watched)
            page, self._taken = self._first, True
        page.set_viewport_size(viewport or SIZE)
        page.emulate_media(color_scheme=color_scheme)
        return page

    def new(self, watched: Watched) -> Any:
        """A page of its own, to be closed by whoever asked for it."""
        page = self.context.new_page()
        page.set_viewport_size(SIZE)
        page.set_default_timeout(60_000)
        page.on("request", watched.on_request)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        # By default a condition is looked at in every frame, which makes the browser draw as many.
        wait = page.wait_for_function
        page.wait_for_function = lambda condition, **options: wait(condition, **{"polling": 50, **options})
        return page

    def leave(self) -> None:
        """All pages are as new for the next test; AssertionError if one did in this test what it must not."""
        for page in self._more:
            page.close()
        self._more.clear()
        self._taken = False
        if self._first is not None and not self._first.is_closed():
            self._first.unroute_all()
            with contextlib.suppress(Exception):  # a page that has no storage, such as that of a server that is gone
                self._first.evaluate("localStorage.clear(), sessionStorage.clear()")
            self._first.goto(self.empty)
            self.context.new_cdp_session(self._first).send("Page.resetNavigationHistory")
        self.context.clear_cookies()
        self.watched.judge()


@pytest.fixture(scope="session")
def pages() -> Iterator[Pages]:
    """Debian's Chromium under Playwright."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None and os.environ.get("WORKBENCH_BROWSER_TESTS") != "1":
        pytest.skip("no Chromium on this machine (apt-get install chromium, or CHROMIUM=/path)")
    assert path, "no Chromium: apt-get install chromium, or CHROMIUM=/path/to/chromium"
    options = ["--no-sandbox", "--disable-background-networking", "--disable-gpu", "--process-per-site"]
    with ThreadingHTTPServer(("127.0.0.1", 0), _Nothing) as site, sync_playwright() as playwright:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield Pages(browser, f"http://127.0.0.1:{site.server_port}/")
        browser.close()
        site.shutdown()


@pytest.fixture
def new_page(pages: Pages) -> Iterator[Callable[..., Any]]:
    """new_page(viewport=, color_scheme=) -> a page that fails the test on foreign requests and uncaught errors."""
    yield pages.open
    pages.leave()


@pytest.fixture
def browser_page(new_page: Callable[..., Any]) -> Any:
    return new_page()


def make_run(
    runs: Path,
    name: str,
    steps: int = 60,
    *,
    preset: str = "tiny",
    settings: tuple[str, ...] = (),
    state: str = "finished",
    seed: int = 0,
    sample: str = " a sample of text",
) -> Path:
    """A run folder as a trainer leaves it: config, command, metrics, an evaluation, a sample, the end."""
    from mygpt2.config import load_config, to_toml
    from mygpt2.run_dir import RunDir, RunWriter

    run = RunDir.create(runs, name)
    config = load_config(preset, None, list(settings))
    noise = random.Random(seed)
    began = time.time() - 2.0 * steps
    clock = {"now": began}
    with RunWriter(run, 1, clock=lambda: clock["now"]) as writer:
        writer.config(to_toml(config))
        writer.command(["train", "--preset", preset, "--run", name])
        writer.event("start", step=0)
        tokens = config.train.batch_tokens
        for step in range(1, steps + 1):
            clock["now"] = began + 2.0 * step
            loss = 4.0 + 6.0 / (1 + step / 8) + noise.gauss(0, 0.05)
            writer.metrics(step=step, tokens=step * tokens, epoch=step / steps, loss=loss, lr=1e-3 * step / steps,
                           grad_norm=1.0 + noise.random(), tokens_per_second=4000.0, step_ms=2000.0, data_wait_ms=0.5,
                           memory_bytes=10**9)  # fmt: skip
        writer.event("eval", step=steps, protocol="run", loss=4.1, perplexity=60.3, bits_per_byte=2.1, tokens=1000,
                     bytes=3000, token_sha256="0" * 64, seconds=1.0)  # fmt: skip
        writer.sample(step=steps, prompt="The", text=sample, ids=[1], logprobs=[-1.0], seed=1)
        writer.status(state="running", phase="training", step=steps, steps=steps, tokens=steps * tokens, loss=4.1)
        if state in ("finished", "stopped", "failed"):
            writer.finish(state, {"finished": 0, "stopped": 85, "failed": 70}[state], state)
    (run.logs_dir / "rank-0.log").write_text("step 1\nstep 2\n", encoding="utf-8")
    return run.path
