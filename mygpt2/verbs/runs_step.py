"""`runs step NAME STEP`: why the loss of a step stands out, or that it does not."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mygpt2.errors import EXIT_OK, UserError, shown
from mygpt2.run_dir.paths import RunDir
from mygpt2.terminal import printable

if TYPE_CHECKING:
    from mygpt2.experiments.documents import Document, Key
    from mygpt2.experiments.step import Row, StepReport

WIDTH = 100
SHOWN_ROWS, SHOWN_DOCUMENTS = 8, 3


def run(args: argparse.Namespace) -> int:
    """Prints the step's report. UserError for a run or a step that there is not."""
    if len(args.names) != 2:
        raise UserError("runs step takes a run and a step: python -m mygpt2 runs step NAME STEP")
    from mygpt2.experiments.documents import documents_of, json_of
    from mygpt2.experiments.step import report

    chosen, step = RunDir.open(args.runs, args.names[0]), _step(args.names[1])
    found = report(chosen, step)
    documents, problem = documents_of(chosen, found)
    if args.json:
        print(json.dumps(json_of(found, documents) | {"unread": problem or None}, indent=1))
    else:
        print("\n".join(printable(line) for line in _lines(found, documents, problem)))
    return EXIT_OK


def _step(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text[:16]) > 0 and len(text) < 16:
        return int(text)
    raise UserError(f"step {shown(text[:40])} is not a step; give a whole number from 1 up")


def _lines(found: StepReport, documents: dict[Key, Document], problem: str) -> Iterator[str]:
    yield from textwrap.wrap(found.sentence, WIDTH)
    yield ""
    figures = (("loss", found.loss), ("gradient norm", found.grad_norm), ("learning rate", found.lr))
    yield "  ".join(f"{name} {value:.6g}" for name, value in figures if value is not None)
    for event in found.events:
        yield f"step {event.get('step')}: {event.get('kind')}"
    if not found.rows:
        yield found.untraced
        return
    yield f"{len(found.rows):,} rows, worst first" + (f"; {problem}" if problem else "")
    for row in found.rows[:SHOWN_ROWS]:
        yield from _row(found, row, documents)
    if (more := len(found.rows) - SHOWN_ROWS) > 0:
        yield f"  and {more:,} more rows; --json has all of them"
    if found.seen is not None and not found.seen.whole:
        yield f"Whether documents were seen before is known from step {found.seen.since:,} on."


def _row(found: StepReport, row: Row, documents: dict[Key, Document]) -> Iterator[str]:
    yield f"  {row.loss:.4f}  slot {row.slot}, lane {row.lane}, epoch {row.epoch}"
    for number, (key, place) in enumerate(zip(row.keys, row.places or row.keys, strict=True)):
        if number == SHOWN_DOCUMENTS:
            yield f"          and {len(row.keys) - SHOWN_DOCUMENTS:,} more documents"
            return
        where = (
            f"{shown(place[0])} row group {place[1]} document {place[2]}"
            if len(place) == 3
            else f"block {place[0]} document {place[1]}"
        )
        yield f"          {where}{_before(found, key)}"
        if known := documents.get(key):
            beside = [*([("domain", known.domain)] if known.domain else []), *known.fields]
            if beside:
                yield f"            {', '.join(f'{name} {value}' for name, value in beside)[:WIDTH]}"
            yield f"            {known.text}"


def _before(found: StepReport, key: Key) -> str:
    """When it was trained on before."""
    was = found.seen.found.get(key) if found.seen else None
    if was is None:
        return ""
    return f"; {'seen before' if was.again else 'an earlier part'} in step {was.step:,}, row loss {was.loss:.4f}"
