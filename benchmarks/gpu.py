"""What only a GPU can show, each with its pass mark. Run it on a machine that has one or more CUDA devices:

    python benchmarks/gpu.py [--runs FOLDER] [--steps 200]

| check | pass mark |
|---|---|
| precision | bf16 where the GPU has it, else fp16 with a scaler; losses finite, the last below the first |
| speed (GPT-2 124M, compiled, built-in text) | MFU at least 0.40 on A100, H100 and H200; elsewhere reported |
| data | median data_wait_ms under 1 % of the median step_ms |
| saving in the background | training held at most 0.3 s by a save, once its buffers exist |
| resume with train.deterministic | losses of a stopped and resumed run equal to the last bit |
| NCCL (two devices or more) | loss at the last step within 0.002 of one device's |

Nothing here has been measured by the project: it was written on machines without a GPU. Each line says pass or FAIL.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = ["-m", "mygpt2", "train", "--preset", "gpt2", "--data.source", "pydocs", "--train.device", "cuda"]
COMMON = {
    "train.batch_tokens": 131_072, "eval.interval": 0, "sample.interval": 0, "log.plot_interval": 0,
    "schedule.warmup_steps": 20, "data.lanes": 16,
}  # fmt: skip


def train(runs: Path, name: str, devices: int = 1, **settings) -> list[dict]:
    """Runs or continues one run and returns its metrics, later attempts winning."""
    launcher = [sys.executable]
    if devices > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}", "-m", "--"]
    words = [*launcher, *(TRAIN if devices == 1 else TRAIN[1:]), "--runs", str(runs), "--run", name]
    for key, value in {**COMMON, **{k.replace("__", "."): v for k, v in settings.items()}}.items():
        words += [f"--{key}", str(value).lower() if isinstance(value, bool) else str(value)]
    subprocess.run(words, check=True)
    rows = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    return list({row["step"]: row for row in sorted(rows, key=lambda r: r["attempt"])}.values())


def report(name: str, passed: bool | None, detail: str) -> None:
    verdict = "reported" if passed is None else "pass" if passed else "FAIL"
    print(f"{verdict:>8}  {name}: {detail}", flush=True)


def check_one_device(runs: Path, steps: int) -> list[dict]:
    import torch

    rows = train(runs, "one", train__steps=steps, train__compile=True, checkpoint__interval=max(2, steps // 4))
    name = torch.cuda.get_device_name(0)
    losses = [row["loss"] for row in rows]
    finite = all(loss is not None and math.isfinite(loss) for loss in losses)
    report("precision", finite and losses[-1] < losses[0], f"{name}, loss {losses[0]:.3f} to {losses[-1]:.3f}")
    settled = rows[min(20, steps // 2) :]
    mfu = [row["mfu"] for row in settled if row["mfu"] is not None]
    speed = statistics.median(row["tokens_per_second"] for row in settled)
    known = any(part in name for part in ("A100", "H100", "H200"))
    shown = f"{statistics.median(mfu):.3f}" if mfu else "n/a"
    report("speed", statistics.median(mfu) >= 0.40 if known and mfu else None, f"{speed:,.0f} tok/s, MFU {shown}")
    wait = statistics.median(r["data_wait_ms"] for r in settled) / statistics.median(r["step_ms"] for r in settled)
    report("data", wait < 0.01, f"{100 * wait:.2f} % of the step is waiting")
    events = [json.loads(line) for line in (runs / "one" / "events.jsonl").read_text().splitlines()]
    held = [e["held_seconds"] for e in events if e["kind"] == "save"][1:-1]
    report("saving in the background", max(held) <= 0.3 if held else None, f"held {max(held, default=math.nan):.2f} s")
    return rows


def check_resume(runs: Path) -> None:
    calm = train(runs, "calm", train__steps=30, train__deterministic=True, schedule__name="constant")
    train(runs, "halved", train__steps=22, train__deterministic=True, schedule__name="constant")
    halved = train(runs, "halved", train__steps=30, train__deterministic=True, schedule__name="constant")
    equal = [r["loss"] for r in calm] == [r["loss"] for r in halved]
    report("resume", equal, "30 steps in one go and as 22 + 8")


def check_nccl(runs: Path, rows: list[dict], steps: int) -> None:
    import torch

    devices = 2 if torch.cuda.device_count() < 4 else 4
    many = train(runs, "many", devices, train__steps=steps, train__compile=True)
    apart = abs(many[-1]["loss"] - rows[-1]["loss"])
    report("NCCL", apart <= 0.002, f"{devices} devices, losses {apart:.4f} apart at step {steps}")


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder for the runs (default: a temporary one)")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device here; run this on a machine that has one")
    with tempfile.TemporaryDirectory() as scratch:
        runs = args.runs or Path(scratch)
        rows = check_one_device(runs, args.steps)
        check_resume(runs)
        if torch.cuda.device_count() > 1:
            check_nccl(runs, rows, args.steps)
        else:
            report("NCCL", None, "one device only")


if __name__ == "__main__":
    main()
