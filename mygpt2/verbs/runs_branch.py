"""`runs branch NAME@STEP --run NEW`: another future from any kept step of a run."""

from __future__ import annotations

import argparse
import json
import sys

from mygpt2.errors import EXIT_OK, UserError, word


def run(args: argparse.Namespace) -> int:
    """Makes the branch and says how it is trained. UserError for what a branch cannot be."""
    from mygpt2.train.branching import draft, lines, make, place_of

    if len(args.names) != 1 or not args.run:
        raise UserError(
            "runs branch takes the run to branch from and a name for the branch: "
            "python -m mygpt2 runs branch NAME@STEP --run NEW [--section.key VALUE ...]"
        )
    branch = make(args.runs, draft(args.runs, *place_of(args.names[0]), args.settings), args.run)
    origin, where = branch.origin, f"--runs {word(args.runs)}"
    command = f"python -m mygpt2 train --run {branch.run.name} {where}"
    if args.json:
        told = {**origin.to_json(), "run": branch.run.name, "notes": list(branch.notes), "command": command}
        print(json.dumps(told, indent=1))
        return EXIT_OK
    print(f"run {branch.run.name} is a branch of {origin.parent} at step {origin.step}")
    for line in lines(origin) or ["nothing is changed: it repeats its parent's steps"]:
        print(f"  {line}")
    for note in branch.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"train it with\n  {command}")
    return EXIT_OK
