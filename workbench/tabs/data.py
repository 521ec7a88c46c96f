"""The data tab: the documents of a source, their order in training, and exactly what was in a step of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.config import load_config, preset_names
from mygpt2.config.schema import DataConfig
from mygpt2.data.inspect import size
from mygpt2.errors import UserError
from mygpt2.run_dir import list_runs
from workbench import html
from workbench.context import Context
from workbench.inspecting import columns, documents, opening, order, show, step
from workbench.inspecting.library import Library, Opened
from workbench.page import PRIVATE, QUIET, Page
from workbench.tokenizing.choose import Tokenizers, tokenizer_of

TICK_SECONDS = 3.0
MOST_RUNS = 500  # in a list to choose from
LINK_SOURCE = "(...v) => { window.workbench.url({source: v[0], run: null, step: null}); return v; }"
LINK_STEP = "(...v) => { window.workbench.url({run: v[0], step: v[1], source: null}); return v; }"


class Reading:
    """What the tab's handlers share; made once per server."""

    def __init__(self) -> None:
        self.library = Library()
        self.tokenizers = Tokenizers()


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    reading, c = Reading(), SimpleNamespace()
    with gr.Tabs(selected="source", elem_id="wb-data-parts") as c.parts:
        with gr.Tab("A source", id="source"):
            _source_part(c)
        with gr.Tab("Training order", id="order"):
            _order_part(context, c)
        with gr.Tab("A step of a run", id="step"):
            _step_part(context, c)
    _listen_source(context, page, reading, c)
    _listen_order(context, page, reading, c)
    _listen_step(context, page, reading, c)
    c.seen = gr.State([])
    page.timer("data", TICK_SECONDS).tick(
        page.friendly(partial(refresh, context)), c.seen, [c.seen, c.run, c.of], **QUIET
    )


# The parts


def _pager(c: SimpleNamespace, name: str, what: str) -> None:
    """Previous, page, next: three components named after the list they turn."""
    with gr.Row(equal_height=True, elem_classes="wb-pager"):
        setattr(c, f"{name}_back", gr.Button("Previous", size="sm", min_width=80, elem_id=f"wb-{name}-back"))
        setattr(c, name, gr.Number(1, label=f"Page of the {what}", precision=0, minimum=1, elem_id=f"wb-{name}"))
        setattr(c, f"{name}_on", gr.Button("Next", size="sm", min_width=80, elem_id=f"wb-{name}-on"))


def _source_part(c: SimpleNamespace) -> None:
    with gr.Row(equal_height=True):
        c.source = gr.Textbox(
            "pydocs", label="Source", scale=3, elem_id="wb-data-source", elem_classes="wb-search",
            info="pydocs, fineweb-edu-10BT, owner/name on the hub, or a file or folder inside the roots",
        )  # fmt: skip
        c.column = gr.Textbox("text", label="Text column", scale=1, info="of parquet and jsonl")
        c.ids = gr.Textbox("gpt2", label="Tokenizer", scale=1, info="of pre-tokenized .bin files only")
        c.open = gr.Button("Open", variant="primary", scale=1, elem_id="wb-data-open")
    c.facts = gr.HTML(html.empty("No source is open.", "Name one above and press Open."), elem_id="wb-data-facts")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            c.files = gr.HTML()
            _pager(c, "file_page", "files")
            with gr.Row():
                c.file = gr.Dropdown([], label="File", scale=2, elem_id="wb-data-file")
                c.part = gr.Number(
                    0, label="Row group or part", precision=0, minimum=0, scale=1, elem_id="wb-data-part"
                )
            c.histograms = gr.HTML(elem_id="wb-data-hist")
        with gr.Column(scale=3, min_width=320):
            c.where = gr.HTML()
            c.document = gr.Radio([], label="Documents", elem_classes="wb-list", elem_id="wb-data-documents")
            _pager(c, "document_page", "documents")
            c.text = gr.HTML(elem_id="wb-data-text")


def _order_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row(equal_height=True):
        c.of = gr.Dropdown(
            _runs(context), value=None, label="Run", allow_custom_value=True, info="or none, and a preset over a source"
        )
        c.preset = gr.Dropdown(preset_names(), value="tiny", label="Preset", info="where no run is chosen")
        c.order_source = gr.Textbox("pydocs", label="Source", info="where no run is chosen")
    with gr.Row(equal_height=True):
        c.lane = gr.Number(0, label="Lane", precision=0, minimum=0)
        c.epoch = gr.Number(0, label="Epoch", precision=0, minimum=0)
        c.window = gr.Number(0, label="Window", precision=0, minimum=0)
        c.next_window = gr.Button("Next window", min_width=110)
        c.show_order = gr.Button("Show", variant="primary", min_width=90, elem_id="wb-order-show")
    c.shape = gr.HTML(elem_id="wb-order-shape")
    c.order = gr.HTML(html.empty("Nothing shown yet.", "Choose a run or a preset, and press Show."), elem_id="wb-order")
    _pager(c, "order_page", "window")


def _step_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row(equal_height=True):
        c.run = gr.Dropdown(_runs(context), value=None, label="Run", allow_custom_value=True, elem_id="wb-step-run")
        c.step = gr.Number(1, label="Step", precision=0, minimum=1, elem_id="wb-step-step")
        c.step_back = gr.Button("Step before", min_width=90)
        c.step_on = gr.Button("Step after", min_width=90)
        c.show_step = gr.Button("Show", variant="primary", min_width=90, elem_id="wb-step-show")
    c.batch = gr.HTML(elem_id="wb-step-facts")
    _pager(c, "row_page", "rows")
    c.rows = gr.HTML(
        html.empty("No step is shown.", "Choose a run and a step: the batch is put together again, token by token."),
        elem_id="wb-step-rows",
    )


# What happens


def _turning(
    c: SimpleNamespace, name: str, turn: Callable[[int], Callable[..., Any]], inputs: Any, outputs: Any
) -> None:
    """A pager's three events: `turn(by)` gives the handler that moves `by` pages."""
    events = {getattr(c, f"{name}_back").click: -1, getattr(c, f"{name}_on").click: 1, getattr(c, name).submit: 0}
    for event, by in events.items():
        event(turn(by), inputs, outputs, show_progress="minimal", **PRIVATE)


def _listen_source(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    source = [c.source, c.column, c.ids]
    place = [*source, c.file_page, c.file, c.part, c.document_page]
    seen = [c.files, c.file_page, c.file, c.part, c.where, c.document, c.document_page, c.histograms, c.text]

    def browse(**by: Any) -> Callable[..., Any]:
        return page.friendly(partial(_browse, context, reading, by))

    gr.on(
        [c.open.click, c.source.submit], page.friendly(partial(_open, context, reading)), source, [c.facts, *seen],
        show_progress="minimal", js=LINK_SOURCE,
        **PRIVATE,
    )  # fmt: skip
    _turning(c, "file_page", lambda by: browse(file_page=by), place, seen)
    _turning(c, "document_page", lambda by: browse(document_page=by), place, seen)
    c.file.input(browse(file=True), place, seen, show_progress="minimal", **PRIVATE)
    c.part.submit(browse(part=True), place, seen, show_progress="minimal", **PRIVATE)
    read = page.friendly(partial(_document, context, reading))
    c.document.input(read, [*source, c.file, c.part, c.document], c.text, show_progress="minimal", **PRIVATE)
    asked = page.port("data").change(
        page.friendly(partial(_asked, page)), page.port("data"), [c.parts, c.source, c.run, c.step], **QUIET
    )
    asked.then(
        page.friendly(partial(_answer_source, context, reading, page)), [page.port("data"), *source], [c.facts, *seen],
        show_progress="minimal", **PRIVATE,
    ).then(
        page.friendly(partial(_answer_step, context, reading, page)), [page.port("data"), c.run, c.step],
        [c.batch, c.rows, c.row_page, c.step], show_progress="minimal", **PRIVATE,
    )  # fmt: skip


def _listen_order(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    inputs = [c.of, c.preset, c.order_source, c.lane, c.epoch, c.window, c.order_page]
    outputs = [c.shape, c.order, c.epoch, c.window, c.order_page]

    def turn(by: int, following: bool = False, first: bool = False) -> Callable[..., Any]:
        return page.friendly(partial(_window, context, reading, by, following, first))

    c.show_order.click(turn(0, first=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    c.next_window.click(turn(0, following=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    for number in (c.lane, c.epoch, c.window):
        number.submit(turn(0, first=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    _turning(c, "order_page", turn, inputs, outputs)


def _listen_step(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    inputs, outputs = [c.run, c.step, c.row_page], [c.batch, c.rows, c.row_page, c.step]

    def turn(by: int, steps: int = 0, first: bool = False) -> Callable[..., Any]:
        return page.friendly(partial(_batch, context, reading, by, steps, first))

    gr.on(
        [c.show_step.click, c.step.submit], turn(0, first=True), inputs, outputs, show_progress="minimal", js=LINK_STEP,
        **PRIVATE,
    )  # fmt: skip
    for button, by in ((c.step_back, -1), (c.step_on, 1)):
        button.click(turn(0, by, True), inputs, outputs, show_progress="minimal", **PRIVATE)
    _turning(c, "row_page", turn, inputs, outputs)


# Handlers over plain values


def _open(context: Context, reading: Reading, source: str, column: str, ids: str) -> Iterator[Any]:
    """Resolves the source anew, telling how far it is, and shows its first file."""
    data = _data(context, source, column)
    tokenizer = reading.tokenizers.get(tokenizer_of(context, ids))
    for found in opening.opening(reading.library, data, tokenizer, fresh=True):
        if isinstance(found, Opened):
            facts = html.card(found.manifest.source, documents.facts(found))
            yield facts, *_shown(found, data, 1, None, 0, 1)
        else:
            yield html.note(found), *[gr.skip()] * 9


def _browse(
    context: Context, reading: Reading, by: dict[str, Any], source: str, column: str, ids: str, file_page: Any,
    file: Any, part: Any, document_page: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The same source somewhere else: `by` says which control was used, and by how much."""
    data = _data(context, source, column)
    opened = reading.library.open(data, reading.tokenizers.get(tokenizer_of(context, ids)))
    if "file_page" in by:
        return _shown(opened, data, _whole(file_page, 1) + by["file_page"], None, 0, 1)
    if "file" in by or "part" in by:
        return _shown(opened, data, file_page, file, 0 if "file" in by else part, 1)
    return _shown(opened, data, file_page, file, part, _whole(document_page, 1) + by.get("document_page", 0))


def _shown(
    opened: Opened, data: DataConfig, file_page: Any, file: Any, part: Any, document_page: Any
) -> tuple[Any, ...]:
    """A place in a source, for all the components that show it. Numbers outside become the nearest ones."""
    manifest = opened.manifest
    page, lines = documents.files_page(manifest, file_page)
    chosen = min(max(_whole(file, page.start), page.start), page.stop - 1)
    blocks = documents.blocks_of_file(manifest, chosen)
    choices = [(f"{f.number}: {f.name} ({size(f.size)})", f.number) for f in lines]
    head = (show.files(lines, page), page.page, gr.Dropdown(choices, value=chosen))
    if not len(blocks):
        return *head, 0, html.note("this file is empty"), gr.Radio([], value=None), 1, "", ""
    number = min(max(_whole(part, 0), 0), len(blocks) - 1)
    block = int(blocks[number])
    at, found = documents.documents_page(opened, block, document_page, data)
    label = documents.block_label(manifest, block)
    where = f"{label}; {number + 1} of {len(blocks)} in this file; documents, page {at.page} of {at.pages}"
    radio = gr.Radio([(show.document_label(line), line.number) for line in found], value=None)
    plots = show.histograms(columns.figures_of(opened, block), f"lengths and scores of {label}")
    return *head, number, html.note(where), radio, at.page, plots, html.note("choose a document to read it")


def _document(
    context: Context, reading: Reading, source: str, column: str, ids: str, file: Any, part: Any, number: Any
) -> html.Markup:
    """One document, whole."""
    data = _data(context, source, column)
    opened = reading.library.open(data, reading.tokenizers.get(tokenizer_of(context, ids)))
    blocks = documents.blocks_of_file(opened.manifest, _whole(file, 0))
    place = _whole(part, 0)
    if not 0 <= place < len(blocks):
        raise UserError(f"part {place} is outside 0 .. {len(blocks) - 1} of this file")
    return show.document(*documents.whole_document(opened, int(blocks[place]), _whole(number, -1)))


def _window(
    context: Context, reading: Reading, by: int, following: bool, first: bool, run: str | None, preset: str,
    source: str, lane: Any, epoch: Any, window: Any, page: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """A page of a lane's window of a run, or of a preset over a source."""
    if run:
        config = load_config(None, context.run(run).config_file)
    else:
        config = load_config(preset, None, {"data": {"source": context.source(source)}})
    tokenizer = reading.tokenizers.get(config.data.tokenizer)
    plan = order.plan_of(reading.library.open(config.data, tokenizer), config)
    at = _whole(epoch, 0), _whole(window, 0)
    if following:
        at, page = plan.order.following(_whole(lane, 0), *at), 1
    page = 1 if first or following else _whole(page, 1) + by
    found = order.window_page(plan, _whole(lane, 0), *at, page)
    shape = f"{plan.lanes} lanes, windows of up to {plan.order.window} blocks, seed {plan.order.seed}"
    note = f"{shape}; page {found.page.page} of {found.page.pages} of this window"
    return html.note(note), show.window(found, _whole(lane, 0)), *at, found.page.page


def _batch(
    context: Context, reading: Reading, by: int, steps: int, first: bool, run: str | None, number: Any, page: Any
) -> tuple[Any, ...]:
    """A page of the rows of a step, rebuilt; what is in the way is said in its place."""
    if not run:
        raise UserError("no run is chosen; choose one, then a step")
    traced = step.traced(context.run(run), reading.library, reading.tokenizers)
    at = max(1, _whole(number, 1) + steps)
    page = 1 if first else _whole(page, 1) + by
    shown, held, loss, found = step.rows_of_step(traced, at, page)
    low, high = step.step_range(traced.run)
    facts = html.card(
        f"Step {at} of {run}",
        [
            ("documents in the batch", f"{held:,}"),
            ("mean loss of its rows", f"{loss:.4f}"),
            ("rows shown", f"slots {found[0].slot} to {found[-1].slot}, page {shown.page} of {shown.pages}"),
            ("steps in the trace", f"{low:,} to {high:,}"),
            ("source", traced.opened.manifest.source),
            ("tokenizer", traced.tokenizer.name),
        ],
    )
    warning = html.problem(traced.warning) if traced.warning else html.Markup("")
    return html.join([warning, facts]), show.rows(found, traced.tokenizer), shown.page, at


def _asked(page: Page, port: str) -> Any:
    """What another tab or the address asked for is put into the form; what follows shows it."""
    request = page.request(port)
    if "source" in request:
        return gr.Tabs(selected="source"), str(request["source"]), gr.skip(), gr.skip()
    if "run" in request:
        return gr.Tabs(selected="step"), gr.skip(), str(request["run"]), _whole(request.get("step"), 1)
    return gr.skip()


def _answer_source(context: Context, reading: Reading, page: Page, port: str, *source: str) -> Iterator[Any]:
    if "source" in page.request(port):
        yield from _open(context, reading, *source)
    else:
        yield gr.skip()


def _answer_step(context: Context, reading: Reading, page: Page, port: str, run: str | None, number: Any) -> Any:
    request = page.request(port)
    if "run" not in request or "source" in request:
        return gr.skip()
    return _batch(context, reading, 0, 0, True, run, number, 1)


def refresh(context: Context, seen: list[str]) -> Any:
    """The lists of runs, where there is a new one."""
    names = _runs(context)
    return (names, gr.Dropdown(names), gr.Dropdown(names)) if names != seen else gr.skip()


def _runs(context: Context) -> list[str]:
    """Runs that have a trace, by name."""
    return [run.name for run in list_runs(context.runs) if run.trace_dir.is_dir()][:MOST_RUNS]


def _data(context: Context, source: str, column: str) -> DataConfig:
    column = str(column or "").strip() or "text"
    if len(column) > 200:
        raise UserError(f"text column: {len(column)} characters are too many; give the name of a column")
    return DataConfig(source=context.source(source), text_column=column)


def _whole(value: Any, otherwise: int) -> int:
    """A number from the page as it can be used; what is none is `otherwise`."""
    try:
        return int(value) if abs(int(value)) < 2**53 else otherwise
    except (TypeError, ValueError, OverflowError):
        return otherwise
