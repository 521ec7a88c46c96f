"""The block of the form that says what is trained on: the text, its tokenizer and the column that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from mygpt2.config.fields import settings
from mygpt2.errors import UserError
from workbench import draft as drafts
from workbench.context import Context
from workbench.draft import RUN
from workbench.page import ACTION, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.train import look
from workbench.tabs.train.fields import Fields, component, place
from workbench.tabs.train.handlers import Parts

NAMES = ("data.source", "data.tokenizer", "data.text_column")
PICKED = {"data.source": "data", "data.tokenizer": "tokenizer"}  # what is chosen with a picker, and its kind
BLOCK = "train-data"
ASK = "(...values) => ({ values })"


def data_block(context: Context, page: Page, fields: Fields, texts: Mapping[str, str]) -> gr.HTML:
    """Places the three settings and registers them in `fields`, with their pickers and the look into the source.

    texts: the texts of all settings, by dotted name. Returns the picker of the source.
    """
    pickers = {}
    with gr.Column(elem_id=BLOCK):
        with gr.Column(elem_classes="wb-fields"):
            for name in NAMES:
                place(fields, name, component(settings()[name], texts[name]))
        for name, kind in PICKED.items():
            drop = BLOCK if name == "data.source" else ""
            pickers[name] = picker(context, kind, fields.inputs[name], drop=drop)
        page.part("source", "look", elem_id="train-look")
    return pickers["data.source"]


def listen_data(context: Context, page: Page, parts: Parts, picked: gr.HTML) -> None:
    """What happens: the look follows the form, and a file that was brought names a run that nobody has named yet."""
    inputs, view = parts.fields.inputs, look.View(context)
    asked = [inputs[name] for name in (*look.SOURCE, *look.LENGTH)]
    live = page.live("source", view)
    gr.on([*(made.change for made in asked), parts.filled.change], None, asked, live, js=ASK, **QUIET)

    def act(data: dict[Any, Any], event: gr.EventData) -> None:
        given = event._data if isinstance(event._data, dict) else {}
        texts = {name: data[inputs[name]] for name in (*look.SOURCE, *look.LENGTH)}
        view.act(str(given.get("act", "")), str(given.get("id", "")), texts)

    live.act(page.friendly(act), set(asked), None, **ACTION).then(**page.now("source"))
    suggested = gr.State("")
    name = partial(named_after, context)
    picked.picked(page.friendly(name), [picked, inputs[RUN], suggested], [inputs[RUN], suggested], **QUIET)


def named_after(context: Context, found: Any, run: Any, before: str) -> Any:
    """A free name after the file or folder that was chosen, where the run has a suggested name or none; twice."""
    now = str(run or "").strip()
    value = found.get("value") if isinstance(found, dict) else ""
    try:
        source = Path(context.source(str(value or "")))
    except UserError:
        return gr.skip()
    if not source.is_absolute() or not (drafts.is_suggested(now) or now == before):
        return gr.skip()
    name = drafts.free_name(context, source.name.partition(".")[0])
    return name, name
