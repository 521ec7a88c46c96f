"""`sample`: continue prompts with a trained model."""

from __future__ import annotations

import argparse
import json
import unicodedata
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="RUN|CHECKPOINT_DIR|HF_DIR", required=True, help="a run's name or a folder")
    parser.add_argument("--prompt", metavar="TEXT", action="append", help="what to continue; may be given again")
    parser.add_argument("--max-new-tokens", metavar="N", type=int, default=100, help="length of a sample (100)")
    parser.add_argument("--temperature", metavar="T", type=float, default=0.8, help="0 is greedy (0.8)")
    parser.add_argument("--top-k", metavar="K", type=int, default=50, help="choose from the K likeliest; 0: all (50)")
    parser.add_argument("--top-p", metavar="P", type=float, default=1.0, help="choose from probability P; 1: all (1)")
    parser.add_argument("--seed", metavar="S", type=int, default=1337, help="of the first sample; the next has S + 1")
    parser.add_argument("--num-samples", metavar="N", type=int, default=1, help="samples of each prompt (1)")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the samples to a JSON file")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")


def run(args: argparse.Namespace) -> int:
    if args.json is not None and not args.json.parent.is_dir():
        raise UserError(f"--json {args.json}: there is no folder {args.json.parent}; make it or choose another")
    from mygpt2.generate import Sampling, generate
    from mygpt2.model.source import open_model

    Sampling(args.temperature, args.top_k, args.top_p)  # complain before gigabytes are read
    device = _device(args.device)
    opened = open_model(args.model, args.runs)
    samples = generate(
        opened.model.to(device),
        opened.tokenizer,
        args.prompt or [""],
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        num_samples=args.num_samples,
    )
    print(f"model {opened.origin}")
    for sample in samples:
        print(f"--- seed {sample['seed']}, {len(sample['ids'])} tokens, {sample['finish']}")
        print(printable(sample["prompt"] + sample["text"]))
    if args.json is not None:
        _write(args.json, samples)
    return 0


def printable(text: str) -> str:
    """The text without control characters, which could move a terminal's cursor or change its title."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def _device(name: str) -> str:
    """The device asked for, or the best there is; UserError if it is not there."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise UserError(
            f"--device {name} is not there; allowed: auto, {', '.join(d for d, is_there in there.items() if is_there)}"
        )
    return name


def _write(path: Path, samples: list[dict[str, Any]]) -> None:
    from mygpt2.run_dir.atomic import replace_file

    try:
        replace_file(path, json.dumps(samples, indent=1).encode() + b"\n")
    except OSError as error:
        raise UserError(f"cannot write --json {path}: {error.strerror or error}; choose another file") from error
