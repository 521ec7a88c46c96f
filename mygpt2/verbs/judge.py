"""`judge`: is a variant better than a base? Keep, drop or undecided, with what would decide and what it cost."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from mygpt2.errors import EXIT_OK, UserError
from mygpt2.files import check_output, encode_json, write_output
from mygpt2.progress import Bars
from mygpt2.terminal import interruptible

TAKES_SETTINGS = True  # --base.section.key and --variant.section.key
BASE, VARIANT = "--base.", "--variant."
EXAMPLES = """
BASE and VARIANT are each the name of a run, the name of a preset, or a TOML file; run:NAME and preset:NAME where both
exist. What is changed stands behind it; without VARIANT it is the base with its changes:

  python -m mygpt2 judge tiny --variant.optimizer.lr 3e-3             preset or run `tiny`, and it with another rate
  python -m mygpt2 judge mine.toml other.toml --replicates 5
  python -m mygpt2 judge run-a run-b --replicates 1                    two runs as they are: speaks of two models
  python -m mygpt2 judge tiny --base.train.steps 60 --variant.train.steps 60 --variant.optimizer.lr 3e-3

A change of the base does not change a VARIANT that is named; one that is not named begins from the changed base.

Two mixtures (data.mix), or a mixture and one source, are scored on the held-out documents of every source that either
trains on, source by source; a --source NAME makes one of them the objective.

A replicate is a pair of seeds under which base and variant are each trained once; a replicate more keeps those there
are. Runs that are missing are trained one after the other, or queued where a workbench owns the folder; Ctrl-C and the
same command goes on. Everything asked of a base spends one error budget, kept in runs/_experiments/NAME/ledger.jsonl.
The exit code is 0 whatever the verdict.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.usage = f"{parser.prog} BASE [VARIANT] [--base.section.key VALUE ...] [--variant.section.key VALUE ...]"
    parser.add_argument("base", metavar="BASE", help="run, preset or TOML file")
    parser.add_argument(
        "variant", metavar="VARIANT", nargs="?", help="likewise; the base with changes, where not given"
    )
    parser.add_argument("--replicates", metavar="N", type=int, default=3, help="pairs of seeds (3)")
    parser.add_argument(
        "--protocol",
        metavar="NAME|PATH",
        default="run",
        help="the text both are scored on, as for eval (run: the base's)",
    )
    parser.add_argument("--budget", metavar="SHARE", type=float, default=0.05,
                        help="chance of any false verdict on this base, however often it is asked (0.05)")  # fmt: skip
    parser.add_argument("--worth", metavar="NATS", type=float, default=0.003,
                        help="a difference worth finding, whose cost is told (0.003)")  # fmt: skip
    parser.add_argument(
        "--source", metavar="NAME", default="",
        help="of mixtures: the verdict is on this source alone (all together, by their tokens)",
    )  # fmt: skip
    parser.add_argument("--nproc", metavar="N", type=int, default=1, help="processes that train together (1)")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the verdict to this file")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be trained and how long it takes, and end"
    )


def run(args: argparse.Namespace) -> int:
    check_output("--json", args.json)
    if not 1 <= args.nproc <= 64:
        raise UserError(f"--nproc {args.nproc} is not possible; use 1 to 64")
    if args.argv[1].startswith((BASE, VARIANT)):
        raise UserError(f"BASE and VARIANT come first, then what is changed; {args.argv[1]!r} stands before them")
    base_words, variant_words = split_words(args.settings)
    if args.variant is None and not variant_words:
        raise UserError("there is no VARIANT; name one, or change the base with --variant.section.key VALUE")
    from mygpt2.experiments.arms import Spec
    from mygpt2.experiments.judge import Question, judge, prepare
    from mygpt2.experiments.running import Interrupted
    from mygpt2.experiments.telling import verdict_text

    base = Spec(args.base, tuple(base_words))
    words = variant_words if args.variant else [*base_words, *variant_words]
    variant = Spec(args.variant or args.base, tuple(words))
    question = Question(base, variant, args.runs, args.replicates, args.protocol, source=args.source)
    question = replace(question, budget=args.budget, worth=args.worth, nproc=args.nproc)
    prepared = prepare(question)
    print(f"{prepared.variant.told} against {prepared.base.told}: {prepared.cost()}", flush=True)
    if args.dry_run:
        return EXIT_OK
    try:
        with interruptible(), closing(Bars()) as progress:
            found = judge(prepared, say=_say, progress=progress)
    except Interrupted as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print(verdict_text(found))
    if args.json is not None:
        write_output("--json", args.json, encode_json(found))
    return EXIT_OK


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Words of the base and of the variant, as `load_config` takes them. UserError for any other option."""
    found: tuple[list[str], list[str]] = ([], [])
    place: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            place = found[0] if word.startswith(BASE) else found[1] if word.startswith(VARIANT) else None
            if place is None:
                raise UserError(
                    f"{word!r} is not an option here; a setting is changed with --variant.section.key VALUE, or with "
                    "--base.section.key VALUE; see python -m mygpt2 judge --help"
                )
            word = f"--{word.removeprefix(BASE if place is found[0] else VARIANT)}"
        elif place is None:
            raise UserError(f"{word!r} is one name too many; judge takes BASE and VARIANT")
        place.append(word)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
