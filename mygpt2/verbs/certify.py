"""`certify`: a file that says what a run was; with --recheck also the proof, by training parts of it again."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.errors import EXIT_OK, EXIT_USAGE, UserError
from mygpt2.files import check_output, encode_json, replace_file
from mygpt2.progress import Bars
from mygpt2.terminal import interruptible

if TYPE_CHECKING:
    from mygpt2.run_dir.paths import RunDir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The certificate holds the digests of the run's settings, data, losses and checkpoints. --recheck K compares "
        "all of them, reads the data, and trains K parts of the run again, each from one kept checkpoint to the next: "
        "equal to the bit on the same kind of machine, within --tolerance elsewhere. Exit 2 where something differs."
    )
    parser.add_argument("run", metavar="RUN", help="name of a run that has ended or was stopped")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    parser.add_argument(
        "--file", metavar="FILE", type=Path, help="the certificate (certificate.json in the run folder)"
    )
    parser.add_argument("--recheck", metavar="K", type=int, help="compare, and train K parts of the run again")
    parser.add_argument("--seed", metavar="N", type=int, help="which parts are chosen (another choice each time)")
    parser.add_argument("--tolerance", metavar="NATS", type=float, default=0.01,
                        help="of a step's loss, on another kind of machine (0.01)")  # fmt: skip
    parser.add_argument("--scratch", metavar="DIR", type=Path, help="where the parts are trained (the system's)")


def run(args: argparse.Namespace) -> int:
    from mygpt2.certify import certificate
    from mygpt2.run_dir.paths import RunDir

    found = RunDir.open(args.runs, args.run)
    file = args.file or found.path / certificate.NAME
    if args.recheck is not None:
        with interruptible():
            return _recheck(found, certificate.read(file), args)
    check_output("--file", file)
    made = certificate.make(found)
    try:
        replace_file(file, encode_json(made), durable=True)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; give another place with --file") from None
    steps = ", ".join(sorted(made["checkpoints"], key=int))
    print(f"{file}: settings, data, losses and the checkpoints of steps {steps} of {found.name}")
    return EXIT_OK


def _recheck(run: RunDir, known: dict[str, Any], args: argparse.Namespace) -> int:
    from mygpt2.certify import recheck
    from mygpt2.certify.certificate import differences
    from mygpt2.checkpoint.store import size_bytes
    from mygpt2.config import load_config
    from mygpt2.experiments.running import Interrupted

    if not args.tolerance >= 0:
        raise UserError(f"--tolerance {args.tolerance} is not possible; give 0 or more nats")
    recheck.chosen([], args.recheck)  # complain before everything is read
    wrong = differences(run, known)
    if not wrong:  # of what is damaged already nothing can be trained again
        print("settings, losses and checkpoints are as certified", flush=True)
        wrong = recheck.other_data(run, load_config(None, run.config_file))
    if wrong:
        return _ended(wrong)
    print("the data are as the run read them", flush=True)
    other = recheck.same_machine(known)
    if other:
        print(f"another kind of machine ({'; '.join(other)}): losses may differ by {args.tolerance:g} nats", flush=True)
    some, left_out = recheck.segments(run, known)
    for segment, reason in left_out.items():
        print(f"{segment}: left out, as {reason}", flush=True)
    results = []
    needed = 3 * max(size_bytes(path) for path in run.checkpoints_dir.glob("step-*"))
    try:
        with recheck.scratch_runs(needed, args.scratch) as scratch, closing(Bars()) as bars:
            for segment in recheck.chosen(some, args.recheck, args.seed):
                found = recheck.again(run, segment, known, scratch, bars)
                results.append(found)
                print(f"{segment}: {recheck.differs(found)}", flush=True)
                if not (found.as_trained or found.bits):
                    print(
                        f"{segment}: on how many ranks and threads all of it was trained is not known, or was changed "
                        f"within: losses may differ by {args.tolerance:g} nats", flush=True,
                    )  # fmt: skip
    except Interrupted as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    wrong = recheck.judged(results, not other, args.tolerance)
    if wrong or not results:
        return _ended(wrong or ["no part of the run could be trained again"])
    print(f"{run.name}: {len(results)} of {len(some)} parts trained again and found as they were")
    return EXIT_OK


def _ended(wrong: list[str]) -> int:
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return EXIT_USAGE
