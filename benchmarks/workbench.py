"""The workbench under load, in a real Chromium: first use, two hundred runs, long curves, memory over hours.

    python benchmarks/workbench.py [first|list|curves|form|token|soak] [--minutes 60] [--chromium PATH] [--json OUT]

first: from opening the page, without a run, to a Start button that works. Mark 3 s.
list: 200 runs, from opening Monitor's link to the last row of the list, and from leaving Train for Monitor in an
    open page. Mark 2 s.
curves: four runs of 70,000 steps, from opening the link until the loss of all four is drawn with every point behind it
    and a key has zoomed it. Mark 2 s. When the other panels are drawn is printed beside it.
form: from typing into a field of Train to the command that has it, and Start. Mark 0.5 s.
token: from a click on a token of a sample to the ten likeliest of both models. Mark 0.3 s.
soak: two open pages on a growing run; the server's memory is read every 10 s after two minutes. Mark ± 50 MB.

Runs and models are generated; the server is a process of its own, each page has an empty cache. Times are medians of
five; what is printed in brackets are the medians of the moments before and after the one that counts.
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
MARKS = {"first": 3.0, "list": 2.0, "curves": 2.0, "form": 0.5, "token": 0.3, "soak": 50.0}
STEPS, ROUNDS = 70_000, 5
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

    def median(self, name: str) -> float:
        """Of the lap that counts; all are printed."""
        medians = {each: statistics.median(found) for each, found in self.seconds.items()}
        print(
            f"  [{', '.join(f'{each} {value:.2f} s' for each, value in medians.items())}]", file=sys.stderr, flush=True
        )
        return medians[name]


def opened(browser: Any) -> Any:
    """A page of its own, with an empty cache."""
    return browser.new_context(viewport={"width": 1360, "height": 900}).new_page()


def opening(browser: Any, url: str, follow: Callable[[Any, Laps], None]) -> Laps:
    """Opens the link five times; `follow` waits for what is to be seen, and takes the times."""
    laps = Laps()
    for _ in range(ROUNDS):
        page = opened(browser)
        laps.begin()
        page.goto(url, wait_until="commit")
        follow(page, laps)
        page.context.close()
    return laps


def switching(browser: Any, url: str, follow: Callable[[Any, Laps], None]) -> Laps:
    """Opens Train five times and, once it works, goes to Monitor by its keys; the time begins with them."""
    laps = Laps()
    for _ in range(ROUNDS):
        page = opened(browser)
        page.goto(url)
        page.wait_for_selector("#train-start:not([disabled])")
        laps.begin()
        page.keyboard.press("g")
        page.keyboard.press("m")
        follow(page, laps)
        page.context.close()
    return laps


def first(browser: Any, folder: Path) -> float:
    def follow(page: Any, laps: Laps) -> None:
        page.wait_for_selector("#train-start:not([disabled])")
        laps.lap("Start works")

    with serving(folder) as (url, _):
        return opening(browser, url, follow).median("Start works")


def many(browser: Any, folder: Path) -> float:
    for number in range(200):
        grow(folder, f"run-{number:03d}", 50, number)
    listed = "() => ['run-000', 'run-199'].every((name) => document.body.innerText.includes(name))"

    def follow(page: Any, laps: Laps) -> None:
        page.wait_for_selector(".wb-runs")
        laps.lap("the page itself")
        page.wait_for_function(listed)
        laps.lap("every run")

    def from_train(page: Any, laps: Laps) -> None:
        page.wait_for_function(listed)
        laps.lap("every run, from another tab")

    with serving(folder) as (url, _):
        switching(browser, f"{url}?tab=train", from_train).median("every run, from another tab")
        return opening(browser, url + "?tab=monitor", follow).median("every run")


# Two lines for each run, as it is and smoothed: nothing is left out because a run is late.
ALL_FOUR = """(steps) => { const chart = document.querySelector(".wb-chart")?.chart, loss = chart?.panels.get("loss");
  return loss?.drawn && chart.shown.length === 4 && chart.shown.every((run) => run.n === steps)
    && loss.plot.querySelectorAll(".scatterlayer .trace").length >= 8; }"""
ZOOMED = """(steps) => { const loss = document.querySelector(".wb-chart").chart.panels.get("loss");
  const [a, b] = loss.plot.layout.xaxis.range; return b - a < 0.6 * steps; }"""
EVERY_PANEL = """() => [...document.querySelector(".wb-chart").chart.panels.values()].every((panel) =>
  panel.id === "validation" || (panel.drawn && panel.plot.data.length >= 4))"""


def curves(browser: Any, folder: Path) -> float:
    names = [grow(folder, f"long-{number}", STEPS, number).name for number in range(4)]

    def follow(page: Any, laps: Laps) -> None:
        page.wait_for_selector(".wb-runs")
        laps.lap("the page itself")
        page.wait_for_function(ALL_FOUR, arg=STEPS)
        laps.lap("loss of all four")
        page.locator(".wb-chart-panel-loss").press("+")
        page.wait_for_function(ZOOMED, arg=STEPS)
        laps.lap("zoomed")
        page.wait_for_function(EVERY_PANEL)
        laps.lap("every panel")

    with serving(folder) as (url, _):
        return opening(browser, f"{url}?tab=monitor&runs={','.join(names)}", follow).median("zoomed")


def form(browser: Any, folder: Path) -> float:
    with serving(folder) as (url, _):
        page, laps = opened(browser), Laps()
        page.goto(f"{url}?tab=train")
        page.wait_for_selector("#train-start:not([disabled])")
        command = "(words) => document.querySelector('#train-command textarea').value.includes(words)"
        for steps in range(200, 200 + ROUNDS):
            laps.begin()
            page.locator("#field-train-steps textarea, #field-train-steps input").first.fill(str(steps))
            page.wait_for_function(command, arg=f"--train.steps {steps}")
            page.wait_for_selector("#train-start:not([disabled])")
            laps.lap("the command")
        return laps.median("the command")


def model(folder: Path, seed: int) -> Path:
    """A random GPT-2 as large as the preset `tiny`, as a Hugging Face folder."""
    sys.path.insert(0, str(ROOT))
    import torch
    from safetensors.torch import save_file

    from mygpt2.config import load_config
    from mygpt2.exchange.huggingface import config_json, to_huggingface
    from mygpt2.model import GPT, GPTConfig
    from mygpt2.tokenizer import load_tokenizer
    from mygpt2.tokenizer.folder import write_tokenizer

    config = load_config("tiny")
    tokenizer = load_tokenizer(config.data.tokenizer)
    torch.manual_seed(seed)
    shape = {key: getattr(config.model, key) for key in ("n_layer", "n_head", "n_embd", "block_size")}
    network = GPT(GPTConfig(**shape, vocab_size=tokenizer.vocab_size))
    folder.mkdir(parents=True)
    save_file({key: tensor.clone().contiguous() for key, tensor in to_huggingface(network).items()},
              folder / "model.safetensors")  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config_json(network.config, 0)))
    write_tokenizer(tokenizer, folder, shape["block_size"])
    return folder


def token(browser: Any, folder: Path) -> float:
    data = folder.parent / "models"
    names = [model(data / f"model-{seed}", seed).name for seed in (1, 2)]
    with serving(folder, "--data-root", str(data)) as (url, _):
        page, laps = opened(browser), Laps()
        page.goto(f"{url}?tab=sample&model_a={names[0]}&model_b={names[1]}&prompt=Once")
        page.wait_for_function("() => document.querySelector('#wb-sample-prompt textarea')?.value === 'Once'")
        page.click("#wb-sample-generate")
        page.wait_for_selector('.wb-sample[data-state="done"]', timeout=120_000)
        for at in range(10, 10 + 5 * ROUNDS, 5):
            title = f"() => document.querySelector('.wb-sample-detail h3')?.textContent.startsWith('Token {at + 1} of')"
            laps.begin()
            page.click(f'[data-pane="0"] [data-at="{at}"]')
            page.wait_for_function(title)
            laps.lap("both lists")
        return laps.median("both lists")


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
    parser.add_argument(
        "what", nargs="*", default=[what for what in MARKS if what != "soak"], help=f"of {', '.join(MARKS)}"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of the soak")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.what) - set(MARKS):
        parser.error(f"{', '.join(unknown)}: allowed are {', '.join(MARKS)}")
    measures: dict[str, Callable[[Any, Path], float]] = {
        "first": first, "list": many, "curves": curves, "form": form, "token": token,
        "soak": lambda b, f: soak(b, f, args.minutes),
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
