"""The data tab: what there is to read, a source and its documents, their order in training, what was in a step."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.config import preset_names
from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.corpus.reading import Reading
from workbench.corpus.step import step_range
from workbench.page import ACTION, PRIVATE, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.data import handlers, library, opening, source

Fragment = partial(gr.HTML, apply_default_css=False)  # whose tables would not be ours
LINK_SOURCE = "(...v) => { window.workbench.url({source: v[0], run: null, step: null}); return v; }"
UNLINK = "() => { window.workbench.url({source: null}); return []; }"
LINK_NEWEST = "(run, step) => { if (run) window.workbench.url({run, step, source: null}); return []; }"
LINK_STEP = "(...v) => { window.workbench.url({run: v[0], step: v[1], source: null}); return v; }"


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    reading, c = Reading(), SimpleNamespace()
    with gr.Tabs(selected="source", elem_id="wb-data-parts") as c.parts:
        with gr.Tab("Sources", id="source"):
            _source_part(context, page, c)
        with gr.Tab("Training order", id="order"):
            _order_part(context, c)
        with gr.Tab("A step of a run", id="step"):
            _step_part(context, c)
    _listen_source(context, page, reading, c)
    _listen_order(context, page, reading, c)
    _listen_step(context, page, reading, c)
    c.seen = gr.State(opening.SEEN)
    lists = [c.seen, c.run, c.of]
    page.on_open("data", partial(opening.opened, context), [c.seen, c.run, page.port("data"), c.chosen],
                 [*lists, c.step, c.batch, c.rows], js=opening.WATCHED)  # fmt: skip
    for field in (c.run, c.of):
        field.focus(page.friendly(partial(opening.refresh, context)), c.seen, lists, **QUIET)


# The parts


def _pager(c: SimpleNamespace, name: str, what: str, shown: bool = False) -> None:
    """Previous, page, next: components named after the list they turn, in a row that is there when there are pages."""
    with gr.Row(elem_classes="wb-pager", visible=shown) as row:
        back, on = gr.Button("Previous", elem_id=f"wb-{name}-back"), gr.Button("Next", elem_id=f"wb-{name}-on")
        page = gr.Number(1, label=f"Page of the {what}", precision=0, minimum=1, container=False, show_label=False,
                         elem_id=f"wb-{name}")  # fmt: skip
    for part, made in {"": page, "_back": back, "_on": on, "_row": row}.items():
        setattr(c, f"{name}{part}", made)


def _source_part(context: Context, page: Page, c: SimpleNamespace) -> None:
    with gr.Row(elem_classes="wb-beside"):
        with gr.Column(elem_classes="wb-results"):
            c.message = Fragment(elem_id="wb-data-message")
            with gr.Column(elem_id="wb-data-library") as c.library:
                page.part("data", "library", first=html.note("Looking through the folders …"))
            with gr.Column(visible=False, elem_id="wb-data-opened") as c.opened:
                _opened(c)
        with gr.Column(elem_classes="wb-settings"):
            c.source = gr.Textbox(
                "pydocs", label="Source", elem_id="wb-data-source", elem_classes="wb-search",
                info="a built-in or hub name, or a file or folder; files may be dropped here",
            )  # fmt: skip
            c.picked = picker(context, "data", c.source)
            c.open = gr.Button("Open", variant="primary", elem_id="wb-data-open", elem_classes="wb-fit")
            with gr.Accordion("How to read it", open=False):
                c.column = gr.Textbox("text", label="Text column", info="of parquet, Arrow and JSON")
                c.ids = gr.Textbox("gpt2", label="Tokenizer", info="of pre-tokenized files only", elem_id="wb-data-ids")
                picker(context, "tokenizer", c.ids)


def _opened(c: SimpleNamespace) -> None:
    """The source that is open: its files and what they hold to the left, documents to the right."""
    with gr.Row(elem_classes="wb-actions"):
        c.close = gr.Button("All sources", size="sm", elem_id="wb-data-close", elem_classes="wb-fit")
        c.train = gr.Button("Train on it", size="sm", elem_id="wb-data-train", elem_classes="wb-fit")
    c.facts = Fragment(elem_id="wb-data-facts")
    with gr.Row(elem_classes="wb-source"):
        with gr.Column(min_width=240, elem_classes="wb-source-files"):
            c.file = gr.Radio([], label="Files", elem_classes="wb-list", elem_id="wb-data-file")
            _pager(c, "file_page", "files")
            c.part = gr.Number(0, label="Row group or part", info="then Enter", precision=0, minimum=0, visible=False,
                               elem_id="wb-data-part")  # fmt: skip
            c.histograms = Fragment(elem_id="wb-data-hist")
        with gr.Column(min_width=300, elem_classes="wb-source-documents"):
            c.where = Fragment(elem_id="wb-data-where")
            _pager(c, "document_page", "documents")
            c.document = gr.Radio([], label="Documents", elem_classes="wb-list", elem_id="wb-data-documents")
            c.text = Fragment(elem_id="wb-data-text")


def _order_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row(elem_classes="wb-beside"):
        with gr.Column(elem_classes="wb-results"):
            c.shape = Fragment(elem_id="wb-order-shape")
            c.order = Fragment(
                html.empty(
                    "The order in which a run reads its documents, window by window.",
                    "Choose a run beside this, or a preset and a source, and press Show.",
                ),
                elem_id="wb-order",
            )
            _pager(c, "order_page", "window", shown=True)
        with gr.Column(elem_classes="wb-settings"):
            c.of = gr.Dropdown(opening.runs_with_a_trace(context), value=None, label="Run", allow_custom_value=True,
                               info="or none, and a preset over a source")  # fmt: skip
            c.preset = gr.Dropdown(preset_names(), value="tiny", label="Preset", info="where no run is chosen")
            c.order_part = gr.Dropdown([], value=None, label="Source of the mixture", visible=False,
                                       allow_custom_value=True, elem_id="wb-order-part")  # fmt: skip
            c.order_source = gr.Textbox("pydocs", label="Source", info="where no run is chosen",
                                        elem_id="wb-order-source")  # fmt: skip
            picker(context, "data", c.order_source)
            with gr.Row():
                c.lane = gr.Number(0, label="Lane", precision=0, minimum=0, min_width=80)
                c.epoch = gr.Number(0, label="Epoch", precision=0, minimum=0, min_width=80)
                c.window = gr.Number(0, label="Window", precision=0, minimum=0, min_width=80)
            with gr.Row(elem_classes="wb-actions"):
                c.show_order = gr.Button("Show", variant="primary", elem_id="wb-order-show", elem_classes="wb-fit")
                c.next_window = gr.Button("Next window", elem_classes="wb-fit")
    c.order_asked = [c.of, c.preset, c.order_source, c.lane, c.epoch, c.window, c.order_page, c.order_part]
    c.order_shown = [c.shape, c.order, c.epoch, c.window, c.order_page, c.order_part]


def _step_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row(elem_classes="wb-beside"):
        with gr.Column(elem_classes="wb-results"):
            c.batch = Fragment(elem_id="wb-step-facts")
            c.rows = Fragment(
                html.empty(
                    opening.STEP_OF_RUN,
                    "Choose a run to see its newest step, or click a point of a curve in Monitor.",
                ),
                elem_id="wb-step-rows",
            )
            _pager(c, "row_page", "rows", shown=True)
        with gr.Column(elem_classes="wb-settings"):
            c.run = gr.Dropdown(opening.runs_with_a_trace(context), value=None, label="Run", allow_custom_value=True,
                                elem_id="wb-step-run")  # fmt: skip
            c.step = gr.Number(1, label="Step", precision=0, minimum=1, elem_id="wb-step-step")
            c.rows_of = gr.Dropdown([("Highest loss first", "")], value="", label="Rows", visible=False,
                                    allow_custom_value=True, elem_id="wb-step-rows-of")  # fmt: skip
            with gr.Row(elem_classes="wb-actions"):
                c.show_step = gr.Button("Show", variant="primary", elem_id="wb-step-show", elem_classes="wb-fit")
                c.step_back = gr.Button("Step before", elem_classes="wb-fit")
                c.step_on = gr.Button("Step after", elem_classes="wb-fit")


# What happens


def _turning(
    c: SimpleNamespace, name: str, turn: Callable[[int], Callable[..., Any]], inputs: Any, outputs: Any
) -> None:
    """A pager's three events: `turn(by)` gives the handler that moves `by` pages."""
    events = {getattr(c, f"{name}_back").click: -1, getattr(c, f"{name}_on").click: 1, getattr(c, name).submit: 0}
    for event, by in events.items():
        event(turn(by), inputs, outputs, show_progress="minimal", **PRIVATE)


def _listen_source(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    fields = [c.source, c.column, c.ids]
    place = [*fields, c.file_page, c.file, c.part, c.document_page]
    seen = [c.file, c.file_page_row, c.file_page, c.part, c.where, c.document, c.document_page_row, c.document_page,
            c.histograms, c.text]  # fmt: skip
    whole = [c.message, c.library, c.opened, c.facts, *seen]
    to_train, now = page.outputs("train"), page.now("data")  # the list is put up anew after a source, and is empty then

    def browse(**by: Any) -> Callable[..., Any]:
        return page.friendly(partial(source.browse, context, reading, by))

    def act(event: gr.EventData) -> Any:
        given = event._data if isinstance(event._data, dict) else {}
        value = str(given.get("id", ""))
        if given.get("act") == "delete":
            gr.Info(f"{html.escape(library.delete(context, value))} is deleted.", title="Deleted")
            return gr.skip()
        context.source(value)
        if given.get("act") == "train":
            return [*page.go("train", train_on=value), gr.skip(), gr.skip()]
        return [gr.skip(), gr.skip(), value, secrets.token_hex(4)]

    def train(value: str) -> Any:
        context.source(value)
        return page.go("train", train_on=value)

    open_it = page.friendly(partial(source.open_source, context, reading))
    opens: dict[str, Any] = {"fn": open_it, "inputs": fields, "outputs": whole, "show_progress": "minimal",
                             "js": LINK_SOURCE, **PRIVATE}  # fmt: skip
    c.chosen = gr.Textbox(visible="hidden", label="chosen source", container=False)
    gr.on([c.open.click, c.source.submit, c.chosen.change], **opens).then(**now)
    c.picked.picked(None, c.picked, c.chosen, js="(picked) => String(picked.nonce)", **QUIET)
    live = page.live("data", library.Library(context))
    live.act(page.friendly(act), None, [*to_train, c.source, c.chosen], **ACTION).then(**now)
    c.close.click(source.close_source, None, whole, js=UNLINK, **QUIET).then(**now)
    c.train.click(page.friendly(train), c.source, to_train, **ACTION)
    _turning(c, "file_page", lambda by: browse(file_page=by), place, seen)
    _turning(c, "document_page", lambda by: browse(document_page=by), place, seen)
    c.file.input(browse(file=True), place, seen, show_progress="minimal", **PRIVATE)
    c.part.submit(browse(part=True), place, seen, show_progress="minimal", **PRIVATE)
    read = page.friendly(partial(handlers.document, context, reading))
    c.document.input(read, [*fields, c.file, c.part, c.document], c.text, show_progress="minimal", **PRIVATE)
    asked = page.port("data").change(
        page.friendly(partial(_asked, page)), page.port("data"), [c.parts, c.source, c.run, c.step, c.of], **QUIET
    )
    asked.then(
        page.friendly(partial(_answer_source, context, reading, page)), [page.port("data"), *fields], whole,
        show_progress="minimal", **PRIVATE,
    ).then(
        page.friendly(partial(_answer_step, context, reading, page)), [page.port("data"), c.run, c.step],
        [c.batch, c.rows, c.row_page, c.step, c.rows_of], show_progress="minimal", **PRIVATE,
    ).then(
        page.friendly(partial(_answer_order, context, reading, page)), [page.port("data"), *c.order_asked],
        c.order_shown, show_progress="minimal", **PRIVATE,
    )  # fmt: skip


def _listen_order(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    inputs, outputs = c.order_asked, c.order_shown

    def turn(by: int, following: bool = False, first: bool = False) -> Callable[..., Any]:
        return page.friendly(partial(_window, context, reading, by, following, first))

    c.show_order.click(turn(0, first=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    c.order_part.input(turn(0, first=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    c.next_window.click(turn(0, following=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    for number in (c.lane, c.epoch, c.window):
        number.submit(turn(0, first=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    _turning(c, "order_page", turn, inputs, outputs)


def _listen_step(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    inputs = [c.run, c.step, c.row_page, c.rows_of]
    outputs = [c.batch, c.rows, c.row_page, c.step, c.rows_of]

    def turn(by: int, steps: int = 0, first: bool = False) -> Callable[..., Any]:
        return page.friendly(partial(_batch, context, reading, by, steps, first))

    gr.on(
        [c.show_step.click, c.step.submit], turn(0, first=True), inputs, outputs, show_progress="minimal", js=LINK_STEP,
        **PRIVATE,
    )  # fmt: skip
    c.rows_of.input(turn(0, first=True), inputs, outputs, show_progress="minimal", **PRIVATE)
    newest = page.friendly(partial(_newest, context, reading))
    c.run.input(newest, c.run, outputs, show_progress="minimal", **PRIVATE).then(
        None, [c.run, c.step], None, js=LINK_NEWEST, **QUIET
    )
    for button, by in ((c.step_back, -1), (c.step_on, 1)):
        button.click(turn(0, by, True), inputs, outputs, show_progress="minimal", **PRIVATE)
    _turning(c, "row_page", turn, inputs, outputs)


# Handlers over plain values


def _window(*given: Any) -> tuple[Any, ...]:
    """`handlers.window`, with what is in the way said above where the window was."""
    try:
        return handlers.window(*given)
    except UserError as error:
        return html.problem(str(error)), "", *[gr.skip()] * 4


def _batch(*given: Any) -> tuple[Any, ...]:
    """`handlers.batch`, with what is in the way said in its place."""
    try:
        return handlers.batch(*given)
    except UserError as error:
        return html.problem(str(error)), "", *[gr.skip()] * 3


def _newest(context: Context, reading: Reading, run: str | None) -> tuple[Any, ...]:
    """The last step that a run's trace holds, shown as soon as the run is chosen."""
    if not run:
        return tuple(gr.skip() for _ in range(5))
    try:
        last = step_range(context.run(run))[1]
    except UserError as error:
        return html.problem(str(error)), "", *[gr.skip()] * 3
    return _batch(context, reading, 0, 0, True, run, last, 1)


def _asked(page: Page, port: str) -> Any:
    """What another tab or the address asked for is put into the form; what follows shows it."""
    request = page.request(port)
    if "source" in request:
        return gr.Tabs(selected="source"), str(request["source"]), *[gr.skip()] * 3
    if "run" in request:
        shown = str(request["run"]), handlers.whole(request.get("step"), 1)
        return gr.Tabs(selected="step"), gr.skip(), *shown, gr.skip()
    if first := _first_run(request):
        return gr.Tabs(selected="order"), *[gr.skip()] * 3, first
    return gr.skip()


def _first_run(request: Mapping[str, Any]) -> str:
    """Of a link that names the runs which Monitor shows, and nothing of this tab."""
    return "" if {"source", "run"} & request.keys() else str(request.get("runs", "")).split(",")[0].strip()


def _answer_source(context: Context, reading: Reading, page: Page, port: str, *fields: str) -> Iterator[Any]:
    request = page.request(port)
    if "source" in request and request.get("link"):
        closed = source.close_source()
        yield html.note("Another site's link asks for this source; press Open to read it."), *closed[1:]
    elif "source" in request:
        yield from source.open_source(context, reading, *fields)
    else:
        yield gr.skip()


def _answer_step(context: Context, reading: Reading, page: Page, port: str, run: str | None, number: Any) -> Any:
    request = page.request(port)
    if "run" not in request or "source" in request:
        return gr.skip()
    return _batch(context, reading, 0, 0, True, run, number, 1)


def _answer_order(context: Context, reading: Reading, page: Page, port: str, *fields: Any) -> Any:
    request = page.request(port)
    if not _first_run(request):
        return gr.skip()
    if request.get("link"):  # the run's data may lie on the hub
        return html.note("Another site's link asks for this run's order; press Show to read it."), *[gr.skip()] * 5
    return _window(context, reading, 0, False, True, *fields)
