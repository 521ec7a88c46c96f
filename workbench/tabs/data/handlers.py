"""What the data tab answers, over plain values: a document, a page of a window, a page of a step's rows."""

from __future__ import annotations

from typing import Any

import gradio as gr

from mygpt2.config import load_config
from mygpt2.config.data import DataConfig
from mygpt2.data.beside import fields_of_row
from mygpt2.data.sources.mixture import Mixture
from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.corpus import step
from workbench.corpus.reading import Reading
from workbench.corpus.show import rows as rows_shown
from workbench.tabs.data import documents, mixture, order, show
from workbench.tokenizers import tokenizer_of

ORDERS = {"": "those with the highest loss first", step.BY_SOURCE: "source by source"}
ORDER_CHOICES = (("", "Highest loss first"), (step.BY_SOURCE, "By source"))


def document(
    context: Context, reading: Reading, source: str, column: str, ids: str, file: Any, part: Any, number: Any
) -> html.Markup:
    """One document, whole."""
    data = data_of(context, source, column)
    opened = reading.library.open(data, reading.tokenizers.get(tokenizer_of(context, ids)))
    blocks = documents.blocks_of_file(opened.manifest, whole(file, 0))
    place = whole(part, 0)
    if not 0 <= place < len(blocks):
        raise UserError(f"part {place} is outside 0 .. {len(blocks) - 1} of this file")
    return show.document(*documents.whole_document(opened, int(blocks[place]), whole(number, -1)))


def window(
    context: Context, reading: Reading, by: int, following: bool, first: bool, run: str | None, preset: str,
    source: str, lane: Any, epoch: Any, window: Any, page: Any, part: Any = "",
) -> tuple[Any, ...]:  # fmt: skip
    """A page of a lane's window of a run, or of a preset over a source. part: of a mixture the source that is read."""
    if run:
        config = context.configuration(context.run(run))
    else:
        config = load_config(preset, None, {"data": {"source": context.source(source)}})
    tokenizer = reading.tokenizers.get(config.data.tokenizer)
    opened = reading.library.open(config.data, tokenizer)
    names = [each.name for each in opened.manifest.parts] if isinstance(opened.manifest, Mixture) else []
    part = part if part in names else names[0] if names else ""
    plan = order.plan_of(opened, config, part)
    at = whole(epoch, 0), whole(window, 0)
    if following:
        at, page = plan.order.following(whole(lane, 0), *at), 1
    page = 1 if first or following else whole(page, 1) + by
    found = order.window_page(plan, whole(lane, 0), *at, page)
    named = f"source {part}: " if part else ""
    shape = f"{named}{plan.lanes} lanes, windows of up to {plan.order.window} blocks, seed {plan.order.seed}"
    cut = "; cut into rows, which are shuffled once more" if plan.order.shuffled else ""
    note = f"{shape}{cut}; page {found.page.page} of {found.page.pages} of this window"
    parts = gr.Dropdown(names, value=part or None, visible=bool(names))
    return html.note(note), show.window(found, whole(lane, 0)), *at, found.page.page, parts


def batch(
    context: Context, reading: Reading, by: int, steps: int, first: bool, run: str | None, number: Any, page: Any,
    asked: Any = "",
) -> tuple[Any, ...]:  # fmt: skip
    """A page of the rows of a step, rebuilt; what is in the way is said in its place. asked: their order, see
    `Batch.rows`, of a run with a mixture."""
    if not run:
        raise UserError("no run is chosen; choose one, then a step")
    chosen = context.run(run)
    at = max(1, whole(number, 1) + steps)
    traced = reading.traced(context, chosen, at)
    page = 1 if first else whole(page, 1) + by
    manifest = traced.opened.manifest
    sources = [part.name for part in manifest.parts] if isinstance(manifest, Mixture) else []
    chosen_order = asked if asked in (step.BY_SOURCE, *sources) and sources else ""
    shown, whole_batch, found = step.rows_of_step(traced, at, page, order=chosen_order)
    lines = whole_batch.rows(chosen_order)
    facts = html.card(
        f"Step {at} of {run}",
        [
            ("documents in the batch", f"{whole_batch.documents:,}"),
            ("mean loss of its rows", f"{whole_batch.loss:.4f}"),
            ("rows", f"{len(whole_batch.lines):,}, {ORDERS.get(chosen_order, f'those of {chosen_order}')}"),
            *((f"mean loss of {source.name}", _of_source(source)) for source in whole_batch.sources),
            ("rows shown", f"{shown.start + 1} to {shown.stop}, page {shown.page} of {shown.pages}"),
            ("steps in the trace", f"{whole_batch.first:,} to {whole_batch.last:,}"),
            ("source", traced.opened.manifest.source),
            ("tokenizer", traced.tokenizer.name),
        ],
    )
    warning = html.problem(traced.warning) if traced.warning else html.Markup("")
    had = mixture.of_run(context, chosen, step.newest_manifest(chosen))  # whichever step is looked at
    lines = lines[shown.start : shown.stop]
    beside = [fields_of_row(traced.opened, line.record) for line in lines]
    rows = rows_shown(found, traced.tokenizer, lines, beside)
    choices = [(words, order) for order, words in ORDER_CHOICES] + [(f"only {name}", name) for name in sources]
    orders = gr.Dropdown(choices, value=chosen_order, visible=bool(sources))
    return (
        html.join([warning, facts, had]),
        rows or html.note("No row of this source in this step."),
        shown.page,
        at,
        orders,
    )


def _of_source(source: step.SourceRows) -> str:
    return "no row" if source.loss is None else f"{source.loss:.4f} of {source.rows:,} row{'s' * (source.rows != 1)}"


def data_of(context: Context, source: str, column: str) -> DataConfig:
    column = str(column or "").strip() or "text"
    if len(column) > 200:
        raise UserError(f"text column: {len(column)} characters are too many; give the name of a column")
    return DataConfig(source=context.source(source), text_column=column)


def whole(value: Any, otherwise: int) -> int:
    """A number from the page as it can be used; what is none is `otherwise`."""
    try:
        return int(value) if abs(int(value)) < 2**53 else otherwise
    except (TypeError, ValueError, OverflowError):
        return otherwise
