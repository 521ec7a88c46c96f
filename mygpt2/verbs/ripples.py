"""`ripples`: is there a periodic part in a training loss, where does it come from, and what would remove it?"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.errors import UserError
from mygpt2.files import encode_json, write_output
from mygpt2.progress import Bars
from mygpt2.terminal import interruptible

if TYPE_CHECKING:
    from mygpt2.progress import Progress
    from mygpt2.ripples import Layout, Log
    from mygpt2.ripples.report import Report

LAYOUT = ("file_tokens", "files", "streams", "row_group_tokens", "document_tokens", "buffer_documents", "eval_interval",
          "save_interval")  # fmt: skip
EXAMPLES = """
logs: a run of ours by name or folder, CSV, build-nanogpt's log.txt, exports of W&B (CSV, JSON) and TensorBoard (CSV,
JSON), event files and folders of them (with the extra `trackers`). For logs of others, say what is known of the data:

  python -m mygpt2 ripples log.csv --dataset fineweb-edu --streams 8 --files 8     8 ranks, each with a file of its own
  python -m mygpt2 ripples log.txt --batch-tokens 524288 --steps 3000:5000
  python -m mygpt2 ripples run-a --compare run-b                                   two runs with the same batches
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("log", metavar="RUN|LOG", help="what to analyse")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the report as JSON")
    parser.add_argument("--html", metavar="OUT", type=Path, help="write the report as one HTML file with figures")
    parser.add_argument("--steps", metavar="FIRST:LAST", help="only these steps")
    parser.add_argument("--against", metavar="RUN|LOG", help="seek the ripple in the difference to a reference run")
    parser.add_argument("--compare", metavar="RUN|LOG", help="compare with a run that had the same batches instead")
    parser.add_argument("--column", metavar="NAME", help="column of the loss, where it is not found by itself")
    parser.add_argument("--batch-tokens", metavar="N", type=float, help="tokens of a step, where the log has none")
    parser.add_argument("--no-attribution", action="store_true", help="open no data that the run's trace names")
    known = parser.add_argument_group("the layout of the data, where the log does not say")
    known.add_argument("--dataset", metavar="NAME", help="a published layout: fineweb-edu")
    known.add_argument("--file-tokens", metavar="N", type=float, help="tokens of a file")
    known.add_argument("--files", metavar="N", type=int, help="files of one pass")
    known.add_argument("--streams", metavar="N", type=int, help="files read at once, as by ranks with one each (1)")
    known.add_argument("--row-group-tokens", metavar="N", type=float, help="tokens of a row group")
    known.add_argument("--document-tokens", metavar="N", type=float, help="mean tokens of a document")
    known.add_argument("--buffer-documents", metavar="N", type=int, help="shuffle buffers, all ranks together")
    known.add_argument("--eval-interval", metavar="N", type=int, help="steps between evaluations")
    known.add_argument("--save-interval", metavar="N", type=int, help="steps between checkpoints")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")


def run(args: argparse.Namespace) -> int:
    steps = _steps(args.steps)
    _check(args)
    from mygpt2.ripples.report import Report
    from mygpt2.ripples.text import comparison_text, report_text

    with interruptible(), closing(Bars()) as progress:
        report = _report(args, steps, progress)
    print(report_text(report) if isinstance(report, Report) else comparison_text(report))
    _write(args, report)
    return 0


def _report(
    args: argparse.Namespace, steps: tuple[float | None, float | None], progress: Progress
) -> Report | dict[str, Any]:
    """The analysis of a log, or the comparison of two."""
    from mygpt2.ripples import analyse, compare_runs

    log = _open(args, args.log, progress)
    if args.compare is not None:
        return compare_runs(log.between(*steps), _open(args, args.compare, progress).between(*steps))
    reference = None if args.against is None else _open(args, args.against, progress)
    layout = _layout(args, log)
    return analyse(
        log, reference=reference, first=steps[0], last=steps[1], layout=layout, attribution=not args.no_attribution,
        progress=progress,
    )  # fmt: skip


def _check(args: argparse.Namespace) -> None:
    """What can be said before anything is read."""
    if args.compare is not None and args.html is not None:
        raise UserError("--html shows an analysis, not a comparison; leave out --html or --compare")
    if args.compare is not None and args.against is not None:
        raise UserError("--compare and --against are two different questions; give one of them")
    for option in ("batch_tokens", *LAYOUT):
        value = getattr(args, option)
        if value is not None and not 0 < value < 1e18:
            raise UserError(f"--{option.replace('_', '-')} {value:g} is not allowed; give a number above 0")
    for path in (args.json, args.html):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise UserError(f"{path} cannot be written; give a file in a folder that exists")


def _steps(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    first, colon, last = text.partition(":")
    try:
        found = (float(first) if first else None, float(last) if last else None)
    except ValueError:
        found = None
    if not colon or found is None or (found[0] is not None and found[1] is not None and found[0] > found[1]):
        raise UserError(f"--steps {text} is not a range; write FIRST:LAST, for example 3000:5000, or 3000: to the end")
    return found


def _open(args: argparse.Namespace, name: str, progress: Progress) -> Log:
    """A log by its path, or a run by its name."""
    from mygpt2.ripples import read_log
    from mygpt2.run_dir.paths import NAME, RunDir

    path = Path(name)
    if not path.exists() and NAME.fullmatch(name):
        path = RunDir.open(args.runs, name).path
    return read_log(path, column=args.column, batch_tokens=args.batch_tokens, progress=progress)


def _layout(args: argparse.Namespace, log: Log) -> Layout:
    """What the log knows of its data, and in its place what was given."""
    from mygpt2.ripples.layout import dataset_layout, refined

    base = log.layout if args.dataset is None else dataset_layout(args.dataset)
    found = refined(base, **{name: getattr(args, name) for name in LAYOUT})
    if args.buffer_documents is not None:
        found = refined(found, order="buffer")
    return found


def _write(args: argparse.Namespace, report: Report | dict[str, Any]) -> None:

    from mygpt2.ripples.html import report_html

    if args.json is not None:
        write_output("--json", args.json, encode_json(report if isinstance(report, dict) else report.to_json()))
    if args.html is not None and not isinstance(report, dict):
        write_output("--html", args.html, report_html(report).encode())
