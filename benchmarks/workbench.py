"""The workbench under load, in a real Chromium: first use, two hundred runs, long curves, memory over hours.

    python benchmarks/workbench.py [first|list|curves|soak] [--minutes 60] [--chromium PATH] [--json OUT]

first: from the start of the process to a page whose Start button works. Mark 3 s for the page.
list: 200 runs, from opening Monitor to the last row of the list. Mark 2 s.
curves: four runs of 70,000 steps, from opening the link to all their points drawn. Mark 2 s.
soak: two open pages on a growing run; the server's memory is read every 10 s after two minutes. Mark ± 50 MB.

Runs are generated; the server is a process of its own. Times are medians of five.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MARKS = {"first": 3.0, "list": 2.0, "curves": 2.0, "soak": 50.0}
WARM_UP_S, EVERY_S = 120.0, 10.0


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
def serving(runs: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A workbench over `runs`: its address and process."""
    words = [sys.executable, "-u", "-m", "workbench", "--runs", str(runs), "--port", "0"]
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


def seconds_until(browser: Any, url: str, ready: Callable[[Any], Any], rounds: int = 5) -> list[float]:
    """How long a page of its own, with an empty cache, takes until `ready` returns."""
    times = []
    for _ in range(rounds):
        page = browser.new_context(viewport={"width": 1360, "height": 900}).new_page()
        began = time.perf_counter()
        page.goto(url)
        ready(page)
        times.append(time.perf_counter() - began)
        page.context.close()
    return times


def first(browser: Any, folder: Path) -> float:
    with serving(folder) as (url, _):
        usable = "#train-start:not([disabled])"
        return statistics.median(seconds_until(browser, url, lambda page: page.wait_for_selector(usable)))


def many(browser: Any, folder: Path) -> float:
    for number in range(200):
        grow(folder, f"run-{number:03d}", 50, number)
    with serving(folder) as (url, _):
        shown = "() => document.body.innerText.includes('run-000') && document.body.innerText.includes('run-199')"
        ready = lambda page: page.wait_for_function(shown)  # noqa: E731
        return statistics.median(seconds_until(browser, url + "?tab=monitor", ready))


def curves(browser: Any, folder: Path) -> float:
    names = [grow(folder, f"long-{number}", 70_000, number).name for number in range(4)]
    with serving(folder) as (url, _):
        drawn = "() => document.querySelectorAll('.wb-chart .scatterlayer .trace, .wb-chart canvas').length >= 4"
        ready = lambda page: page.wait_for_function(drawn)  # noqa: E731
        return statistics.median(seconds_until(browser, f"{url}?tab=monitor&runs={','.join(names)}", ready))


def soak(browser: Any, folder: Path, minutes: float) -> float:
    """The largest deviation of the server's memory from where it was after the warm-up, in MB."""
    import psutil

    path = grow(folder, "growing", 20_000)
    with serving(folder) as (url, server):
        pages = [browser.new_context().new_page() for _ in range(2)]
        for page in pages:
            page.goto(f"{url}?tab=monitor&runs=growing")
        process, seen, step = psutil.Process(server.pid), [], 20_000
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes:
            for _ in range(int(EVERY_S)):
                step += 1
                row = {"schema": 1, "attempt": 1, "step": step, "tokens": step * 8192, "loss": 3.0, "time": time.time()}
                with (path / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
                    metrics.write(json.dumps(row) + "\n")
                time.sleep(1.0)
            if time.monotonic() - began >= min(WARM_UP_S, 30 * minutes):
                seen.append(process.memory_info().rss / 2**20)
                print(f"{(time.monotonic() - began) / 60:6.1f} min  {seen[-1]:8.1f} MB", file=sys.stderr, flush=True)
        return max(abs(value - seen[0]) for value in seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["first", "list", "curves"], help=f"of {', '.join(MARKS)}")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the soak")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.what) - set(MARKS):
        parser.error(f"{', '.join(unknown)}: allowed are {', '.join(MARKS)}")
    measures: dict[str, Callable[[Any, Path], float]] = {
        "first": first, "list": many, "curves": curves, "soak": lambda b, f: soak(b, f, args.minutes),
    }  # fmt: skip
    results = {}
    for what in args.what:
        with tempfile.TemporaryDirectory() as scratch, chromium(args.chromium) as browser:
            results[what] = value = measures[what](browser, Path(scratch) / "runs")
        unit = "MB" if what == "soak" else "s"
        verdict = "pass" if value <= MARKS[what] else "FAIL"
        print(f"{what}: {value:.2f} {unit}, mark {MARKS[what]:g}: {verdict}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
