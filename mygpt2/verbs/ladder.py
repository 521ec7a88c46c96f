"""`ladder`: several sizes at several budgets, the law through them, and a forecast that is scored afterwards."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from mygpt2.errors import EXIT_OK, UserError, word
from mygpt2.files import check_output, encode_json, write_output
from mygpt2.progress import Bars
from mygpt2.terminal import interruptible

EXAMPLES = """
A ladder's file is a run's TOML with a section [ladder]; --write makes one to start from:

  python -m mygpt2 ladder --write ladder.toml
  python -m mygpt2 ladder ladder.toml --dry-run       what will be trained, and how long it takes
  python -m mygpt2 ladder ladder.toml                 trains, fits, foretells the next size, trains it, scores

Each size has one trunk of constant rate; a budget is a branch of it that decays to the end. All cells are scored on one
text. Before the next size begins, its loss is foretold and frozen in runs/_experiments/NAME/forecasts/. Killed at any
moment, or stopped with Ctrl-C, the same command goes on; what is done is not done again.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("file", metavar="FILE.toml", type=Path, nargs="?", help="sizes, budgets and settings")
    parser.add_argument("--write", metavar="FILE", type=Path, help="write a file to start from, and end")
    parser.add_argument("--nproc", metavar="N", type=int, default=1, help="processes that train together (1)")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write what was found to this file")
    parser.add_argument(
        "--plot", metavar="OUT.png", type=Path, help="where the plot goes; the experiment's folder without"
    )
    parser.add_argument(
        "--measure", action="store_true", help="time a few steps of each size first, where no run tells how long"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained and how long, and end")


def run(args: argparse.Namespace) -> int:
    if args.write is not None:
        return _write(args)
    if args.file is None:
        raise UserError("which ladder? give its TOML file; --write FILE makes one to start from")
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        check_output(option, path)
    if not 1 <= args.nproc <= 64:
        raise UserError(f"--nproc {args.nproc} is not possible; use 1 to 64")
    from mygpt2.experiments.ladder_file import read_ladder
    from mygpt2.experiments.rungs import Plan

    plan = Plan(read_ladder(args.file))
    from mygpt2.experiments.ladder import Ladder
    from mygpt2.experiments.ladder_words import headline, ladder_text, plan_text
    from mygpt2.experiments.running import Interrupted

    ladder = Ladder(plan, args.runs, args.nproc, _say)
    print(plan_text(plan), flush=True)
    if args.measure:
        with interruptible():
            ladder.measure()
    print(ladder.cost(), flush=True)
    if args.dry_run:
        return EXIT_OK
    try:
        with interruptible(), closing(Bars()) as ladder.progress:
            look = ladder.run()
    except Interrupted as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print(f"\n{ladder_text(look)}\n\n{headline(look)}")
    if args.json is not None:
        write_output("--json", args.json, encode_json(look))
    from mygpt2.experiments.ladder_plot import ladder_png

    out = args.plot or ladder.folder.path / "ladder.png"
    write_output("--plot", out, ladder_png(look, plan.file.name))
    print(f"plot: {out}")
    return EXIT_OK


def _write(args: argparse.Namespace) -> int:
    """The file to start from; never over one that is there."""
    from mygpt2.experiments.ladder_file import TEMPLATE

    check_output("--write", args.write)
    try:
        with open(args.write, "x", encoding="utf-8") as file:
            file.write(TEMPLATE.replace("FILE", word(args.write)))
    except FileExistsError:
        raise UserError(f"--write {args.write} exists; choose another name, or run it") from None
    except OSError as error:
        raise UserError(f"cannot write --write {args.write}: {error.strerror or error}; choose another file") from error
    print(f"{args.write}: look through it, then\n  python -m mygpt2 ladder {word(args.write)} --dry-run")
    return EXIT_OK


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
