"""`runs import LOG`: the log of another program among the runs, as a ghost without weights."""

from __future__ import annotations

import argparse
from contextlib import closing

from mygpt2.errors import EXIT_OK, UserError, shown
from mygpt2.machine import home_path
from mygpt2.progress import Bars
from mygpt2.terminal import interruptible, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = parser.add_argument_group("import: the log of another program as a run without weights")
    known.add_argument("--name", metavar="NAME", help="name of the run (the file's)")
    known.add_argument("--protocol", metavar="TEXT", help="how its loss was measured, where that is known")
    known.add_argument("--tokenizer", metavar="TEXT", help="what its losses are per token of, where that is known")
    known.add_argument("--column", metavar="NAME", help="column of the loss, where it is not found by itself")
    known.add_argument("--batch-tokens", metavar="N", type=float, help="tokens of a step, where the log has none")


def run(args: argparse.Namespace) -> int:
    """Imports one log and says what was read of it."""
    if len(args.names) != 1:
        raise UserError("runs import takes one log: python -m mygpt2 runs import LOG --name ghost")
    from mygpt2.experiments.importing import import_log

    if args.batch_tokens is not None and not 0 < args.batch_tokens < 1e15:
        raise UserError(f"--batch-tokens {args.batch_tokens:g} is not allowed; give the tokens of a step, above 0")
    with interruptible(), closing(Bars()) as progress:
        made, ghost = import_log(
            home_path(args.names[0]), args.runs, args.name, protocol=args.protocol or "",
            tokenizer=args.tokenizer or "", column=args.column, batch_tokens=args.batch_tokens, progress=progress,
        )  # fmt: skip
    print(f"{shown(ghost.log)} is run {made.name} now: {ghost.steps:,} steps, {ghost.told}, without weights")
    for note in ghost.notes:
        print(f"  {printable(note)}")
    if not ghost.protocol:
        print("  --protocol TEXT says how its loss was measured; without it nothing is compared with it in numbers")
    return EXIT_OK
