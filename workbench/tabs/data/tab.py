"""The data tab: what there is to read, a source and its documents, their order in training, what was in a step."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.config import preset_names
from workbench import html
from workbench.context import Context
from workbench.corpus.reading import Reading
from workbench.page import ACTION, PRIVATE, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.data import acts, handlers, library, opening

Fragment = partial(gr.HTML, apply_default_css=False)  # whose tables would not be ours
OPENED = "(source) => [window.workbench.data.source(source)]"
LINK_STEP = "(run, step) => { if (run) window.workbench.url({tab: 'data', run, step, source: null}); return []; }"
ASKED = """(asked, ...held) => {
  window.workbench.data.asked(asked, { source: held.slice(0, %d), order: held.slice(%d, %d), step: held.slice(%d) });
  return [];
}"""
SHOWING: dict[str, Any] = {"show_progress": "minimal", "concurrency_limit": None, **PRIVATE}


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
    _listen_port(page, c)
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


def _turning(c: SimpleNamespace, name: str, prefix: str = "") -> list[tuple[Any, str]]:
    """A pager's three acts: those of acts.PAGES, after a prefix."""
    events = {"back": getattr(c, f"{name}_back").click, "on": getattr(c, f"{name}_on").click,
              "page": getattr(c, name).submit}  # fmt: skip
    return [(event, f"{prefix}{act}") for act, event in events.items()]


def _listen_source(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    c.source_asked = [c.source, c.column, c.ids, c.file_page, c.file, c.part, c.document_page, c.document]
    seen = [c.file, c.file_page_row, c.file_page, c.part, c.where, c.document, c.document_page_row, c.document_page,
            c.histograms, c.text]  # fmt: skip
    whole = [c.message, c.library, c.opened, c.facts, *seen]
    to_train, now = page.outputs("train"), page.now("data")  # the list is put up anew after a source, and is empty then

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

    c.chosen = gr.Textbox(visible="hidden", label="chosen source", container=False)
    c.picked.picked(None, c.picked, c.chosen, js="(picked) => String(picked.nonce)", **QUIET)
    live = page.live("data", library.Library(context))
    page.acts("data", live, act, None, [*to_train, c.source, c.chosen])
    c.train.click(page.friendly(train), c.source, to_train, js=OPENED, **ACTION)
    done = [*((event, "open") for event in (c.open.click, c.source.submit, c.chosen.change)), (c.close.click, "close"),
            (c.file.input, "file"), (c.part.submit, "part"), (c.document.input, "document"),
            *_turning(c, "file_page", "file_"), *_turning(c, "document_page", "document_")]  # fmt: skip
    answer = partial(acts.in_source, context, reading)
    answered = page.in_turn("source", done, answer, c.source_asked, whole, "window.workbench.data.act", SHOWING)
    answered.then(None, None, None, js="() => { window.workbench.data.shown(); return []; }", **QUIET).then(**now)


def _listen_order(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    done = [(c.show_order.click, "show"), (c.order_part.input, "show"), (c.next_window.click, "next"),
            *((number.submit, "show") for number in (c.lane, c.epoch, c.window)),
            *_turning(c, "order_page")]  # fmt: skip
    answer = partial(acts.in_order, context, reading)
    page.in_turn("order", done, answer, c.order_asked, c.order_shown, event=SHOWING)


def _listen_step(context: Context, page: Page, reading: Reading, c: SimpleNamespace) -> None:
    c.step_asked = [c.run, c.step, c.row_page, c.rows_of]
    outputs = [c.batch, c.rows, c.row_page, c.step, c.rows_of]
    done = [(c.show_step.click, "show"), (c.step.submit, "show"), (c.rows_of.input, "show"), (c.run.input, "run"),
            (c.step_back.click, "before"), (c.step_on.click, "after"), *_turning(c, "row_page")]  # fmt: skip
    answered = page.in_turn("step", done, partial(acts.in_step, context, reading), c.step_asked, outputs, event=SHOWING)
    answered.then(None, [c.run, c.step], None, js=LINK_STEP, **QUIET)


def _listen_port(page: Page, c: SimpleNamespace) -> None:
    """What another tab or the address asks for goes into the form, and is then shown."""
    port, fields = page.port("data"), [c.source_asked, c.order_asked, c.step_asked]
    filled = port.change(page.friendly(partial(_asked, page)), port, [c.parts, c.source, c.run, c.step, c.of], **QUIET)
    ends = [len(part) for part in fields]
    script = ASKED % (ends[0], ends[0], ends[0] + ends[1], ends[0] + ends[1])
    filled.then(None, [port, *(field for part in fields for field in part)], None, js=script, **QUIET)


# Handlers over plain values


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
