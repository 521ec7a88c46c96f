"""Training speed and memory, paired with a nanoGPT checkout as it runs on a CPU (float32, eager).

    python benchmarks/training.py --nanogpt PATH [--shape small8k gpt2 small50k] [--rounds 7]

Marks: tokens/s at least 2.2 times nanoGPT's on small8k and 2.3 times on gpt2; peak memory at most 0.85 times, and at
most 0.6 times on small50k (a small model with the full vocabulary). Random tokens: speed only, no claim about loss.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from paired import Engine, compare, serve

# layers, heads, channels, context, vocabulary, sequences per step
SHAPES = {
    "small8k": (6, 6, 384, 256, 8192, 16),
    "small50k": (6, 6, 384, 256, 50304, 16),
    "gpt2": (12, 12, 768, 1024, 50304, 2),
}
MARKS = {"small8k": (2.2, 0.85), "small50k": (None, 0.6), "gpt2": (2.3, 0.85)}


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

    from mygpt2.config.schema import OptimizerConfig
    from mygpt2.distributed import Place, World
    from mygpt2.model import GPT, GPTConfig, LossModule
    from mygpt2.train.guard import Guard
    from mygpt2.train.hardware import keep_memory_warm, use_threads
    from mygpt2.train.optim import Optimizer
    from mygpt2.train.precision import choose
    from mygpt2.train.step import TrainStep

    L, H, C, T, V, B = SHAPES[shape]
    device = torch.device("cpu")
    keep_memory_warm()
    use_threads(Place())
    model = GPT(GPTConfig(n_layer=L, n_head=H, n_embd=C, block_size=T, vocab_size=V), seed=1337)
    optimizer = Optimizer(model, OptimizerConfig(), device)
    step = TrainStep(
        LossModule(model, compile=compile), optimizer, World(Place(), device, timeout_s=60), choose("auto", device),
        Guard("stop", 1), micro_batch=B, grad_clip=1.0, seed=0, dropout=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def run() -> float:
        tokens = torch.randint(0, V, (B, T + 1), generator=generator)
        return step(0, tokens[:, :-1], tokens[:, 1:], 1.0).loss

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", required=True, help="folder of a nanoGPT checkout")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--eager", action="store_true", help="also measure without torch.compile")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=["nanogpt", "compiled", "eager"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (Path(args.nanogpt) / "model.py").is_file():
        parser.error(f"--nanogpt {args.nanogpt}: no model.py there; give the folder of a nanoGPT checkout")
    if args.serve:
        shape = args.shape[0]
        work = (
            nanogpt_step(args.nanogpt, shape) if args.serve == "nanogpt" else our_step(shape, args.serve == "compiled")
        )
        serve(work)
        return
    results = {}
    for shape in args.shape:
        kinds = ["nanogpt", "compiled", *(["eager"] if args.eager else [])]
        command = [sys.executable, __file__, "--nanogpt", args.nanogpt, "--shape", shape, "--serve"]
        results[shape] = compare([Engine(kind, [*command, kind]) for kind in kinds], args.rounds)
        tokens = SHAPES[shape][3] * SHAPES[shape][5]
        for name, r in results[shape].items():
            print(f"{shape} {name}: {tokens / r['median_s']:,.0f} tok/s, ratio {r['ratio']:.2f} "
                  f"({r['clean_rounds']} clean rounds), memory {r['memory_ratio']:.2f}")  # fmt: skip
        ours, (speed, memory) = results[shape]["compiled"], MARKS[shape]
        ratio = ours["ratio_clean"] or ours["ratio"]
        if speed:
            print(f"{shape} mark: {ratio:.2f} x nanoGPT, at least {speed}: {'pass' if ratio >= speed else 'FAIL'}")
        print(f"{shape} mark: memory {ours['memory_ratio']:.2f} x, at most {memory}: "
              f"{'pass' if ours['memory_ratio'] <= memory else 'FAIL'}")  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
