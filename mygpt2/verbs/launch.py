"""`launch`: writes what a cluster needs to train a run, and hands it over."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mygpt2.errors import EXIT_OK, UserError
from mygpt2.launch.request import DEFAULT_PRESET, add_config_arguments, default_run_name, read_config

if TYPE_CHECKING:
    from mygpt2.config import RunConfig
    from mygpt2.launch.spec import LaunchSpec

TAKES_SETTINGS = True
ROOT = Path(__file__).resolve().parents[2]


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
    group.add_argument("--nodes", type=_count(1), default=1, metavar="N", help="machines (1)")
    group.add_argument("--gpus", type=_count(0), default=0, metavar="N", help="GPUs of each node (0)")
    group.add_argument("--gpu-type", metavar="NAME", help="as the engine names it; for example H100")
    group.add_argument("--nproc", type=_count(1), metavar="N", help="processes of each node (one per GPU, else 2)")
    group.add_argument("--cpus", type=_count(1), metavar="N", help="cores of each node (unset: the engine's choice)")
    group.add_argument("--memory", type=_count(1), metavar="GB", help="memory of each node (the engine's choice)")
    group.add_argument("--time", type=_time, metavar="T", help="limit of wall time: 12:00:00, 2-00:00:00, 90m, 12h, 2d")
    group.add_argument("--image", metavar="IMAGE", help="container image that holds this checkout at --workdir")
    group.add_argument("--workdir", metavar="DIR", default=str(ROOT), help="the checkout on the nodes (as here)")
    group.add_argument("--volume", type=_volume, action="append", default=[], metavar="WHAT:PATH",
                       help="a claim (Kubernetes) or bucket (SkyPilot), and where nodes have it")  # fmt: skip
    group.add_argument("--env", type=_variable, action="append", default=[], metavar="NAME=VALUE",
                       help="a variable for the run; may be repeated")  # fmt: skip
    group.add_argument("--secret", type=_name, action="append", default=[], metavar="NAME",
                       help="a variable whose value is in the engine's own store, such as HF_TOKEN")  # fmt: skip
    group.add_argument("--option", type=_pair, action="append", default=[], metavar="KEY=VALUE",
                       help="the engine's own: #SBATCH --KEY=VALUE, SkyPilot's resource, a node's label")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from mygpt2.launch.handover import TARGETS, check, submit, write

    check(args.to, vars(args))
    spec = _spec(args)
    if args.print:
        print(TARGETS[args.to].render(spec), end="")
        return EXIT_OK
    path = write(args.to, spec, args.runs)
    print(f"written: {path}")
    said = submit(args.to, path, spec)
    print(f"handed to {TARGETS[args.to].title}: {said}")
    return EXIT_OK


def _spec(args: argparse.Namespace) -> LaunchSpec:
    """Raises UserError for whatever would only come to light on the nodes."""
    from mygpt2.config import plan_batch
    from mygpt2.config.words import words_of
    from mygpt2.launch.spec import LaunchSpec
    from mygpt2.run_dir.paths import check_name

    preset = args.preset or DEFAULT_PRESET
    asked = args.preset if args.config else preset
    config = read_config(asked, args.config, args.settings)
    name = check_name(args.run or default_run_name(asked, args.config, bool(args.settings), config))
    processes = args.nproc or args.gpus or min(2, args.cpus or 2)
    batch = config.train
    plan_batch(
        batch.batch_tokens, config.model.block_size, batch.micro_batch, args.nodes * processes, config.data.lanes
    )
    _no_secrets(args.env)
    texts = {"--runs": args.runs, "--workdir": args.workdir, "--gpu-type": args.gpu_type, "--image": args.image}
    for option, text in texts.items():
        if text is not None and _unwritable(str(text)):
            raise UserError(f"{option} {str(text)!a} holds a line break or control character; give it without")
    words = ("--preset", preset, *words_of(_absolute(config), preset))
    return LaunchSpec(
        run=name, runs=PurePosixPath(args.runs.absolute()), words=words,
        workdir=PurePosixPath(args.workdir), nodes=args.nodes, processes=processes, gpus=args.gpus,
        gpu_type=args.gpu_type, cpus=args.cpus, memory=args.memory, seconds=args.time, image=args.image,
        volumes=tuple(args.volume), environment=tuple(args.env), secrets=tuple(args.secret), options=tuple(args.option),
    )  # fmt: skip


def _absolute(config: RunConfig) -> RunConfig:
    """A source and a tokenizer that are files here, by their whole path: a node starts elsewhere."""
    data = config.data
    named = {"source": data.source, "tokenizer": data.tokenizer}
    whole = {
        key: str(Path(value).expanduser().absolute())
        for key, value in named.items()
        if value != "pydocs" and Path(value).expanduser().exists()
    }
    return config.model_copy(update={"data": data.model_copy(update=whole)})


def _no_secrets(given: list[tuple[str, str]]) -> None:
    for name, _ in given:
        if re.search(r"TOKEN|SECRET|PASSWORD|API_?KEY|CREDENTIAL", name.upper()):
            raise UserError(
                f"--env {name} would stand in a file that others can read; use --secret {name}, or under SLURM the "
                "environment of the shell that submits"
            )


def _count(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= 1_000_000:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return whole


def _time(text: str) -> int:
    from mygpt2.launch.spec import parse_time

    seconds = parse_time(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; for example 12:00:00, 2-00:00:00, 90m, 12h or 2d")
    return seconds


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", name) or _unwritable(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE on one line")
    return name, value


def _variable(text: str) -> tuple[str, str]:
    """Stricter than `_pair`: a shell cannot export a name with a dot, and the run would go on without it."""
    name, value = _pair(text)
    return _name(name), value


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a variable's name; use letters, digits and _, as in HF_HOME")
    return text


def _volume(text: str) -> tuple[str, str]:
    what, colon, place = text.rpartition(":")
    if not colon or not what or not place.startswith("/") or _unwritable(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not WHAT:PATH with a whole path; for example claim:/runs")
    return what, place


def _unwritable(text: str) -> Any:
    return re.search(r"[\x00-\x1f\x7f]", text)
