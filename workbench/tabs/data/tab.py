"""The data tab: the documents of a source, their order in training, and exactly what was in a step of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.config import preset_names
from mygpt2.config.schema import DataConfig
from mygpt2.errors import UserError
from mygpt2.format import file_size
from mygpt2.run_dir.marks import current_runs
from workbench import html
from workbench.context import Context
from workbench.corpus.library import Opened, opening
from workbench.corpus.reading import Reading
from workbench.page import PRIVATE, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.data import columns, documents, handlers, show
from workbench.tokenizers import tokenizer_of

Fragment = partial(gr.HTML, apply_default_css=False)  # whose tables would not be ours
MOST_RUNS = 500  # in a list to choose from
LINK_SOURCE = "(...v) => { window.workbench.url({source: v[0], run: null, step: null}); return v; }"
LINK_STEP = "(...v) => { window.workbench.url({run: v[0], step: v[1], source: null}); return v; }"


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    reading, c = Reading(), SimpleNamespace()
    with gr.Tabs(selected="source", elem_id="wb-data-parts") as c.parts:
        with gr.Tab("A source", id="source"):
            _source_part(context, c)
        with gr.Tab("Training order", id="order"):
            _order_part(context, c)
        with gr.Tab("A step of a run", id="step"):
            _step_part(context, c)
    _listen_source(context, page, reading, c)
    _listen_order(context, page, reading, c)
    _listen_step(context, page, reading, c)
    c.seen = gr.State([])
    lists = [c.seen, c.run, c.of]
    page.on_open("data", partial(refresh, context), c.seen, lists)
    for field in (c.run, c.of):
        field.focus(page.friendly(partial(refresh, context)), c.seen, lists, **QUIET)


# The parts


def _pager(c: SimpleNamespace, name: str, what: str) -> None:
    """Previous, page, next: three components named after the list they turn."""
    with gr.Row(elem_classes="wb-pager"):
        setattr(
            c, f"{name}_back", gr.Button("Previous", min_width=80, elem_id=f"wb-{name}-back", elem_classes="wb-act")
        )
        setattr(c, name, gr.Number(1, label=f"Page of the {what}", precision=0, minimum=1, elem_id=f"wb-{name}"))
        setattr(c, f"{name}_on", gr.Button("Next", min_width=80, elem_id=f"wb-{name}-on", elem_classes="wb-act"))


def _source_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row():
        c.source = gr.Textbox(
            "pydocs", label="Source", scale=3, elem_id="wb-data-source", elem_classes="wb-search",
            info="pydocs, fineweb-edu-10BT, owner/name on the hub, or a file or folder inside the roots",
        )  # fmt: skip
        c.picked = picker(context, "data", c.source)
        c.column = gr.Textbox("text", label="Text column", scale=1, info="of parquet and jsonl")
        c.ids = gr.Textbox("gpt2", label="Tokenizer", scale=1, info="of pre-tokenized .bin files only")
        c.open = gr.Button("Open", variant="primary", scale=0, elem_id="wb-data-open", elem_classes="wb-act")
    c.facts = Fragment(html.empty("No source is open.", "Name one above and press Open."), elem_id="wb-data-facts")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            c.files = Fragment()
            _pager(c, "file_page", "files")
            with gr.Row():
                c.file = gr.Dropdown([], label="File", scale=2, elem_id="wb-data-file")
                c.part = gr.Number(
                    0,
                    label="Row group or part",
                    info="then Enter",
                    precision=0,
                    minimum=0,
                    scale=1,
                    elem_id="wb-data-part",
                )
            c.histograms = Fragment(elem_id="wb-data-hist")
        with gr.Column(scale=3, min_width=320):
            c.where = Fragment()
            c.document = gr.Radio([], label="Documents", elem_classes="wb-list", elem_id="wb-data-documents")
            _pager(c, "document_page", "documents")
            c.text = Fragment(elem_id="wb-data-text")


def _order_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row():
        c.of = gr.Dropdown(
            _runs(context), value=None, label="Run", allow_custom_value=True, info="or none, and a preset over a source"
        )
        c.preset = gr.Dropdown(preset_names(), value="tiny", label="Preset", info="where no run is chosen")
        c.order_source = gr.Textbox("pydocs", label="Source", info="where no run is chosen", elem_id="wb-order-source")
    with gr.Row():
        c.lane = gr.Number(0, label="Lane", precision=0, minimum=0)
        c.epoch = gr.Number(0, label="Epoch", precision=0, minimum=0)
        c.window = gr.Number(0, label="Window", precision=0, minimum=0)
        c.next_window = gr.Button("Next window", min_width=80, elem_classes="wb-act")
        c.show_order = gr.Button(
            "Show", variant="primary", min_width=80, elem_id="wb-order-show", elem_classes="wb-act"
        )
    c.shape = Fragment(elem_id="wb-order-shape")
    c.order = Fragment(
        html.empty("Nothing shown yet.", "Choose a run or a preset, and press Show."), elem_id="wb-order"
    )
    _pager(c, "order_page", "window")


def _step_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row():
        c.run = gr.Dropdown(_runs(context), value=None, label="Run", allow_custom_value=True, elem_id="wb-step-run")
        c.step = gr.Number(1, label="Step", precision=0, minimum=1, elem_id="wb-step-step")
        c.step_back = gr.Button("Step before", min_width=80, elem_classes="wb-act")
        c.step_on = gr.Button("Step after", min_width=80, elem_classes="wb-act")
        c.show_step = gr.Button("Show", variant="primary", min_width=80, elem_id="wb-step-show", elem_classes="wb-act")
    c.batch = Fragment(elem_id="wb-step-facts")
    _pager(c, "row_page", "rows")
    c.rows = Fragment(
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
    read = page.friendly(partial(handlers.document, context, reading))
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
    """Resolves the source anew, telling how far it is, and shows its first file; or says why not in its place.

    What was shown of another source goes at once: it must not stand below the name of this one.
    """
    try:
        data = handlers.data_of(context, source, column)
        tokenizer = reading.tokenizers.get(tokenizer_of(context, ids))
        for found in opening(reading.library, data, tokenizer, fresh=True):
            if isinstance(found, Opened):
                facts = html.card(found.manifest.source, documents.facts(found))
                yield facts, *_shown(found, data, 1, None, 0, 1)
            else:
                yield html.note(found), *_nothing()
    except UserError as error:
        yield html.problem(str(error)), *_nothing()


def _nothing() -> tuple[Any, ...]:
    """No place in any source, for all the components that show one."""
    return "", 1, gr.Dropdown([], value=None), 0, "", gr.Radio([], value=None), 1, "", ""


def _browse(
    context: Context, reading: Reading, by: dict[str, Any], source: str, column: str, ids: str, file_page: Any,
    file: Any, part: Any, document_page: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The same source somewhere else: `by` says which control was used, and by how much."""
    data = handlers.data_of(context, source, column)
    opened = reading.library.open(data, reading.tokenizers.get(tokenizer_of(context, ids)))
    if "file_page" in by:
        return _shown(opened, data, handlers.whole(file_page, 1) + by["file_page"], None, 0, 1)
    if "file" in by or "part" in by:
        return _shown(opened, data, file_page, file, 0 if "file" in by else part, 1)
    return _shown(opened, data, file_page, file, part, handlers.whole(document_page, 1) + by.get("document_page", 0))


def _shown(
    opened: Opened, data: DataConfig, file_page: Any, file: Any, part: Any, document_page: Any
) -> tuple[Any, ...]:
    """A place in a source, for all the components that show it. Numbers outside become the nearest ones."""
    manifest = opened.manifest
    page, lines = documents.files_page(manifest, file_page)
    chosen = min(max(handlers.whole(file, page.start), page.start), page.stop - 1)
    blocks = documents.blocks_of_file(manifest, chosen)
    choices = [(f"{f.number}: {f.name} ({file_size(f.size)})", f.number) for f in lines]
    head = (show.files(lines, page), page.page, gr.Dropdown(choices, value=chosen))
    if not len(blocks):
        return *head, 0, html.note("this file is empty"), gr.Radio([], value=None), 1, "", ""
    number = min(max(handlers.whole(part, 0), 0), len(blocks) - 1)
    block = int(blocks[number])
    at, found = documents.documents_page(opened, block, document_page, data)
    label = documents.block_label(manifest, block)
    where = f"{label}; {number + 1} of {len(blocks)} in this file; documents, page {at.page} of {at.pages}"
    radio = gr.Radio([(show.document_label(line), line.number) for line in found], value=None)
    plots = show.histograms(columns.figures_of(opened, block), f"lengths and scores of {label}")
    return *head, number, html.note(where), radio, at.page, plots, html.note("choose a document to read it")


def _window(*given: Any) -> tuple[Any, ...]:
    """`handlers.window`, with what is in the way said above where the window was."""
    try:
        return handlers.window(*given)
    except UserError as error:
        return html.problem(str(error)), "", *[gr.skip()] * 3


def _batch(*given: Any) -> tuple[Any, ...]:
    """`handlers.batch`, with what is in the way said in its place."""
    try:
        return handlers.batch(*given)
    except UserError as error:
        return html.problem(str(error)), "", *[gr.skip()] * 2


def _asked(page: Page, port: str) -> Any:
    """What another tab or the address asked for is put into the form; what follows shows it."""
    request = page.request(port)
    if "source" in request:
        return gr.Tabs(selected="source"), str(request["source"]), gr.skip(), gr.skip()
    if "run" in request:
        return gr.Tabs(selected="step"), gr.skip(), str(request["run"]), handlers.whole(request.get("step"), 1)
    return gr.skip()


def _answer_source(context: Context, reading: Reading, page: Page, port: str, *source: str) -> Iterator[Any]:
    request = page.request(port)
    if "source" in request and request.get("link"):
        yield html.note("Another site's link asks for this source; press Open to read it."), *_nothing()
    elif "source" in request:
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
    return [run.name for run in current_runs(context.runs) if run.trace_dir.is_dir()][:MOST_RUNS]
