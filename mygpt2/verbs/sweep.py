"""`sweep FILE.toml`: which value of a setting is best, for a fraction of what the full grid would take."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from mygpt2.errors import EXIT_OK, UserError
from mygpt2.files import check_output, encode_json, write_output
from mygpt2.progress import Bars
from mygpt2.terminal import interruptible

EXAMPLE = """
FILE.toml, for example:

  base = "tiny"              # a run, a preset or a TOML file
  looks = 3                  # two or three, or the steps themselves: [30, 65, 140]
  margin = 0.002             # nats: an arm stops when it is worse than the best by more than this, beyond doubt;
  crossing = 0.05            # the arms next to the best only by more than this, as they may still overtake it
  early = 0.3                # before two fifths of the run a lower rate than the best's only by more
  [settings]                 # of every arm
  train.steps = 140
  [[axis]]                   # one or two, two to nine arms in all
  setting = "optimizer.lr"
  from = 1e-3                # on a log grid; or values = [0.001, 0.003, 0.01]
  to = 3e-2
  arms = 5

and if wanted name, budget = 0.05 (the chance of stopping any arm that is not worse), protocol = "run" (the text that is
scored, as for eval), replicates = 1 (pairs of seeds; with several it speaks of recipes).

All arms are trained to the first look, losers stop, the others go on. With a schedule that has a trunk (trapezoid, wsd)
looks compare losses after a short decay of the rate, branched from each arm's own checkpoint. Runs lie in --runs as
NAME.ARM.REPLICATE, the looks in --runs/_experiments/NAME/verdict.json. Ctrl-C or a kill at any moment, and the same
command goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("file", metavar="FILE.toml", type=Path, help="what is swept")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    parser.add_argument("--nproc", metavar="N", type=int, default=1, help="processes that train together (1)")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the result to this file")
    parser.add_argument("--dry-run", action="store_true", help="say the arms, the looks and the cost, and end")


def run(args: argparse.Namespace) -> int:
    check_output("--json", args.json)
    if not 1 <= args.nproc <= 64:
        raise UserError(f"--nproc {args.nproc} is not possible; use 1 to 64")
    from mygpt2.experiments.grid import read_file
    from mygpt2.experiments.running import Interrupted
    from mygpt2.experiments.sweep import sweep
    from mygpt2.experiments.swept import asked_text, result_text

    data, plan = read_file(args.file, args.runs)
    print(asked_text(plan, args.runs, args.nproc), flush=True)
    if args.dry_run:
        return EXIT_OK
    try:
        with interruptible(), closing(Bars()) as progress:
            found = sweep(data, plan, args.runs, nproc=args.nproc, say=_say, progress=progress)
    except Interrupted as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print(result_text(found))
    if args.json is not None:
        write_output("--json", args.json, encode_json(found))
    return EXIT_OK


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
