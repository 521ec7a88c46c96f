"""The workbench under load, in a real Chromium: first use, two hundred runs, long curves, a page at rest, hours.

    python benchmarks/workbench.py [NAME ...] [--minutes 10] [--chromium PATH] [--json OUT]

first: from opening the page, without a run, to a Start button that works. Mark 1.5 s.
list: 200 runs, from leaving Train for Monitor in an open page to the last row that the list shows. Mark 0.3 s.
    Opening Monitor's link is printed beside it.
curves: four runs of 70,000 steps, from opening the link until the loss of all four is drawn with every point behind it
    and a key has zoomed it. Mark 2 s. When the other panels are drawn is printed beside it.
million: a run of a million steps: the chart with every point behind it, all points as CSV, and one call of the API's
    `metrics` for the last thousand rows. Mark 2 s for the slowest.
form: from typing into a field of Train to the command that has it, and Start. Mark 0.5 s.
token: from a click on a token of a sample to the ten likeliest of both models. Mark 0.3 s.
idle: a page that nobody touches while no run is at work; the processor time of the server and of the whole browser over
    --minutes. Mark 1 % of a core each.
soak: two open pages on a growing run; the memory of server and browser is read every 10 s after two minutes, for six
    times --minutes. A browser's goes up and down as it collects its garbage, so means are compared: mark 50 MB more
    in the last quarter than in the first, each.

Without a name all but soak. Runs and models are generated; the server is a process of its own, each page has an empty
cache. Times are medians of five; what is printed in brackets are the medians of the moments before and after the one
that counts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import ROOT, ROUNDS, Laps, Use, chromium, grow, opened, opening, serving

MARKS = {"first": 1.5, "list": 0.3, "curves": 2.0, "million": 2.0, "form": 0.5, "token": 0.3, "idle": 1.0, "soak": 50.0}
UNITS = {"idle": "%", "soak": "MB"}
STEPS, MILLION = 70_000, 1_000_000
SETTLE_S, WARM_UP_S, EVERY_S = 30.0, 120.0, 10.0


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
        return opening(browser, url, follow).medians()["Start works"]


def many(browser: Any, folder: Path) -> float:
    for number in range(200):
        grow(folder, f"run-{number:03d}", 50, number)
    listed = """() => document.querySelectorAll(".wb-runs .wb-run").length >= 100
      && document.querySelector(".wb-runs-count").textContent.includes("200 runs")"""

    def follow(page: Any, laps: Laps) -> None:
        page.wait_for_selector(".wb-runs")
        laps.lap("the page itself")
        page.wait_for_function(listed)
        laps.lap("every run")

    def from_train(page: Any, laps: Laps) -> None:
        page.wait_for_function(listed)
        laps.lap("every run, from another tab")

    with serving(folder) as (url, _):
        opening(browser, url + "?tab=monitor", follow).medians()
        return switching(browser, f"{url}?tab=train", from_train).medians()["every run, from another tab"]


# Two lines for each run, as it is and smoothed: nothing is left out because a run is late.
ALL_FOUR = """(steps) => { const chart = document.querySelector(".wb-chart")?.chart, loss = chart?.panels.get("loss");
  return loss?.drawn && chart.shown.length === 4 && chart.shown.every((run) => run.n === steps)
    && loss.plot.querySelectorAll(".scatterlayer .trace").length >= 8; }"""
ZOOMED = """(steps) => { const loss = document.querySelector(".wb-chart").chart.panels.get("loss");
  const [a, b] = loss.plot.layout.xaxis.range; return b - a < 0.6 * steps; }"""
EVERY_PANEL = """() => { const { panels } = document.querySelector(".wb-chart").chart;
  return ["loss", "lr", "grad_norm", "throughput"].map((id) => panels.get(id)).every(
    (panel) => panel.drawn && panel.plot.data.length >= 4); }"""


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
        return opening(browser, f"{url}?tab=monitor&runs={','.join(names)}", follow).medians()["zoomed"]


def million(browser: Any, folder: Path) -> float:
    from gradio_client import Client

    name = grow(folder, "million", MILLION).name
    drawn = ALL_FOUR.replace("length === 4", "length === 1").replace(">= 8", ">= 2")
    saved = f"fetch('points.csv?runs={name}').then((answer) => answer.text()).then((text) => text.length)"

    def follow(page: Any, laps: Laps) -> None:
        page.wait_for_function(drawn, arg=MILLION)
        laps.lap("the chart")

    with serving(folder) as (url, _):
        laps = opening(browser, f"{url}?tab=monitor&runs={name}", follow, rounds=3)
        page = opened(browser)
        page.goto(url)
        client = Client(url, verbose=False)
        for _ in range(3):
            laps.begin()
            assert page.evaluate(saved) > 10 * MILLION
            laps.lap("the CSV")
            laps.begin()
            rows = client.predict(name, MILLION - 1000, 1000, api_name="/metrics")["rows"]
            laps.lap("the API")
            assert rows[-1]["step"] == MILLION
        return max(laps.medians().values())


def form(browser: Any, folder: Path) -> float:
    with serving(folder) as (url, _):
        page, laps = opened(browser), Laps()
        page.goto(f"{url}?tab=train")
        page.wait_for_selector("#train-start:not([disabled])")
        command = "(words) => document.querySelector('#train-command pre')?.textContent.includes(words)"
        for steps in range(200, 200 + ROUNDS):
            laps.begin()
            page.locator("#field-train-steps textarea, #field-train-steps input").first.fill(str(steps))
            page.wait_for_function(command, arg=f"--train.steps {steps}")
            page.wait_for_selector("#train-start:not([disabled])")
            laps.lap("the command")
        return laps.medians()["the command"]


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
        return laps.medians()["both lists"]


def idle(browser: Any, folder: Path, minutes: float) -> float:
    """The processor time of the server or the browser, whichever took more, as a share of one core in %."""
    grow(folder, "one", 5_000)
    with serving(folder) as (url, server):
        page = opened(browser)
        page.goto(f"{url}?tab=monitor&runs=one")
        time.sleep(SETTLE_S)
        use = Use(server.pid)
        time.sleep(60 * minutes)
        found = use.percent()
        print(f"  [{', '.join(f'{name} {value:.2f} %' for name, value in found.items())}]", file=sys.stderr, flush=True)
        return max(found.values())


def soak(browser: Any, folder: Path, minutes: float) -> float:
    """By how much the memory of server or browser grew from the first quarter after the warm-up to the last, in MB."""
    path = grow(folder, "growing", 20_000)
    with serving(folder) as (url, server):
        for _ in range(2):
            opened(browser).goto(f"{url}?tab=monitor&runs=growing")
        use, seen, step = Use(server.pid), [], 20_000
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes:
            for _ in range(int(EVERY_S)):
                step += 1
                row = {"schema": 1, "attempt": 1, "step": step, "tokens": step * 8192, "loss": 3.0, "time": time.time()}
                with (path / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
                    metrics.write(json.dumps(row) + "\n")
                time.sleep(1.0)
            if time.monotonic() - began >= min(WARM_UP_S, 30 * minutes):
                seen.append(use.megabytes())
                told = "  ".join(f"{name} {value:8.1f} MB" for name, value in seen[-1].items())
                print(f"{(time.monotonic() - began) / 60:6.1f} min  {told}", file=sys.stderr, flush=True)
        quarter = max(1, len(seen) // 4)
        grown = {
            name: statistics.mean(each[name] for each in seen[-quarter:])
            - statistics.mean(each[name] for each in seen[:quarter])
            for name in seen[0]
        }
        print(
            f"  [{', '.join(f'{name} {value:+.1f} MB' for name, value in grown.items())}]", file=sys.stderr, flush=True
        )
        return max(grown.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="*", default=[what for what in MARKS if what != "soak"], help=f"of {', '.join(MARKS)}"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of idle; soak takes six times as long")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.what) - set(MARKS):
        parser.error(f"{', '.join(unknown)}: allowed are {', '.join(MARKS)}")
    measures: dict[str, Callable[[Any, Path], float]] = {
        "first": first, "list": many, "curves": curves, "million": million, "form": form, "token": token,
        "idle": lambda b, f: idle(b, f, args.minutes), "soak": lambda b, f: soak(b, f, 6 * args.minutes),
    }  # fmt: skip
    results: dict[str, dict[str, Any]] = {}
    for what in args.what:
        with tempfile.TemporaryDirectory() as scratch, chromium(args.chromium) as browser:
            value = measures[what](browser, Path(scratch) / "runs")
        unit, passed = UNITS.get(what, "s"), value <= MARKS[what]
        results[what] = {"value": value, "unit": unit, "mark": MARKS[what], "pass": passed}
        print(f"{what}: {value:.2f} {unit}, mark {MARKS[what]:g}: {'pass' if passed else 'FAIL'}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2))
    sys.exit(not all(found["pass"] for found in results.values()))


if __name__ == "__main__":
    main()
