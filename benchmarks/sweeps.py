"""Whether a sweep finds what the full grid finds, and what of its compute it takes.

    python benchmarks/sweeps.py [--seeds 10] [--steps 60] [--looks 3] [--runs DIR] [--json OUT] [--yes]

Five rates on a shortened `tiny` with AdamW, one of which diverges, once under each data seed: as a sweep, and as the
full grid. Arms that a sweep trained to their end are the grid's runs, so only the arms that it stopped are trained
further (in runs of their own). Marks: the full grid's winner in 10 of 10 data seeds at no more than half its compute.

It says what it will cost and ends; with --yes it begins. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RATES = (3e-4, 1e-3, 3e-3, 9e-3, 1.0)
PRESET, MARGIN = "tiny", 0.002


def document(seed: int, steps: int, looks: int) -> bytes:
    """The sweep's file under one data seed."""
    return (
        f'base = "{PRESET}"\nname = "rates-{seed}"\nlooks = {looks}\nmargin = {MARGIN}\n'
        f'[settings]\noptimizer.name = "adamw"\ntrain.steps = {steps}\nschedule.warmup_steps = 4\ndata.seed = {seed}\n'
        "eval.interval = 0\nsample.interval = 0\nlog.plot_interval = 0\n"
        f'[[axis]]\nsetting = "optimizer.lr"\nvalues = {list(RATES)}\n'
    ).encode()


def one(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The sweep and the grid under one data seed."""
    from mygpt2.experiments.arms import replicates
    from mygpt2.experiments.grid import read_plan
    from mygpt2.experiments.pieces import Piece
    from mygpt2.experiments.running import run_missing
    from mygpt2.experiments.scores import scores
    from mygpt2.experiments.sweep import sweep

    data = document(seed, args.steps, args.looks)
    plan = read_plan(data, args.runs, f"rates-{seed}")
    found = sweep(data, plan, args.runs, nproc=args.nproc)
    pair, losses = replicates(plan.base.config, 1)[0], {}
    for name, arm in plan.arms.items():
        stopped = found["result"]["arms"][name]["stopped"]
        run = f"rates-{seed}.{name}{'-full' if stopped else ''}.1"
        ended = run_missing([Piece(run, pair.of(arm.config), arm.preset)], args.runs, nproc=args.nproc)
        if not ended[run].diverged:
            losses[name] = scores(args.runs, run, plan.steps, plan.protocol).loss
    winner = min(losses, key=lambda name: losses[name])
    best = found["result"]["best"]
    return {
        "seed": seed, "sweep": best, "grid": winner, "losses": losses, "behind": losses[best] - losses[winner],
        "share": found["result"]["spent"]["share"], "seconds": found["result"]["spent"]["seconds"],
        "stopped_at": {n: a["look"] for n, a in found["result"]["arms"].items() if a["stopped"]},
        "optimum": found["result"]["optimum"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--looks", type=int, default=3, choices=(2, 3))
    parser.add_argument("--nproc", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path(tempfile.gettempdir()) / "mygpt2-sweeps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--yes", action="store_true", help="begin")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    from mygpt2.experiments.grid import read_plan
    from mygpt2.experiments.swept import asked_text

    plan = read_plan(document(1, args.steps, args.looks), args.runs, "rates-1")
    tokens = args.seeds * len(RATES) * plan.steps * plan.base.config.train.batch_tokens
    print(asked_text(plan, args.runs, args.nproc))
    print(
        f"{args.seeds} times that: the full grids are {tokens:,} tokens, of which a sweep's survivors are not trained "
        f"again; beside them {args.seeds} x some {2 * len(RATES) + 6} starts and scores of about 10 s each"
    )
    if not args.yes:
        print("with --yes it begins")
        return
    rows = []
    for seed in range(1, args.seeds + 1):
        rows.append(one(seed, args))
        row = rows[-1]
        print(f"seed {seed}: sweep {row['sweep']}, grid {row['grid']}, behind {row['behind']:.4f}, {row['share']:.0%} "
              f"of the grid's compute, stopped {row['stopped_at']}", flush=True)  # fmt: skip
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n")
    right = sum(row["sweep"] == row["grid"] for row in rows)
    near = sum(row["behind"] <= MARGIN for row in rows)
    shares = sorted(row["share"] for row in rows)
    print(f"the full grid's winner in {right} of {len(rows)} (within {MARGIN} nats in {near}); share of its compute "
          f"{shares[len(shares) // 2]:.2f} (median), {shares[-1]:.2f} at most; marks: all, and 0.5")  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
