"""Training speed and memory, paired with a nanoGPT checkout as it runs on a CPU (float32, eager).

    python benchmarks/training.py --nanogpt PATH [--shape small8k gpt2 small50k] [--processor here plain] [--rounds 7]

Two kinds of processor: `here` is this one as it is; `plain` keeps both sides to AVX2, as on a laptop or an old server,
by the variables in PLAIN. The first line of each says what was measured.

Marks: tokens/s at least 2.3 times nanoGPT's on small8k and gpt2 where the processor multiplies bfloat16, 1.3 where
it does not; peak memory at most 0.85 times, and at most 0.6 times on small50k (a small model with the full vocabulary).
Random tokens: speed only, no claim about loss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from paired import Engine, compare, serve

# layers, heads, channels, context, vocabulary, sequences per step
SHAPES = {
    "small8k": (6, 6, 384, 256, 8192, 16),
    "small50k": (6, 6, 384, 256, 50304, 16),
    "gpt2": (12, 12, 768, 1024, 50304, 2),
}
MEMORY = {"small8k": 0.85, "small50k": 0.6, "gpt2": 0.85}
SPEED = {"bf16": 2.3, "fp32": 1.3}  # on small8k and gpt2, by the arithmetic that the processor is good at
PLAIN = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def nanogpt_step(path: str, shape: str):
    """nanoGPT's own model, optimizer and clipping: the body of the loop in its train.py."""
    import torch

    sys.path.insert(0, path)
    from model import GPT, GPTConfig

    L, H, C, T, V, B = SHAPES[shape]
    torch.manual_seed(1337)
    model = GPT(GPTConfig(n_layer=L, n_head=H, n_embd=C, block_size=T, vocab_size=V, dropout=0.0, bias=True))
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cpu")
    generator = torch.Generator().manual_seed(0)

    def step() -> float:
        tokens = torch.randint(0, V, (B, T + 1), generator=generator)
        _, loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def our_step(shape: str, compile: bool):
    """The product's own step: what `python -m mygpt2 train` runs between two batches."""
    import torch

    from mygpt2.board import RankInfo
    from mygpt2.config.schema import OptimizerConfig
    from mygpt2.device import choose, keep_memory_warm, use_threads
    from mygpt2.distributed import World
    from mygpt2.model import GPT, GPTConfig, LossModule
    from mygpt2.train.optim import Optimizer
    from mygpt2.train.step import Guard, TrainStep

    L, H, C, T, V, B = SHAPES[shape]
    device = torch.device("cpu")
    keep_memory_warm()
    use_threads(RankInfo())
    model = GPT(GPTConfig(n_layer=L, n_head=H, n_embd=C, block_size=T, vocab_size=V), seed=1337)
    optimizer = Optimizer(model, OptimizerConfig(), device)
    step = TrainStep(
        LossModule(model, compile=compile), optimizer, World(RankInfo(), device, timeout_s=60), choose("auto", device),
        Guard("stop", 1), micro_batch=B, grad_clip=1.0, seed=0, dropout=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def run() -> float:
        tokens = torch.randint(0, V, (B, T + 1), generator=generator)
        return step(0, tokens[:, :-1], tokens[:, 1:], 1.0).loss

    return run


def describe(env: dict[str, str]) -> tuple[str, str]:
    """The arithmetic that `auto` takes in processes with this environment, and the kind of processor in words."""
    code = (
        "import torch; from mygpt2.device import choose; p = choose('auto', torch.device('cpu'));"
        "print(p.name); print(torch.backends.cpu.get_cpu_capability(), 'instructions,', p.name, 'because', p.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    precision, words = done.stdout.splitlines()[-2:]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return precision, f"{model or 'processor'}, {os.cpu_count()} cores, {words}"


def measure(args: argparse.Namespace, shape: str, env: dict[str, str], processor: str, least: float) -> dict:
    """One shape on one kind of processor, against its marks."""
    kinds = ["nanogpt", *(["compiled"] if not args.no_compile else []), *(["eager"] if args.eager else [])]
    command = [sys.executable, __file__, "--nanogpt", args.nanogpt, "--shape", shape, "--serve"]
    found = compare([Engine(kind, [*command, kind], env=env) for kind in kinds], args.rounds)
    tokens, name = SHAPES[shape][3] * SHAPES[shape][5], f"{processor} {shape}"
    for kind, r in found.items():
        print(f"{name} {kind}: {tokens / r['median_s']:,.0f} tok/s, ratio {r['ratio']:.2f} ({r['clean_rounds']} clean "
              f"rounds), by CPU time {r['ratio_cpu']:.2f}, memory {r['memory_ratio']:.2f}")  # fmt: skip
    ours = [r for kind, r in found.items() if kind != "nanogpt"]
    ratio = max(r["ratio_clean"] or r["ratio"] for r in ours)
    memory = min(r["memory_ratio"] for r in ours)
    if shape != "small50k":
        print(f"{name} mark: {ratio:.2f} x nanoGPT, at least {least}: {'pass' if ratio >= least else 'FAIL'}")
    most = MEMORY[shape]
    print(f"{name} mark: memory {memory:.2f} x, at most {most}: {'pass' if memory <= most else 'FAIL'}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", required=True, help="folder of a nanoGPT checkout")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--processor", nargs="+", choices=["here", "plain"], default=["here"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--eager", action="store_true", help="also measure without torch.compile")
    parser.add_argument("--no-compile", action="store_true", help="do not measure with torch.compile (needs --eager)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=["nanogpt", "compiled", "eager"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (Path(args.nanogpt) / "model.py").is_file():
        parser.error(f"--nanogpt {args.nanogpt}: no model.py there; give the folder of a nanoGPT checkout")
    if args.no_compile and not args.eager:
        parser.error("--no-compile leaves nothing to compare; add --eager")
    if args.serve:
        shape = args.shape[0]
        work = (
            nanogpt_step(args.nanogpt, shape) if args.serve == "nanogpt" else our_step(shape, args.serve == "compiled")
        )
        serve(work)
        return
    results: dict = {}
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    for processor in args.processor:
        env = {**os.environ, "PYTHONPATH": path, **(PLAIN if processor == "plain" else {})}
        precision, words = describe(env)
        print(f"{processor}: {words}", flush=True)
        results[processor] = {"kind": words}
        for shape in args.shape:
            results[processor][shape] = measure(args, shape, env, processor, SPEED[precision])
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
