"""What a person asked to be trained: resolved from presets, files, options and the run itself."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mygpt2.config import RunConfig, config_hash, load_config, preset_names, to_toml, without_fork
from mygpt2.config.toml import MAX_BYTES
from mygpt2.errors import UserError

DEFAULT_PRESET = "tiny"


@dataclass(frozen=True)
class Request:
    """What to train, and the run folder it lives in: `runs_dir/run_name`; and what to tell of how it was read."""

    config: RunConfig
    run_name: str
    runs_dir: Path
    resume: str
    notices: tuple[str, ...] = ()
    until: int | None = None

    def tell(self) -> None:
        """Says the notices, to whoever sees stderr."""
        _tell(self.notices)


def read_config(preset: str | None, file: Path | None, settings: list[str]) -> RunConfig:
    """`load_config` of a command line; what a person should know of how it was read goes to stderr."""
    notices: list[str] = []
    config = load_config(preset, file, settings, notices)
    _tell(notices)
    return config


def _tell(notices: Iterable[str]) -> None:
    for line in notices:
        print(f"note: {line}", file=sys.stderr, flush=True)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a configuration comes from; single settings are whatever argparse does not know."""
    from mygpt2.config.summary import settings_help

    names = ", ".join(preset_names())
    parser.usage = f"{parser.prog} [--preset NAME] [--config FILE.toml] [--section.key VALUE ...] [options]"
    parser.add_argument("--preset", metavar="NAME", help=f"start from a preset: {names} (tiny unless --config)")
    parser.add_argument("--config", metavar="FILE.toml", type=Path, help="settings that go before the preset's")
    parser.epilog = settings_help()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--run", metavar="NAME", help="name of the run; unset, the same command means the same run")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    parser.add_argument(
        "--resume",
        choices=("auto", "never", "must"),
        default="auto",
        help="auto goes on from the newest whole checkpoint if there is one; never and must insist",
    )
    parser.add_argument(
        "--until", metavar="STEP", type=_step,
        help="stop after this step with everything saved; the same command without it goes on, as if nothing had been",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show the settings and what follows from them, and end")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration as TOML, and end")


def _step(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a step; give a whole number from 1 up")
    return int(text)


def only_shown(args: argparse.Namespace, request: Request) -> bool:
    """Prints what --print-config and --dry-run ask for; whether that was all that was asked."""
    if args.print_config or args.dry_run:
        print(to_toml(request.config), end="")
    if args.dry_run:
        _print_summary(request)
    return bool(args.print_config or args.dry_run)


def resolve(args: argparse.Namespace) -> Request:
    """The request that the arguments stand for. Reads files, writes nothing. Raises UserError."""
    if args.run is not None:
        from mygpt2.run_dir.paths import check_name  # here, as help and most errors can do without numpy

        check_name(args.run)
    preset, file = args.preset, args.config
    own = _own_config(args) if preset is None and file is None and args.run else None
    if preset is None and file is None and own is None:
        preset = DEFAULT_PRESET
    notices: list[str] = []
    config = load_config(preset, own or file, args.settings, notices)
    if own and not any(word.partition("=")[0] == "--data.fork" for word in args.settings):
        config = without_fork(config)  # runs of earlier versions kept it
    name = args.run or default_run_name(preset, file, bool(args.settings), config)
    if args.resume == "must" and not (args.runs / name).is_dir():
        raise UserError(
            f"--resume must: there is no run {name!r} in {args.runs}; allowed: an existing run "
            "(python -m mygpt2 runs list), or --resume auto to start it"
        )
    return Request(config, name, args.runs, args.resume, tuple(notices), args.until)


def _own_config(args: argparse.Namespace) -> Path | None:
    """The configuration of the run that is to go on; None for a run that begins. UserError if it cannot be read."""
    from mygpt2.files import read_json
    from mygpt2.run_dir.paths import RunDir

    run = RunDir(args.runs / args.run)
    if args.resume == "never" or not run.exists():
        return None
    # An attempt that was killed as it began may have left its own copy only.
    attempts = sorted((int(name) for name in run.names(run.attempts_dir) if name.isdecimal()), reverse=True)
    folders = [run.attempt_dir(n) for n in attempts]
    kept = [f for f in folders if (read_json(f / "exit.json", run.path) or {}).get("state") != "refused"]
    for file in (run.config_file, *(folder / "config.toml" for folder in kept)):
        try:
            run.read(file, MAX_BYTES)
            return file
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(
                f"{file}: {error.strerror or error}; repair it, or say what to train with --preset or --config"
            ) from None
    return None


def default_run_name(preset: str | None, file: Path | None, overridden: bool, config: RunConfig) -> str:
    """The preset's name, or the preset's or file's with a hash of the settings: the same command is the same run."""
    if preset is not None and file is None and not overridden:
        return preset
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", preset if file is None and preset else Path(str(file)).stem)
    return f"{stem.lstrip('._-')[:50] or 'run'}-{config_hash(config)[:8]}"


def _print_summary(request: Request) -> None:
    from mygpt2.config.summary import describe
    from mygpt2.tokenizer import load_tokenizer

    vocab_size = load_tokenizer(request.config.data.tokenizer).vocab_size
    print(f"\nrun         {request.runs_dir / request.run_name}\n{describe(request.config, vocab_size)}")
