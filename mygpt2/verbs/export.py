"""`export`: a model as a folder that transformers loads, or as a file that llama.cpp does."""

from __future__ import annotations

import argparse
from pathlib import Path

from mygpt2.errors import UserError
from mygpt2.machine import home_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="RUN|CHECKPOINT_DIR|HF_DIR|gpt2", required=True, help="a run's name, a folder, a hub name"
    )
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument(
        "--to", metavar="HF_DIR|hub:OWNER/NAME",
        help="folder to make, for transformers, absent or empty; or a model on the hub, a revision for each checkpoint",
    )  # fmt: skip
    to.add_argument("--to-gguf", metavar="FILE", type=Path, help="file to make, for llama.cpp; an Ollama Modelfile too")
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        choices=("float32", "float16", "bfloat16"),
        help="of a GGUF's matrices: float32, float16 or bfloat16 (float32)",
    )
    parser.add_argument("--public", action="store_true", help="whoever wants may see it on the hub (private)")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")


def run(args: argparse.Namespace) -> int:
    from mygpt2.exchange.export import check_target, export_folder
    from mygpt2.exchange.gguf import check_gguf_target, export_gguf, modelfile_of
    from mygpt2.exchange.load import load_model

    if args.dtype and args.to_gguf is None:
        raise UserError("--dtype is for --to-gguf; a folder holds the weights as they were trained")
    on_hub = bool(args.to) and args.to.startswith("hub:")
    if args.public and not on_hub:
        raise UserError("--public is for --to hub:OWNER/NAME; a folder is yours alone")
    if on_hub:
        return _publish(args)
    to = home_path(args.to_gguf or args.to)
    check_gguf_target(to) if args.to_gguf else check_target(to)  # complain before gigabytes are read
    loaded = load_model(args.model, args.runs)
    beside = ""
    if args.to_gguf:
        export_gguf(loaded, to, args.dtype or "float32")
        beside = f", and {modelfile_of(to).name} for Ollama beside it"
    else:
        export_folder(loaded, to)
    print(f"exported {loaded.name} ({loaded.details['parameters']:,} parameters) to {to}{beside}")
    return 0


def _publish(args: argparse.Namespace) -> int:
    from mygpt2.exchange.load import checkpoints_of, load_model
    from mygpt2.exchange.publish import Hub, repository

    repo = repository(args.to)
    models, broken = checkpoints_of(args.model, args.runs)
    if broken:
        print(f"left out, as they are not whole: {', '.join(broken)}", flush=True)
    hub = Hub(repo, args.public)
    for number, spec in enumerate(hub.in_order(models), 1):
        loaded = load_model(spec, args.runs)
        print(f"{number} of {len(models)}: {loaded.name}", flush=True)
        found = hub.publish(loaded)
        print(f"  {repo}@{found.tag}{', which was there' if found.already else f', commit {found.commit[:12]}'}")
    return 0
