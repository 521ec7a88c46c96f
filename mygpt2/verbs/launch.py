"""`launch`: writes what a cluster needs to train a run, and hands it over."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mygpt2.errors import EXIT_OK
from mygpt2.launch.request import DEFAULT_PRESET, add_config_arguments, default_run_name, read_config

if TYPE_CHECKING:
    from mygpt2.launch.spec import LaunchSpec

TAKES_SETTINGS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.usage = f"{parser.prog} --to ENGINE (--print | --submit) [--nodes N --gpus G ...] [train options]"
    parser.add_argument("--run", metavar="NAME", help="name of the run; unset, the same command means the same run")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"),
                        help="folder of runs, on a file system that all nodes share (./runs)")  # fmt: skip
    group = parser.add_argument_group("launch")
    group.add_argument("--to", required=True, choices=("slurm", "skypilot", "kubernetes", "kubeflow"), help="engine")
    how = group.add_mutually_exclusive_group(required=True)
    how.add_argument("--print", action="store_true", help="print the file, and end")
    how.add_argument("--submit", action="store_true", help="write the file below --runs and hand it to the engine")
    for name, metavar, words in (
        ("nodes", "N", "machines (1)"),
        ("gpus", "N", "GPUs of each node (0)"),
        ("gpu-type", "NAME", "as the engine names it; for example H100"),
        ("nproc", "N", "processes of each node (one per GPU, else 2)"),
        ("cpus", "N", "cores of each node (unset: the engine's choice)"),
        ("memory", "GB", "memory of each node (the engine's choice)"),
        ("time", "T", "limit of wall time: 12:00:00, 2-00:00:00, 90m, 12h, 2d"),
        ("partition", "NAME", "SLURM's partition, or several with commas between them"),
        ("image", "IMAGE", "container image that holds this checkout at --workdir"),
        ("workdir", "DIR", "the checkout on the nodes, by its whole path (as here)"),
    ):
        group.add_argument(f"--{name}", metavar=metavar, help=words)
    for name, metavar, words in (
        ("volume", "WHAT:PATH", "a claim (Kubernetes) or bucket (SkyPilot), and where nodes have it"),
        ("env", "NAME=VALUE", "a variable for the run; may be repeated"),
        ("secret", "NAME", "a variable whose value is in the engine's own store, such as HF_TOKEN"),
        ("option", "KEY=VALUE", "the engine's own: #SBATCH --KEY=VALUE, SkyPilot's resource, a node's label"),
    ):
        group.add_argument(f"--{name}", metavar=metavar, action="append", help=words)


def run(args: argparse.Namespace) -> int:
    from mygpt2.launch.handed import TITLES
    from mygpt2.launch.handover import TARGETS, file_of, submit

    spec, config = _spec(args)
    if args.print:
        print(TARGETS[args.to].render(spec), end="")
        return EXIT_OK
    said = submit(args.to, spec, args.runs, config)
    print(f"written: {file_of(args.to, spec.run, args.runs)}")
    print(f"handed to {TITLES[args.to]}: {said}")
    return EXIT_OK


def _spec(args: argparse.Namespace) -> tuple[LaunchSpec, str]:
    """The launch and its settings as TOML. Raises UserError for whatever would only come to light on the nodes."""
    from mygpt2.config import plan_batch, to_toml
    from mygpt2.launch.asked import FIELDS, read, spec_of
    from mygpt2.run_dir.paths import check_name

    asked = read(args.to, {name: value for name in FIELDS if (value := getattr(args, name)) is not None})
    preset = args.preset or DEFAULT_PRESET
    of = args.preset if args.config else preset
    config = read_config(of, args.config, args.settings)
    name = check_name(args.run or default_run_name(of, args.config, bool(args.settings), config))
    batch = config.train
    plan_batch(batch.batch_tokens, config.model.block_size, batch.micro_batch, asked.ranks, config.data.lanes)
    return spec_of(asked, config, preset, name, args.runs), to_toml(config)
