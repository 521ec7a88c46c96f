"""What is done in the three parts of the data tab, over plain values: each part answers one act after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.corpus.reading import Reading
from workbench.corpus.step import step_range
from workbench.page import Act
from workbench.tabs.data import handlers, source

PAGES = {"back": -1, "on": 1, "page": 0}  # acts of a pager: by how many pages it turns
BROWSED: Mapping[str, dict[str, Any]] = {
    "file": {"file": True}, "part": {"part": True},
    **{f"file_{act}": {"file_page": by} for act, by in PAGES.items()},
    **{f"document_{act}": {"document_page": by} for act, by in PAGES.items()},
}  # fmt: skip
STEPS = {"before": -1, "after": 1}
LINKED = "Another site's link asks for this {}; press {} to read it."


def in_source(context: Context, reading: Reading, done: Act, *values: Any) -> Iterator[tuple[Any, ...]]:
    """The source that is open, for all components that show it. values: source, column, ids, file page, file, part,
    document page, document."""
    act, (*place, document) = done.what, values
    kept = [gr.skip()] * 4  # what stands above and beside the files
    if act == "open":
        yield from source.open_source(context, reading, *place[:3])
    elif act in ("close", "linked"):
        said = html.note(LINKED.format("source", "Open")) if act == "linked" else ""
        yield said, *source.close_source()[1:]
    elif act == "document":
        of, column, ids, _, file, part, _ = place
        text = handlers.document(context, reading, of, column, ids, file, part, document)
        yield *kept, *[gr.skip()] * 9, text
    else:
        yield *kept, *source.browse(context, reading, BROWSED[act], *place)


def in_order(context: Context, reading: Reading, done: Act, *values: Any) -> tuple[Any, ...]:
    """A page of a window, for all components that show it; what is in the way is said above.
    values: run, preset, source, lane, epoch, window, page, part."""
    act = done.what
    if act == "linked":  # the run's data may lie on the hub
        return html.note(LINKED.format("run's order", "Show")), *[gr.skip()] * 5
    by, following = PAGES.get(act, 0), act == "next"
    first = act not in PAGES and not following
    try:
        shape, order, *at, parts = handlers.window(context, reading, by, following, first, *values)
    except UserError as error:
        return html.problem(str(error)), "", *[gr.skip()] * 4
    return shape, order, *_set(done, at, values[4:7]), parts


def in_step(context: Context, reading: Reading, done: Act, *values: Any) -> tuple[Any, ...]:
    """A page of a step's rows, for all components that show it; what is in the way is said in its place. values: run,
    step, page, order. The last step that its trace holds is shown as soon as a run is chosen."""
    act, (run, number, page, asked) = done.what, values
    if act == "run" and not run:
        return (gr.skip(),) * 5
    try:
        if act == "run":
            number, asked = step_range(context.run(run))[1], ""
        first = act not in PAGES
        shown = handlers.batch(context, reading, PAGES.get(act, 0), STEPS.get(act, 0), first, run, number, page, asked)
    except UserError as error:
        return html.problem(str(error)), "", *[gr.skip()] * 3
    facts, rows, *at, orders = shown
    return facts, rows, *_set(done, at, (values[2], values[1])), orders


def _set(done: Act, now: Sequence[int], before: Sequence[Any]) -> list[Any]:
    """Numbers for fields that have others: in those that have them more may have been typed since."""
    pairs = zip(now, before, strict=True)
    return [number if done.waited or handlers.whole(had, -1) != number else gr.skip() for number, had in pairs]
