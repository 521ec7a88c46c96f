"""`plan`: what a run will take, before it is started. Without torch: `--measure` runs its steps in other processes."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mygpt2.errors import UserError
from mygpt2.files import check_output, write_output
from mygpt2.launch.request import DEFAULT_PRESET, add_config_arguments, read_config
from mygpt2.terminal import interruptible

if TYPE_CHECKING:
    from mygpt2.config import RunConfig
    from mygpt2.planning import Measured

TAKES_SETTINGS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--nproc", metavar="N", type=int, default=1, help="processes that train together (1)")
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, default=Path("runs"),
        help="folder of runs, whose recorded speeds are used and whose disk is looked at (./runs)",
    )  # fmt: skip
    parser.add_argument(
        "--on", metavar="GPU", help="plan for a machine with --nproc of these: h100, h200, a100, l4, rtx4090, ..."
    )
    parser.add_argument(
        "--measure", action="store_true", help="run a few real steps for speed and memory; some minutes"
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write every figure with its basis to this file")


def run(args: argparse.Namespace) -> int:
    _check(args)
    preset = args.preset if args.preset or args.config else DEFAULT_PRESET
    config = read_config(preset, args.config, args.settings)
    from mygpt2.planning import likely_device, machine_with, plan, table

    machine = machine_with(args.on, args.nproc) if args.on else None
    device = "cuda" if machine else likely_device(config.train.device)
    found = plan(config, world_size=args.nproc, runs=args.runs, device=device, machine=machine)
    if args.measure:
        measured = _measured(config, args.nproc, device)
        found = plan(config, world_size=args.nproc, runs=args.runs, device=device, measured=measured)
    print(table(found, shutil.get_terminal_size((120, 24)).columns))
    if args.json is not None:
        write_output("--json", args.json, json.dumps(found.to_json(), indent=1, allow_nan=False).encode() + b"\n")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.nproc < 1:
        raise UserError(f"--nproc {args.nproc} is not allowed; use 1 or more, or leave it out")
    if args.on and args.measure:
        raise UserError("--measure runs steps on this machine and --on plans for another; leave one of them out")
    check_output("--json", args.json)


def _measured(config: RunConfig, nproc: int, device: str) -> Measured:
    """`measure`, which must get the time to end its processes when this one is asked to end; its result is kept."""
    from mygpt2.planning import keep, measure

    with interruptible():
        measured = measure(config, world_size=nproc, device=device, say=_say)
    try:
        keep(measured, config, world_size=nproc, device=device)
    except (OSError, UserError) as error:
        _say(f"the measurement is shown and not kept for later plans: {error}")
    return measured


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
