"""Pictures of the workbench for README and docs, of real runs, in a real Chromium.

    python scripts/screenshots.py --runs DIR --show RUN [RUN ...] [--tour] [--only NAME ...] [--data-root DIR ...]
        [--to docs/images]

DIR holds runs that were trained; nothing is made up here. The first RUN is the one that is opened. Each picture is
taken in the light and the dark theme: all tabs, and Monitor and Train at 390 pixels. --tour takes those of the tour
instead, one for each thing that is seen nowhere else; for that of mixtures it trains a short run of two sources in DIR,
where there is none yet.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
PROMPT = "Returns a new list"
MIXTURE = "docs-and-code"
MIXTURE_STEPS = 60  # of the 140 that `tiny` has


@contextmanager
def serving(runs: Path, roots: Sequence[Path]) -> Iterator[str]:
    """A workbench over `runs`, and its address. roots: where the data of the runs lies."""
    words = [sys.executable, "-u", "-m", "workbench", "--runs", str(runs), "--port", "0"]
    words += [word for root in (runs, *roots) for word in ("--data-root", str(root))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert server.stdout is not None
        found = next((m for line in server.stdout if (m := re.search(r"workbench: (http://\S+)", line))), None)
        if found is None:
            raise SystemExit("the workbench did not start")
        threading.Thread(target=lambda: list(server.stdout or ()), daemon=True).start()
        yield found[1]
    finally:
        server.terminate()
        server.wait()


def train_mixture(runs: Path) -> None:
    """`tiny`, shortened, over the built-in text and the modules of Python's library; a run that is there goes on."""
    folder = runs / "_code"  # which is no name of a run
    folder.mkdir(parents=True, exist_ok=True)
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py"))
    lines = [json.dumps({"text": module.read_text(encoding="utf-8", errors="replace")}) for module in modules]
    (folder / "modules.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    mix = f'[{{name = "docs", source = "pydocs", weight = 0.7}}, {{name = "code", source = "{folder}", weight = 0.3}}]'
    settings = {"data.mix": mix, "train.steps": MIXTURE_STEPS, "eval.interval": 10, "sample.interval": 0}
    words = [sys.executable, "-m", "mygpt2", "train", "--preset", "tiny", "--runs", str(runs), "--run", MIXTURE]
    words += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    subprocess.run(words, check=True, cwd=ROOT)


SETTLE_MS = 1500  # what is drawn after what was waited for


@dataclass(frozen=True)
class Picture:
    """What is opened, what has to be there, and what a person does then. `needs`: without it there is no picture."""

    query: str
    ready: str
    act: Callable[[Any], None] = lambda page: None
    size: Mapping[str, int] = field(default_factory=lambda: WIDE)
    needs: str = ""


def generate(page: Any) -> None:
    """Both models continue one prompt, and a token of the first shows its likeliest others."""
    page.locator("#wb-sample-prompt textarea").fill(PROMPT)
    page.click("#wb-sample-generate")
    page.wait_for_selector('.wb-sample[data-state="done"]', timeout=180_000)
    page.click('[data-pane="0"] [data-at="12"]')
    page.wait_for_selector(".wb-sample-detail h3")


def open_step(page: Any) -> None:
    """As a click on a point of the curve does; the worst row shows its text."""
    page.wait_for_function(DRAWN)
    step = page.evaluate("Math.ceil(document.querySelector('.wb-chart').chart.shown[0].n / 2)")
    run = page.evaluate("document.querySelector('.wb-chart').chart.shown[0].run")
    page.evaluate(
        "detail => document.dispatchEvent(new CustomEvent('wb:step', { detail }))", {"run": run, "step": step}
    )
    page.wait_for_selector(".wb-step-row", timeout=60_000)


def replay(page: Any) -> None:
    """The merges of a word, half way."""
    page.get_by_role("button", name="Replay the merges of a word").click()
    page.get_by_role("button", name="Replay", exact=True).click()
    page.wait_for_selector("#wb-merges .wb-piece")
    for _ in range(6):
        page.get_by_role("button", name="One merge on").click()
        page.wait_for_timeout(SETTLE_MS)
    page.locator("#wb-tok-replay").scroll_into_view_if_needed()


DRAWN = "document.querySelector('.wb-chart')?.chart?.panels.get('loss')?.drawn"


def pictures(names: Sequence[str]) -> dict[str, Picture]:
    """Of all tabs."""
    shown, one = ",".join(names), names[0]
    monitor = Picture(f"tab=monitor&runs={shown}", ".wb-chart .js-plotly-plot")
    return {
        "train": Picture("tab=train", "#train-start"),
        "monitor": monitor,
        "ripples": Picture(f"tab=ripples&run={one}", "#wb-tab-ripples .wb-chart .js-plotly-plot", settle),
        "compare": Picture(f"tab=compare&models={shown}", "#wb-tab-compare .wb-table"),
        "sample": Picture(f"tab=sample&model_a={one}&model_b={names[-1]}", "#wb-sample-generate", generate),
        "tokenizer": Picture("tab=tokenizer", "#wb-tok-view .wb-tok"),
        "data": Picture(f"tab=data&run={one}&step=40", ".wb-row"),
        "monitor-narrow": replace(monitor, size=NARROW),
        "train-narrow": Picture("tab=train", "#train-start", size=NARROW),
    }


def tour(names: Sequence[str]) -> dict[str, Picture]:
    """What only this shows."""
    shown, one, all_tabs = ",".join(names), names[0], pictures(names)
    return {
        "tour-step": Picture(f"tab=monitor&runs={one}", ".wb-chart .js-plotly-plot", open_step),
        "tour-surprisal": all_tabs["sample"],
        "tour-ripples": all_tabs["ripples"],
        "tour-runs": Picture(f"tab=monitor&view=table&runs={shown}", f".wb-rt-view tbody >> text={one}"),
        "tour-gpt2": Picture(
            f"tab=monitor&runs={one}", ".wb-chart .js-plotly-plot", needs=".wb-chart-yardstick:not([hidden])"
        ),
        "tour-compare": all_tabs["compare"],
        "tour-mixture": Picture(f"tab=monitor&runs={MIXTURE}", ".wb-chart-panel-sources .js-plotly-plot", by_source),
        "tour-merges": Picture("tab=tokenizer", "#wb-tok-view .wb-tok", replay),
        "tour-vocabulary": Picture("tab=tokenizer", "#wb-vocab tbody tr, #wb-vocab .wb-row", vocabulary),
    }


def by_source(page: Any) -> None:
    """The curves of the sources fill the picture."""
    page.wait_for_function(DRAWN)
    page.locator(".wb-chart-panel-sources").evaluate("(panel) => panel.scrollIntoView({block: 'end'})")


def settle(page: Any) -> None:
    """A measurement of ripples has ended."""
    page.wait_for_function("() => !document.querySelector('#wb-tab-ripples').innerText.includes('Measuring')",
                           timeout=120_000)  # fmt: skip


def vocabulary(page: Any) -> None:
    page.locator("#wb-vocab input").first.fill("return")


def take(browser: Any, url: str, picture: Picture, scheme: str, path: Path) -> bool:
    """Whether there was something to take."""
    context = browser.new_context(viewport=picture.size, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(60_000)
    try:
        page.goto(f"{url}?{picture.query}")
        page.wait_for_selector(picture.ready)
        picture.act(page)
        page.wait_for_timeout(SETTLE_MS)
        if picture.needs and not page.locator(picture.needs).count():
            return False
        page.screenshot(path=path)
        return True
    finally:
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--show", nargs="+", required=True, metavar="RUN")
    parser.add_argument("--tour", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the pictures")
    parser.add_argument("--data-root", type=Path, nargs="+", default=[], help="where the data of the runs lies")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    args = parser.parse_args()
    missing = [name for name in args.show if not (args.runs / name / "metrics.jsonl").is_file()]
    if missing:
        parser.error(f"no run {', '.join(missing)} in {args.runs}; train it first")
    every = (tour if args.tour else pictures)(args.show)
    if unknown := set(args.only or ()) - set(every):
        parser.error(f"{', '.join(unknown)}: allowed are {', '.join(every)}")
    args.to.mkdir(parents=True, exist_ok=True)
    if "tour-mixture" in (args.only or every):
        train_mixture(args.runs.resolve())

    from playwright.sync_api import Error, sync_playwright

    left_out = []
    with serving(args.runs.resolve(), args.data_root) as url, sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=args.chromium, args=options)
        for name in args.only or every:
            for scheme in ("light", "dark"):
                try:
                    if not take(browser, url, every[name], scheme, args.to / f"{name}-{scheme}.png"):
                        left_out.append(f"{name}: {every[name].needs} is not there")
                except Error as error:
                    left_out.append(f"{name} ({scheme}): {str(error).splitlines()[0]}")
        browser.close()
    print(f"{2 * len(args.only or every) - len(left_out)} pictures in {args.to}")
    if left_out:
        raise SystemExit("without " + "; ".join(left_out))


if __name__ == "__main__":
    main()
