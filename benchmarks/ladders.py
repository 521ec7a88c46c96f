"""Ladders: how often their intervals hold, and one real ladder on the built-in text whose forecast is scored.

    python benchmarks/ladders.py                    both
    python benchmarks/ladders.py cover [--ladders 200]
    python benchmarks/ladders.py real [--minutes 25] [--runs DIR]

`cover` makes ladders whose law is known (four sizes, four budgets, constants drawn from the range of published ones)
and counts how often the 80 % interval holds the loss that the next size is then measured to have. Marks: 70 to 90 of
100 where cells of a size share half of their chance; 65 to 95 where they share none of it or all.

`real` runs sizes of 1 to 4 layers (the last is the preset tiny), foretells 5 layers, trains them, and scores. When it
begins it times some steps of each size, chooses the budgets that take --minutes, and writes ladder.toml and the
planned cost into --runs. Killed at any moment, the same command goes on: what is done is not done again. It wants an
idle machine: others at work make it longer, and planned among them its budgets are small (delete --runs to plan
anew). Marks: all of it under 45 minutes (aim: 30) on two cores, and the forecast written before the first step of 5
layers. Whether the loss lies inside the interval is told and is no mark: of five such intervals one is meant to miss.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PLANNED = "planned.json"
SHARES = (0.0, 0.5, 1.0)
STEP = 250_000  # tokens, to which the largest budget is rounded
OF_TEXT = 0.015  # the error of the mean over such documents as `tests.experiments.ladders` makes
LEAST, MOST = 1_000_000, 6_000_000  # of the largest budget; the built-in text has some 7.8 million tokens


# Synthetic ladders


def cover(count: int, seed: int) -> dict[str, Any]:
    import numpy as np

    from mygpt2.experiments.fit import EXPONENTS
    from mygpt2.experiments.intervals import fitted
    from tests.experiments.ladders import NEXT, Truth, documents, drawn, measured

    far = (85e6, 1e10)  # about gpt2, at 10 B tokens
    found = {}
    for share in SHARES:
        rng = np.random.default_rng(seed)
        held = {"next": 0, "on other text": 0, "far": 0, "alpha": 0, "beta": 0}
        widths = []
        began = time.perf_counter()
        for _ in range(count):
            truth = Truth(**{**vars(drawn(rng)), "shared": share})
            cells, later = measured(truth, rng)
            fit = fitted(cells, documents(cells, rng))
            one, there = fit.loss(*NEXT), fit.loss(*far)
            held["next"] += one.low <= later <= one.high
            shift = 1 + OF_TEXT * rng.standard_normal()  # another text of this kind, in all cells alike
            assert one.text_low is not None and one.text_high is not None
            held["on other text"] += one.text_low <= later * shift <= one.text_high
            held["far"] += there.low <= truth.loss(*far) <= there.high
            for name, value in (("alpha", truth.alpha), ("beta", truth.beta)):
                estimate = fit.number(lambda laws, name=name: getattr(laws, name), EXPONENTS)
                held[name] += estimate.low <= value <= estimate.high
            widths.append(one.high - one.low)
        low, high = (70, 90) if share == 0.5 else (65, 95)
        percent = 100 * held["next"] / count
        verdict = "pass" if low <= percent <= high else "FAIL"
        rates = ", ".join(f"{name} {100 * number / count:.0f} %" for name, number in held.items())
        print(
            f"{share:.0%} of the chance shared by a size's cells: of {count} ladders the 80 % interval holds {rates}; "
            f"median width {float(np.median(widths)):.3f} nats ({time.perf_counter() - began:.0f} s): {verdict}",
            flush=True,
        )
        found[f"{share:g}"] = {**held, "count": count, "median_width": float(np.median(widths)), "verdict": verdict}
    return found


# A real ladder


def plan(folder: Path, minutes: float) -> dict[str, Any]:
    """ladder.toml in the folder, with budgets that take about so many minutes on this machine as it is now."""
    from mygpt2.experiments.ladder_file import TEMPLATE, read_ladder
    from mygpt2.experiments.rungs import Plan
    from mygpt2.planning import measure

    file, kept = folder / "ladder.toml", folder / PLANNED
    if file.exists() and kept.exists():
        planned = json.loads(kept.read_text())
        print(f"going on with {file}; planned: {planned['words']}", flush=True)
        return planned
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(TEMPLATE.replace("FILE", str(file)))
    ladder = Plan(read_ladder(file))
    assert ladder.next is not None
    steps, beside = {}, 0.0
    for rung in [*ladder.rungs, ladder.next]:
        began = time.perf_counter()
        found = measure(rung.cells[-1].piece.config, world_size=1, device="cpu", say=lambda _: None)
        assert found.speed.value is not None
        steps[rung.depth] = ladder.file.base.train.batch_tokens / found.speed.value
        beside = max(beside, time.perf_counter() - began - (found.steps + 1) * steps[rung.depth])
        print(f"{rung.depth} layers: {steps[rung.depth]:.3f} s a step ({found.basis})", flush=True)
    text, seconds = "", 0.0
    for largest in range(MOST, LEAST - 1, -STEP):
        budgets = [largest // 8, largest // 4, largest // 2, largest]
        text = TEMPLATE.replace("FILE", str(file)).replace(
            "tokens = [500_000, 1_000_000, 2_000_000, 4_000_000]", f"tokens = {budgets}"
        )
        assert f"tokens = {budgets}" in text, "the template's budgets have changed"
        file.write_text(text)
        ladder = Plan(read_ladder(file))
        assert ladder.next is not None
        rungs = [*ladder.rungs, ladder.next]
        runs, cells = sum(len(rung.pieces) for rung in rungs), sum(len(rung.cells) for rung in rungs)
        seconds = sum(rung.steps * steps[rung.depth] for rung in rungs) + beside * (runs + cells)
        if seconds <= 60 * minutes:
            break
    words = (
        f"{seconds / 60:.0f} minutes: {runs} runs and {cells} scores, {beside:.0f} s beside the steps of each; largest "
        f"budget {largest:,} tokens"
    )
    planned = {"seconds": seconds, "words": words, "seconds_per_step": steps, "beside": beside, "tokens": largest}
    kept.write_text(json.dumps(planned, indent=1))
    print(f"planned: {words}", flush=True)
    return planned


def real(folder: Path, minutes: float) -> dict[str, Any]:
    planned = plan(folder, minutes)
    spent = folder / "seconds.json"  # of all attempts that ended by themselves or with Ctrl-C
    before = json.loads(spent.read_text())["seconds"] if spent.exists() else 0.0
    words = [sys.executable, "-m", "mygpt2", "ladder", str(folder / "ladder.toml"), "--runs", str(folder)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    began = time.perf_counter()
    code = subprocess.run(
        [*words, "--json", str(folder / "found.json")], env={**os.environ, "PYTHONPATH": path}, check=False
    ).returncode
    seconds = before + time.perf_counter() - began
    if code:
        spent.write_text(json.dumps({"seconds": seconds}))
        raise SystemExit(
            f"the ladder ended with code {code} after {seconds / 60:.1f} minutes; the same command goes on"
        )
    look = json.loads((folder / "found.json").read_text())
    own = next(one for one in look["forecasts"] if one["score"])
    if not spent.exists() or look["spent"]["seconds"] > before:  # a second call of a finished ladder took no time
        spent.write_text(json.dumps({"seconds": seconds}))
    took = json.loads(spent.read_text())["seconds"] / 60
    fast, first = took < 45, own["score"]["counts"]
    print(f"\nin all {took:.1f} minutes, planned {planned['seconds'] / 60:.0f}: {'pass' if fast else 'FAIL'}")
    print(f"forecast frozen before the first step of the next size: {'pass' if first else 'FAIL'}")
    print(f"the next size: {own['score']['words']}")
    return {"minutes": took, "planned": planned, "forecast": own, "law": look["law"], "undecided": look["undecided"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("cover", "real", "both"), default="both")
    parser.add_argument("--ladders", type=int, default=200, help="synthetic ladders of each kind (200)")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--minutes", type=float, default=25.0, help="that the real ladder is to take (25)")
    parser.add_argument("--runs", type=Path, default=Path("ladder-runs"), help="folder of the real ladder's runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    found = {}
    if args.what != "real":
        found["cover"] = cover(args.ladders, args.seed)
    if args.what != "cover":
        found["real"] = real(args.runs, args.minutes)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
