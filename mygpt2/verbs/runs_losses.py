"""`runs losses NAME --by source|domain|COLUMN`: which documents have which loss, from the trace after the fact."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from mygpt2.errors import EXIT_OK, EXIT_STOPPED, UserError
from mygpt2.progress import Bars
from mygpt2.run_dir.paths import RunDir
from mygpt2.terminal import printable, stopped_by_ctrl_c

if TYPE_CHECKING:
    from mygpt2.experiments.losses import GroupLoss, Losses

WIDTH = 100
TOP = 20  # groups that are printed where nobody says
COLUMNS = ("tokens", "share", "loss", "above", "± error", "change")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = parser.add_argument_group("losses: the loss of the rows that a run was trained on, by their documents")
    known.add_argument(
        "--by", metavar="WHAT", default="source",
        help="source (of a mixture), domain (host of the address), or a column or key beside the text: dump, language "
        "...; column:NAME for one called like these words (source)",
    )  # fmt: skip
    known.add_argument("--first", metavar="STEP", type=int, help="first step that counts (the trace's)")
    known.add_argument("--last", metavar="STEP", type=int, help="last step that counts (the trace's)")
    known.add_argument("--top", metavar="N", type=int, help=f"largest groups, the others as one ({TOP}; --json: all)")
    known.add_argument("--width", metavar="W", type=float, help="numbers of a column in ranges so wide (as they are)")


def run(args: argparse.Namespace) -> int:
    """Prints a table, or JSON. After Ctrl-C what is known by then, with the code of a stop."""
    if len(args.names) != 1:
        raise UserError("runs losses takes one run: python -m mygpt2 runs losses NAME --by source")
    from mygpt2.experiments.losses import losses

    chosen, top = RunDir.open(args.runs, args.names[0]), args.top
    with stopped_by_ctrl_c() as stop, closing(Bars()) as progress:
        found = losses(
            chosen, args.by, args.first or 0, args.last, top=TOP if top is None and not args.json else top,
            width=args.width, progress=progress, stopped=stop.is_set,
        )  # fmt: skip
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        print("\n".join(printable(line) for line in _lines(found)))
    if found.stopped:
        print(f"stopped after step {found.last:,}: what is told is of the steps before", file=sys.stderr)
    return EXIT_STOPPED if found.stopped else EXIT_OK


def _lines(found: Losses) -> Iterator[str]:
    groups = [*found.groups, *([found.more] if found.more else []), found.whole]
    yield from textwrap.wrap(
        f"{found.run}, steps {found.first:,} to {found.last:,}, {found.rows:,} rows by {found.by}: {found.protocol}.",
        WIDTH,
    )
    yield ""
    names = [found.by, *(group.value if len(group.value) <= 60 else f"{group.value[:59]}…" for group in groups)]
    wide = max(map(len, names))
    rows = [COLUMNS, *(_cells(group) for group in groups)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for name, row in zip(names, rows, strict=True):
        cells = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield f"{name.ljust(wide)}  {cells}".rstrip()
    yield ""
    yield from textwrap.wrap(
        "tokens: targets. loss: their mean in nats per token. above: the distance from all rows of the same steps, "
        "with its standard error, clustered by document and by row. change: the mean loss of the second half of the "
        "steps less that of the first.",
        WIDTH,
    )
    for note in found.notes:
        yield from textwrap.wrap(f"note: {note}", WIDTH)


def _cells(group: GroupLoss) -> tuple[str, ...]:
    return (
        f"{group.tokens:,.0f}", f"{group.share:.2%}", f"{group.loss:.4f}", f"{group.above:+.4f}",
        "" if group.error is None else f"{group.error:.4f}", "" if group.change is None else f"{group.change:+.4f}",
    )  # fmt: skip
