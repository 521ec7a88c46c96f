"""What benchmarks/workbench.py measures with: generated runs, a server, a Chromium, times and processor use."""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5


def grow(folder: Path, name: str, steps: int, seed: int = 0) -> Path:
    """A finished run of this many steps, as a trainer writes it."""
    sys.path.insert(0, str(ROOT))
    from mygpt2.config import load_config, to_toml
    from mygpt2.run_dir import RunDir, RunWriter

    run = RunDir.create(folder, name)
    noise = random.Random(seed)
    with RunWriter(run, 1) as writer:
        writer.config(to_toml(load_config("tiny")))
        writer.command(["train", "--preset", "tiny", "--run", name])
        now = time.time() - steps
        lines = []
        for step in range(1, steps + 1):
            row = {"schema": 1, "attempt": 1, "step": step, "tokens": step * 8192, "epoch": 0.1,
                   "loss": 3 + 7 / (1 + step / 50) + noise.gauss(0, 0.04), "lr": 1e-3, "grad_norm": 1 + noise.random(),
                   "tokens_per_second": 4000 + noise.gauss(0, 50), "step_ms": 1000.0, "data_wait_ms": 0.1, "mfu": None,
                   "memory_bytes": 10**9, "time": now + step}  # fmt: skip
            lines.append(json.dumps(row))
        run.metrics_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        writer.status(state="running", phase="training", step=steps, steps=steps, tokens=steps * 8192, loss=3.0)
        writer.finish("finished", 0, "finished")
    return run.path


@contextmanager
def serving(runs: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A workbench over `runs`: its address and process."""
    words = [sys.executable, "-u", "-m", "workbench", "--runs", str(runs), "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if found := re.search(r"workbench: (http://\S+)", line):
                break
        else:
            raise SystemExit("the workbench did not start")
        threading.Thread(target=lambda: list(server.stdout or ()), daemon=True).start()
        yield found[1], server
    finally:
        server.terminate()
        server.wait()


@contextmanager
def chromium(path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


class Laps:
    """Seconds since a beginning, by the name of what had happened, one list over all rounds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._began = 0.0

    def begin(self) -> None:
        self._began = time.perf_counter()

    def lap(self, name: str) -> None:
        self.seconds.setdefault(name, []).append(time.perf_counter() - self._began)

    def medians(self) -> dict[str, float]:
        """Of every lap; all are printed."""
        found = {each: statistics.median(times) for each, times in self.seconds.items()}
        print(f"  [{', '.join(f'{each} {value:.2f} s' for each, value in found.items())}]", file=sys.stderr, flush=True)
        return found


def opened(browser: Any) -> Any:
    """A page of its own, with an empty cache."""
    return browser.new_context(viewport={"width": 1360, "height": 900}).new_page()


def opening(browser: Any, url: str, follow: Callable[[Any, Laps], None], rounds: int = ROUNDS) -> Laps:
    """Opens the link so often; `follow` waits for what is to be seen, and takes the times."""
    laps = Laps()
    for _ in range(rounds):
        page = opened(browser)
        laps.begin()
        page.goto(url, wait_until="commit")
        follow(page, laps)
        page.context.close()
    return laps


class Use:
    """Processor time and memory of a server, and of all processes of the browser that this process has started."""

    def __init__(self, server: int) -> None:
        import psutil

        self._psutil = psutil
        self._processes = {"server": [psutil.Process(server)]}
        self._processes["browser"] = [
            each for each in psutil.Process().children(recursive=True) if "chrom" in each.name().lower()
        ]
        self.begin()

    def begin(self) -> None:
        self._began, self._before = time.monotonic(), self._seconds()

    def percent(self) -> dict[str, float]:
        """Of one core since `begin`."""
        passed, now = time.monotonic() - self._began, self._seconds()
        return {name: 100 * (now[name] - self._before[name]) / passed for name in now}

    def megabytes(self) -> dict[str, float]:
        """Memory that is nobody else's as well: of the browser's processes most is shared."""
        return {name: self._sum(lambda each: each.memory_full_info().uss / 2**20, name) for name in self._processes}

    def _seconds(self) -> dict[str, float]:
        return {name: self._sum(lambda each: sum(each.cpu_times()[:2]), name) for name in self._processes}

    def _sum(self, of: Callable[[Any], float], name: str) -> float:
        total = 0.0
        for each in self._processes[name]:
            try:
                total += of(each)
            except self._psutil.NoSuchProcess:  # the browser ends a helper it needs no more
                continue
        return total
