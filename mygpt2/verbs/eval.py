"""`eval`: the loss of a model on a named text, and HellaSwag, with the error of each number."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mygpt2.errors import EXIT_STOPPED, UserError
from mygpt2.failures import PeerFailed
from mygpt2.interrupts import interruptible

EXAMPLES = """
protocols (texts):
  edu-seed      first 12,000 documents of FineWeb-Edu sample-100BT 013_00000.parquet, end-of-text appended
  edu-bn        first 10,485,760 targets of FineWeb-Edu sample-10BT, end-of-text prepended
  fineweb-10m   first 10,485,760 targets of the published FineWeb validation shard
  run           the held-out set of the run that --model is of; run:NAME, of another run
  PATH          a file or folder of parquet, jsonl, txt, or tokens in .bin files

Under torchrun the work is shared among the ranks; the result is the same.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--model", metavar="RUN|CHECKPOINT_DIR|HF_DIR|gpt2", required=True, help="what to evaluate")
    parser.add_argument("--protocol", metavar="NAME|PATH", help="the text whose loss is measured, see below")
    parser.add_argument(
        "--hellaswag", metavar="PATH|hub", help="also HellaSwag: a jsonl, parquet or Arrow file, or hub"
    )
    parser.add_argument("--baseline", metavar="FILE", type=Path, help="another model's .items.jsonl: a paired test")
    parser.add_argument(
        "--yardstick", metavar="MODEL", nargs="?", const="gpt2", help="measure MODEL (gpt2) on the text too, once"
    )
    parser.add_argument(
        "--json", metavar="OUT", type=Path, help="where the result goes; a run's is in its evals/ without"
    )
    parser.add_argument("--batch", metavar="N", type=int, help="windows per forward pass; does not change the result")
    parser.add_argument("--limit", metavar="N", type=int, help="N items of HellaSwag, spread evenly, instead of all")
    parser.add_argument(
        "--precision", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32", help="of the passes (fp32)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    parser.add_argument(
        "--text-column", metavar="NAME", default="text", help="column or key of a PATH's documents (text)"
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")


def run(args: argparse.Namespace) -> int:
    _check(args)
    from mygpt2.verbs.evaluation import Session

    with interruptible():
        session = Session(args)
        try:
            with session.world.one_fate():
                session.run()
        except PeerFailed as problem:
            if session.world.lead:
                print(f"error: {problem}", file=sys.stderr)
            return problem.exit_code
        except UserError as problem:
            if session.world.lead:
                raise
            return problem.exit_code  # rank 0 says why
        except KeyboardInterrupt:
            print("\nstopped; HellaSwag items scored so far are kept, the same command goes on from there", flush=True)
            return EXIT_STOPPED
        finally:
            session.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be said before torch is loaded and gigabytes are read."""
    if args.protocol is None and args.hellaswag is None:
        raise UserError("nothing to evaluate; give --protocol NAME|PATH, --hellaswag PATH|hub, or both")
    for option, value in (("--batch", args.batch), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value} is not allowed; use 1 or more, or leave it out")
    if args.json is not None and not args.json.parent.is_dir():
        raise UserError(f"--json {args.json}: there is no folder {args.json.parent}; make it or choose another")
    if args.json is not None and args.json.is_dir():
        raise UserError(f"--json {args.json} is a folder; give a file in it")
    for option in ("baseline", "limit"):
        if getattr(args, option) is not None and args.hellaswag is None:
            raise UserError(f"--{option} belongs to HellaSwag; add --hellaswag PATH|hub or leave it out")
    if args.yardstick is not None and args.protocol is None:
        raise UserError("--yardstick is measured on a text; add --protocol NAME|PATH or leave it out")
    if args.baseline is not None and not args.baseline.is_file():
        raise UserError(
            f"--baseline {args.baseline} does not exist; give the .items.jsonl that eval wrote for the other model"
        )
