"""`import`: a model that lies in a pickle, once and on request, as a folder of safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from mygpt2.errors import word
from mygpt2.machine import home_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} FILE --to DIR [--tokenizer T]"
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="nanoGPT's ckpt.pt, or a pytorch_model.bin with its config.json beside"
    )
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="folder to make; absent or empty")
    parser.add_argument(
        "--tokenizer", metavar="T", help="gpt2, gpt2:N or a tokenizer.json (the one beside FILE, or GPT-2's)"
    )
    parser.add_argument(
        "--gelu", choices=("erf", "tanh"), default="erf",
        help="the form of GELU a nanoGPT checkpoint was trained with: erf, as nanoGPT's nn.GELU(); tanh, as its code "
        "before that and GPT-2's own (erf)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from mygpt2.exchange.export import check_target, export_folder
    from mygpt2.exchange.legacy import load_legacy
    from mygpt2.exchange.load import described
    from mygpt2.tokenizer import load_tokenizer
    from mygpt2.tokenizer.folder import tokenizer_of

    file, to = home_path(args.file), home_path(args.to)
    check_target(to)
    chosen = load_tokenizer(args.tokenizer) if args.tokenizer else None
    model = load_legacy(file, args.gelu)
    tokenizer = chosen or tokenizer_of(file.parent, model.config.vocab_size)
    loaded = described(model, tokenizer, file.name, "file", file)
    export_folder(loaded, to)
    cut = f", {loaded.details['unused_ids']} unused ids left out" if "unused_ids" in loaded.details else ""
    form = f"GELU in its {model.config.gelu} form"
    size = f"{loaded.details['parameters']:,} parameters"
    print(f"imported {file} ({size}, {form}{cut}); use it with --model {word(to)}")
    return 0
