"""`export`: a model as a folder that transformers loads."""

from __future__ import annotations

import argparse
from pathlib import Path

from mygpt2.machine import home_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="RUN|CHECKPOINT_DIR|HF_DIR|gpt2", required=True, help="a run's name, a folder, a hub name"
    )
    parser.add_argument("--to", metavar="HF_DIR", type=Path, required=True, help="folder to make; absent or empty")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")


def run(args: argparse.Namespace) -> int:
    from mygpt2.exchange.export import check_target, export_folder
    from mygpt2.exchange.load import load_model

    to = home_path(args.to)
    check_target(to)  # complain before gigabytes are read
    loaded = load_model(args.model, args.runs)
    export_folder(loaded, to)
    print(f"exported {loaded.name} ({loaded.details['parameters']:,} parameters) to {to}")
    return 0
