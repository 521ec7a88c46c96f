"""A real server in a process of its own, a real Chromium, and run folders to look at."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

START_SECONDS = 120.0


@dataclass
class RunningServer:
    """One workbench. `log` grows while it runs."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


Start = Callable[..., RunningServer]


@pytest.fixture(scope="module")
def workbench_server() -> Iterator[Start]:
    """start(runs, *options, env={}) -> RunningServer; every server of the module is ended after it."""
    servers: list[RunningServer] = []

    def start(runs: Path, *options: str, env: dict[str, str] | None = None) -> RunningServer:
        words = [sys.executable, "-u", "-m", "workbench", "--runs", str(runs), "--port", "0", *options]
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), **(env or {})}
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=root
        )
        server = RunningServer(process)
        servers.append(server)
        ready = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                server.log.append(line)
                if found := re.search(r"workbench: (http://\S+)", line):
                    server.url = found[1]
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        assert ready.wait(START_SECONDS) and server.url, "the server did not start:\n" + "".join(server.log)
        return server

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium under Playwright."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None and os.environ.get("WORKBENCH_BROWSER_TESTS") != "1":
        pytest.skip("no Chromium on this machine (apt-get install chromium, or CHROMIUM=/path)")
    assert path, "no Chromium: apt-get install chromium, or CHROMIUM=/path/to/chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        )
        yield browser
        browser.close()


@dataclass
class Watched:
    """What a page did that it should not have."""

    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """new_page(**context options) -> a page that fails the test on foreign requests and uncaught errors."""
    contexts: list[Any] = []
    watched = Watched()

    def make(**options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)

        def on_request(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
                watched.foreign.append(request.url)

        page.on("request", on_request)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not watched.foreign, f"requests to other hosts: {watched.foreign}"
    assert not watched.errors, f"uncaught errors in the page: {watched.errors}"


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
