"""Pictures of the workbench for the README, of real runs, in a real Chromium.

    python scripts/screenshots.py --runs DIR --show RUN [RUN ...] [--to docs/images] [--chromium PATH]

DIR holds runs that were trained; nothing is made up here. The first RUN is the one that is opened. Each picture is
taken in the light and the dark theme; Monitor also at 390 pixels.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
PROMPT = "Returns a new list"


@contextmanager
def serving(runs: Path) -> Iterator[str]:
    """A workbench over `runs`, and its address."""
    words = [sys.executable, "-u", "-m", "workbench", "--runs", str(runs), "--port", "0", "--data-root", str(runs)]
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


def generate(page: Any) -> None:
    """Both models continue one prompt, until both are done."""
    page.locator("#wb-sample-prompt textarea").fill(PROMPT)
    page.click("#wb-sample-generate")
    page.wait_for_timeout(25_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--show", nargs="+", required=True, metavar="RUN")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    args = parser.parse_args()
    missing = [name for name in args.show if not (args.runs / name / "metrics.jsonl").is_file()]
    if missing:
        parser.error(f"no run {', '.join(missing)} in {args.runs}; train it first")
    args.to.mkdir(parents=True, exist_ok=True)
    shown, one = ",".join(args.show), args.show[0]
    views = {
        "train": "tab=train",
        "monitor": f"tab=monitor&runs={shown}",
        "ripples": f"tab=ripples&run={one}",
        "compare": f"tab=compare&models={shown}",
        "sample": f"tab=sample&model_a={one}&model_b={args.show[-1]}",
        "tokenizer": "tab=tokenizer",
        "data": f"tab=data&run={one}&step=100",
    }

    from playwright.sync_api import sync_playwright

    with serving(args.runs.resolve()) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for name, query in views.items():
                page = browser.new_context(viewport=WIDE, color_scheme=scheme).new_page()
                page.goto(f"{url}?{query}")
                page.wait_for_selector("button[role=tab][aria-selected=true]")
                page.wait_for_timeout(6_000)
                if name == "sample":
                    generate(page)
                page.screenshot(path=args.to / f"{name}-{scheme}.png")
                page.context.close()
            page = browser.new_context(viewport=NARROW, color_scheme=scheme).new_page()
            page.goto(f"{url}?{views['monitor']}")
            page.wait_for_timeout(8_000)
            page.screenshot(path=args.to / f"monitor-narrow-{scheme}.png")
            page.context.close()
        browser.close()
    print(f"{2 * len(views) + 2} pictures in {args.to}")


if __name__ == "__main__":
    main()
