"""What only a GPU can show, each with its pass mark: the parts of a step, and whole runs. No network, about 20 minutes.

    python benchmarks/gpu.py [--json gpu.json] [--only PART ...] [--runs FOLDER] [--steps 200]
    python benchmarks/gpu.py --self-check        # the same code in small on this processor, without marks: does it run?

| check | pass mark |
|---|---|
| loss, forward and backward of 65,536 tokens | 36 ms on H100, H200; `F.linear_cross_entropy` beside it |
| attention of 12 layers, likewise | 14 ms on H100 and H200; the order of kernels without cuDNN beside it |
| Muon's step over the matrices of gpt2 | 10 ms on A100 and up |
| gap: the device idle between two steps of gpt2, 65,536 tokens | 1.5 ms |
| speed of gpt2, compiled | MFU 0.43 on an H100, 0.47 on an H200, 0.40 on an A100 |
| precision | bf16 where the GPU has it, else fp16 with a scaler; losses finite, the last below the first |
| data | a run with a cold cache within 1 % of one with a warm cache |
| saving in the background | training held at most 0.3 s by a save, once its buffers exist |
| resume with train.deterministic | losses of a stopped and resumed run equal to the last bit |
| residual in bfloat16 | loss within 0.003 after 500 steps, and no slower |
| NCCL (two devices or more) | as far from one device's loss as two seeds of one device are from each other, at most |

Where the marks come from: docs/figures.md. Nothing here has been measured by the project: it was written on machines
without a GPU. Each line says pass or FAIL; the exit code is the number of FAILs.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("loss", "attention", "muon", "gap", "speed", "data", "saving", "resume", "residual", "nccl")
COMMON = {
    "data.source": "pydocs", "train.batch_tokens": 131_072, "eval.interval": 0, "sample.interval": 0,
    "log.plot_interval": 0, "schedule.warmup_steps": 20, "data.lanes": 16,
}  # fmt: skip
SMALL = {
    "data.source": "pydocs", "train.batch_tokens": 2048, "eval.interval": 0, "sample.interval": 0,
    "log.plot_interval": 0, "schedule.warmup_steps": 2, "data.lanes": 4, "model.n_layer": 2, "model.n_embd": 64,
    "model.n_head": 2, "model.block_size": 128, "data.tokenizer": "gpt2:512", "train.precision": "bf16",
}  # fmt: skip
MFU = {"H200": 0.47, "H100": 0.43, "A100": 0.40}
FAST = ("H100", "H200", "B200")
BIG = ("A100", *FAST)


class Report:
    """What was found, line by line and as JSON."""

    def __init__(self, device: str) -> None:
        self.device, self.lines = device, list[dict[str, Any]]()

    def add(self, check: str, passed: bool | None, detail: str, **figures: float | None) -> None:
        verdict = "reported" if passed is None else "pass" if passed else "FAIL"
        self.lines.append({"check": check, "verdict": verdict, "detail": detail, **figures})
        print(f"{verdict:>8}  {check}: {detail}", flush=True)

    def is_one_of(self, names: tuple[str, ...]) -> bool:
        return any(name in self.device for name in names)

    def timed(self, check: str, mark: float, where: tuple[str, ...], ms: float, detail: str, **figures: float) -> None:
        """A time against its mark, on the devices that the mark is for."""
        passed = ms <= mark if self.is_one_of(where) else None
        self.add(check, passed, f"{ms:.2f} ms{detail}", ms=ms, mark=mark, **figures)


class Bench:
    """The device, the sizes, and how runs are started."""

    def __init__(self, runs: Path, steps: int, small: bool) -> None:
        import torch

        self.runs, self.small = runs, small
        self.steps = 6 if small else steps
        self.device = torch.device("cpu" if small else "cuda")
        self.report = Report(platform.processor() or "processor" if small else torch.cuda.get_device_name(0))
        self.devices = 1 if small else torch.cuda.device_count()
        self.tokens, self.width, self.heads = (1024, 64, 2) if small else (65_536, 768, 12)
        self.length, self.vocab, self.layers = (128, 512, 2) if small else (1024, 50_304, 12)

    def best_ms(self, work: Callable[[], object], rounds: int = 10) -> float:
        """The median of `rounds`, after two to warm up."""
        import torch

        wait = (lambda: None) if self.small else torch.cuda.synchronize
        found = []
        for number in range(2 + (2 if self.small else rounds)):
            wait()
            began = time.perf_counter()
            work()
            wait()
            if number >= 2:
                found.append(1e3 * (time.perf_counter() - began))
        return statistics.median(found)

    def train(self, name: str, devices: int = 1, **settings: Any) -> list[dict[str, Any]]:
        """Runs or continues one run and returns its metrics, later attempts winning."""
        words = ["train", "--preset", "gpt2", "--runs", str(self.runs), "--run", name]
        launcher = [sys.executable]
        if devices > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}", "-m", "--"]
        else:
            launcher += ["-m"]
        given = {k.replace("__", "."): v for k, v in settings.items()}
        for key, value in {**(SMALL if self.small else COMMON), "train.device": self.device.type, **given}.items():
            words += [f"--{key}", str(value).lower() if isinstance(value, bool) else str(value)]
        subprocess.run([*launcher, "mygpt2", *words], check=True, cwd=ROOT)
        rows = [json.loads(line) for line in (self.runs / name / "metrics.jsonl").read_text().splitlines()]
        return list({row["step"]: row for row in sorted(rows, key=lambda r: r["attempt"])}.values())


# The parts of a step


def loss(bench: Bench) -> None:
    import torch
    import torch.nn.functional as F

    from mygpt2.model.loss import linear_cross_entropy

    hidden = torch.randn(bench.tokens // bench.length, bench.length, bench.width, device=bench.device)
    hidden = hidden.to(torch.bfloat16).requires_grad_()
    weight = torch.randn(bench.vocab, bench.width, device=bench.device).mul_(0.02).requires_grad_()
    targets = torch.randint(0, bench.vocab, hidden.shape[:2], device=bench.device)

    def ours(chunk: int | None = None) -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            parts = linear_cross_entropy(
                hidden, weight, targets, vocab_size=bench.vocab, chunk=chunk, compile=not bench.small
            )
        parts.nll_sum.backward()

    ms, thousand = bench.best_ms(ours), bench.best_ms(lambda: ours(1024))
    detail, beside = f" ({thousand:.2f} ms in pieces of 1,024 tokens", math.nan
    if hasattr(F, "linear_cross_entropy"):

        def theirs() -> None:
            with torch.autocast(bench.device.type, torch.bfloat16):
                F.linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), reduction="sum").backward()

        beside = bench.best_ms(theirs)
        detail += f"; {beside:.2f} ms F.linear_cross_entropy"
    bench.report.timed("loss", 36.0, FAST, ms, detail + ")", pieces_of_1024_ms=thousand, pytorch_ms=beside)


def attention(bench: Bench) -> None:
    import torch

    from mygpt2.model.attention import causal_attention, fastest_first

    shape = (bench.tokens // bench.length, bench.heads, bench.length, bench.width // bench.heads)
    q, k, v = (torch.randn(shape, device=bench.device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def layers() -> None:
        for _ in range(bench.layers):
            causal_attention(q, k, v).sum().backward()

    plain = bench.best_ms(layers)
    with fastest_first(bench.device):
        ms = bench.best_ms(layers)
    bench.report.timed("attention", 14.0, FAST, ms, f" ({plain:.2f} ms in PyTorch's own order)", plain_ms=plain)


def muon(bench: Bench) -> None:
    import torch

    from mygpt2.config.schema import OptimizerConfig
    from mygpt2.model import GPT, GPTConfig
    from mygpt2.train.optim import Optimizer

    shape = GPTConfig(bench.layers, bench.heads, bench.width, bench.length, bench.vocab)
    model = GPT(shape, seed=0).to(bench.device)
    optimizer = Optimizer(model, OptimizerConfig(name="muon"), bench.device, compile=not bench.small)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    ms = bench.best_ms(optimizer.parts[1].step)
    bench.report.timed("muon", 10.0, BIG, ms, f" for {sum(1 for _ in optimizer.parts[1].state)} matrices")


def gap(bench: Bench) -> None:
    """From the profile of five steps: how long the device did nothing, for each."""
    last = 4 if bench.small else 35
    first = last - 2 if bench.small else last - 4
    tokens = 2048 if bench.small else 65_536
    bench.train("gap", train__steps=last + 1, train__batch_tokens=tokens, log__profile=f"{first}:{last}")
    trace = json.loads((bench.runs / "gap" / "profile" / f"steps-{first}-{last}.json").read_text())
    if bench.small:
        bench.report.add("gap", None, f"{len(trace['traceEvents'])} events in the profile")
        return
    idle = idle_ms(
        [event for event in trace["traceEvents"] if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    )
    each = idle / (last - first + 1)
    bench.report.add("gap", each <= 1.5, f"the device was idle for {each:.2f} ms a step", ms=each, mark=1.5)


def idle_ms(events: list[dict[str, Any]]) -> float:
    """Between the first and the last of events that may overlap, in milliseconds; `ts` and `dur` are microseconds."""
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events)
    idle, end = 0.0, spans[0][1]
    for start, stop in spans[1:]:
        idle, end = idle + max(0.0, start - end), max(end, stop)
    return idle / 1e3


# Whole runs


def settled(bench: Bench, rows: list[dict[str, Any]], key: str) -> float:
    """The median once the run has warmed up."""
    return statistics.median(row[key] for row in rows[min(20, bench.steps // 2) :] if row[key] is not None)


def speed(bench: Bench) -> list[dict[str, Any]]:
    rows = bench.train("cold", train__steps=bench.steps, checkpoint__interval=max(2, bench.steps // 4))
    losses = [row["loss"] for row in rows]
    finite = all(value is not None and math.isfinite(value) for value in losses)
    bench.report.add("precision", finite and losses[-1] < losses[0], f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
    rate, known = settled(bench, rows, "tokens_per_second"), [row["mfu"] for row in rows if row["mfu"] is not None]
    mfu = settled(bench, rows, "mfu") if known else None
    mark = next((mark for name, mark in MFU.items() if name in bench.report.device), None)
    passed = mfu >= mark if mark and mfu is not None else None
    shown = f"{mfu:.3f}" if mfu is not None else "n/a"
    bench.report.add("speed", passed, f"{rate:,.0f} tokens/s, MFU {shown}", tokens_per_second=rate, mfu=mfu, mark=mark)
    return rows


def data(bench: Bench, cold: list[dict[str, Any]]) -> None:
    warm = settled(bench, bench.train("warm", train__steps=bench.steps), "tokens_per_second")
    share = settled(bench, cold, "tokens_per_second") / warm
    bench.report.add(
        "data", None if bench.small else share >= 0.99, f"{share:.4f} of the speed with a warm cache", share=share
    )


def saving(bench: Bench) -> None:
    events = [json.loads(line) for line in (bench.runs / "cold" / "events.jsonl").read_text().splitlines()]
    held = [event["held_seconds"] for event in events if event["kind"] == "save"][1:-1]
    longest = max(held, default=math.nan)
    bench.report.add("saving", longest <= 0.3 if held else None, f"training held for {longest:.2f} s", seconds=longest)


def resume(bench: Bench) -> None:
    whole, part = (6, 4) if bench.small else (30, 22)
    exact = {"train__deterministic": True, "schedule__name": "constant"}
    calm = bench.train("calm", train__steps=whole, **exact)
    bench.train("halved", train__steps=part, **exact)
    halved = bench.train("halved", train__steps=whole, **exact)
    equal = [r["loss"] for r in calm] == [r["loss"] for r in halved]
    bench.report.add("resume", equal, f"{whole} steps in one go and as {part} + {whole - part}")


def residual(bench: Bench) -> None:
    steps = bench.steps if bench.small else 500
    usual, narrow = (
        bench.train(f"residual-{kind}", train__steps=steps, train__residual=kind) for kind in ("fp32", "bf16")
    )
    tail = max(1, steps // 20)
    apart = abs(statistics.mean(r["loss"] for r in narrow[-tail:]) - statistics.mean(r["loss"] for r in usual[-tail:]))
    faster = settled(bench, narrow, "tokens_per_second") / settled(bench, usual, "tokens_per_second")
    passed = None if bench.small else apart <= 0.003 and faster >= 1
    detail = f"losses {apart:.4f} apart over the last {tail} of {steps} steps, {faster:.3f} times the speed"
    bench.report.add("residual", passed, detail, apart=apart, ratio=faster)


def nccl(bench: Bench, one: list[dict[str, Any]]) -> None:
    if bench.devices < 2:
        bench.report.add("nccl", None, "one device only")
        return
    count = 2 if bench.devices < 4 else 4 if bench.devices < 8 else 8
    many = bench.train("many", count, train__steps=bench.steps)
    other = bench.train("other-seed", train__steps=bench.steps, data__seed=7, model__seed=7)
    apart, spread = (abs(rows[-1]["loss"] - one[-1]["loss"]) for rows in (many, other))
    scale = settled(bench, many, "tokens_per_second") / settled(bench, one, "tokens_per_second") / count
    detail = (
        f"{count} devices: losses {apart:.4f} apart, two seeds {spread:.4f}; {scale:.3f} of {count} times the speed"
    )
    bench.report.add("nccl", apart <= spread, detail, apart=apart, spread=spread, scale=scale)


def run(bench: Bench, chosen: tuple[str, ...]) -> None:
    parts: dict[str, Callable[[Bench], None]] = {"loss": loss, "attention": attention, "muon": muon, "gap": gap}
    for name, part in parts.items():
        if name in chosen:
            part(bench)
    if {"speed", "data", "saving", "nccl"} & set(chosen):
        cold = speed(bench)
        if "data" in chosen:
            data(bench, cold)
        if "saving" in chosen:
            saving(bench)
        if "nccl" in chosen:
            nccl(bench, cold)
    if "resume" in chosen:
        resume(bench)
    if "residual" in chosen:
        residual(bench)


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder for the runs (default: a temporary one)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    parser.add_argument("--self-check", action="store_true", help="in small, on this processor")
    args = parser.parse_args()
    if not args.self_check and not torch.cuda.is_available():
        parser.error("no CUDA device here; run this on a machine that has one, or --self-check")
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(args.runs or Path(scratch), args.steps, args.self_check)
        print(
            f"{bench.report.device} x {bench.devices}, PyTorch {torch.__version__}, Python {platform.python_version()}"
        )
        run(bench, tuple(args.only))
    found = {"device": bench.report.device, "torch": torch.__version__, "checks": bench.report.lines}
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return sum(line["verdict"] == "FAIL" for line in bench.report.lines)


if __name__ == "__main__":
    raise SystemExit(main())
