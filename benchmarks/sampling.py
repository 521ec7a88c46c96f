"""Sampling speed of GPT-2 124M with random weights: 200 new tokens after 20, paired with `transformers` and nanoGPT.

    python benchmarks/sampling.py --nanogpt PATH [--batch 1 4] [--engines fp32 bf16 int8 int8-eager] [--rounds 5]

`transformers` (float32, its KV cache) is the base of every ratio; nanoGPT has no cache and recomputes everything, so
it does `NANOGPT_TOKENS` around the middle of the 200 and its time is scaled up:
its cost of a token grows almost linearly with the position, so the middle costs the mean.

Marks: without quantizing at least 1.5 times transformers and 6 times nanoGPT; int8 at least 2.3 and 9 times.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from paired import Engine, compare, serve

PROMPT, NEW = 20, 200
NANOGPT_TOKENS = 8  # around the middle position, where a token costs the mean
MARKS = {"fp32": (1.5, 6.0), "bf16": (1.5, 6.0), "int8": (2.3, 9.0), "int8-eager": (2.3, 9.0)}
OURS = ("fp32", "fp32-eager", "bf16", "int8", "int8-eager")


def with_transformers(batch: int) -> Callable[[], int]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    prompt = torch.randint(0, 50257, (batch, PROMPT))

    def work(new: int = NEW) -> int:
        with torch.inference_mode():
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                top_k=50,
                temperature=0.8,
                min_new_tokens=new,
                max_new_tokens=new,
                pad_token_id=50256,
            )
        assert out.shape == (batch, PROMPT + new)
        return out.numel()

    work(5)  # warm, compiled
    return work


def with_nanogpt(path: str, batch: int) -> Callable[[], int]:
    import torch

    sys.path.insert(0, path)
    from model import GPT, GPTConfig

    torch.manual_seed(0)
    model = GPT(GPTConfig(dropout=0.0, bias=True, vocab_size=50304)).eval()
    prompt = torch.randint(0, 50257, (batch, PROMPT + (NEW - NANOGPT_TOKENS) // 2))

    def work(new: int = NANOGPT_TOKENS) -> int:
        with torch.inference_mode():
            return model.generate(prompt, new, temperature=0.8, top_k=50).numel()

    work(5)  # warm, compiled
    return work


def with_ours(kind: str, batch: int) -> Callable[[], int]:
    """The product's own path: what `python -m mygpt2 sample` runs, reported tokens and all."""
    from mygpt2.generate import Engine as Sampler
    from mygpt2.generate import Sampling
    from mygpt2.model import GPT, GPTConfig
    from mygpt2.tokenizer import load_tokenizer

    weights, _, eager = kind.partition("-")
    tokenizer = load_tokenizer("gpt2")
    sampler = Sampler(GPT(GPTConfig()), tokenizer, weights=weights, compile=not eager)
    prompt = " the" * PROMPT
    assert len(tokenizer.encode(prompt)) == PROMPT

    def work(new: int = NEW) -> int:
        records = sampler.generate([prompt], Sampling(0.8, 50), max_new_tokens=new, num_samples=batch)
        return sum(len(record["ids"]) for record in records)  # random weights end a text once in 50,000 tokens

    work(5)  # warm, compiled
    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", help="folder of a nanoGPT checkout; without it, transformers only")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--engines", nargs="+", choices=OURS, default=["fp32", "bf16", "int8"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=["transformers", "nanogpt", *OURS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.nanogpt and not (Path(args.nanogpt) / "model.py").is_file():
        parser.error(f"--nanogpt {args.nanogpt}: no model.py there; give the folder of a nanoGPT checkout")
    if args.serve:
        batch = args.batch[0]
        if args.serve == "transformers":
            serve(with_transformers(batch), warm_up=0)
        elif args.serve == "nanogpt":
            serve(with_nanogpt(args.nanogpt, batch), warm_up=0)
        else:
            serve(with_ours(args.serve, batch), warm_up=0)
        return
    results = {}
    for batch in args.batch:
        command = [
            sys.executable,
            __file__,
            "--batch",
            str(batch),
            *(["--nanogpt", args.nanogpt] if args.nanogpt else []),
        ]
        names = ["transformers", *(["nanogpt"] if args.nanogpt else []), *args.engines]
        result = compare([Engine(name, [*command, "--serve", name]) for name in names], args.rounds)
        results[batch] = result
        report(result, batch)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


def report(result: dict, batch: int) -> None:
    """Tokens per second of each engine and whether its marks are met."""

    def ratio(name: str) -> float:
        found = result[name]["ratio_clean"] or result[name]["ratio"]
        return found * NANOGPT_TOKENS / NEW if name == "nanogpt" else found

    for name, r in result.items():
        tokens = batch * (NANOGPT_TOKENS if name == "nanogpt" else NEW)
        line = f"batch {batch} {name}: {tokens / r['median_s']:,.1f} tok/s, {ratio(name):.2f} x transformers"
        if "nanogpt" in result and name != "nanogpt":
            line += f", {ratio(name) / ratio('nanogpt'):.1f} x nanoGPT"
        line += f" ({r['clean_rounds']} clean rounds), {r['peak_rss_mb']:,.0f} MB"
        if name in MARKS:
            wanted, over_nanogpt = MARKS[name]
            passed = ratio(name) >= wanted
            if "nanogpt" in result:
                passed = passed and ratio(name) / ratio("nanogpt") >= over_nanogpt
            line += f"; marks {wanted} and {over_nanogpt}: {'pass' if passed else 'FAIL'}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
