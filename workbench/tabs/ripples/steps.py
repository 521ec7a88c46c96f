"""What a step was trained on, from the trace: file, row group and first document. Reads one step's rows only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mygpt2.data.trace import place_of, read_manifest, read_trace, trace_files
from mygpt2.errors import UserError
from mygpt2.ripples.runs import DAMAGED
from workbench.context import Context

MOST_NAMED = 3


def about_step(context: Context, run: str, step: Any) -> str:
    """One line about a step. UserError for a run without a trace or a step that is no number."""
    folder = context.run(run)
    try:
        number = round(float(step))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{str(step)[:20]!r} is no step; give a whole number") from None
    if not trace_files(folder.path):
        return (
            f"Step {number:,}: run {run} has no trace yet, which would say what was in it (log.trace; written every "
            "200 steps and at the end)."
        )
    rows = read_trace(folder.path, number, number).select(["lane", "block", "document"]).to_pylist()
    if not rows:
        return f"Step {number:,} is not in the trace of run {run}."
    manifest = read_manifest(folder.path)
    file, part, document = place_of(manifest, rows[0]["block"][0], rows[0]["document"][0])
    word = "row group" if manifest.kind == "parquet" else "part"
    documents = {pair for row in rows for pair in zip(row["block"], row["document"], strict=True)}
    files = sorted({manifest.file_of(block).name for block, _ in documents})
    others = [name for name in files if name != file]
    more = f", also from {', '.join(others[:MOST_NAMED])}" if others else ""
    more += f" and {len(others) - MOST_NAMED} more files" if len(others) > MOST_NAMED else ""
    return (
        f"Step {number:,}: file {file}, {word} {part}, first document {document:,}; "
        f"{len(documents):,} documents in {len(rows):,} rows{more}."
    )


def teller(context: Context) -> Callable[..., Any]:
    """`about_step` as the page calls it; what is wrong is told in place of the line."""

    def ripples_step(request: Any) -> str:
        asked = request if isinstance(request, dict) else {}
        try:
            return about_step(context, str(asked.get("run", "")), asked.get("step"))
        except UserError as error:
            return str(error)
        except DAMAGED:
            return "The trace of this run cannot be read."

    return ripples_step
