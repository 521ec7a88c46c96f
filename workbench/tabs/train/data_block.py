"""The block of the form that says what is trained on: the text, its tokenizer and the column that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from mygpt2.config.fields import settings
from workbench import forms
from workbench.context import Context
from workbench.page import QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.train import look
from workbench.tabs.train.fields import Fields, component, place
from workbench.tabs.train.mix_editor import editor, listen
from workbench.tabs.train.parts import Parts

NAMES = ("data.source", "data.tokenizer", "data.text_column")
PICKED = {"data.source": "data", "data.tokenizer": "tokenizer"}  # what is chosen with a picker, and its kind
BLOCK = "train-data"
ASK = "(...values) => ({ values })"


def data_block(context: Context, page: Page, fields: Fields, texts: Mapping[str, str]) -> None:
    """Places the settings and registers them in `fields`, with pickers, mixture editor and the look into the source.

    texts: the texts of all settings, by dotted name.
    """
    with gr.Column(elem_id=BLOCK):
        with gr.Column(elem_classes="wb-fields"):
            for name in NAMES:
                place(fields, name, component(settings()[name], texts[name]))
        editor(context, fields, texts["data.mix"])
        for name, kind in PICKED.items():
            drop = BLOCK if name == "data.source" else ""
            picker(context, kind, fields.inputs[name], drop=drop)
        page.part("source", "look", elem_id="train-look")


def listen_data(context: Context, page: Page, parts: Parts) -> None:
    """What happens: the look follows the form. A file that is chosen also names the run, see `handlers.refresh`."""
    inputs, view = parts.fields.inputs, look.View(context)
    asked = [inputs[name] for name in (*look.SOURCE, *look.LENGTH)]
    live = page.live("source", view, {"filled": parts.filled})
    listen(parts.fields)
    gr.on([*(made.change for made in asked), parts.filled.change], None, asked, live, js=ASK, **QUIET)

    def act(data: dict[Any, Any], event: gr.EventData) -> Any:
        given = event._data if isinstance(event._data, dict) else {}
        if given.get("act") == "look-steps":
            return forms.as_text(given.get("id"))  # a text like any that is typed there, and looked at as such
        texts = {name: data[inputs[name]] for name in (*look.SOURCE, *look.LENGTH)}
        view.act(str(given.get("act", "")), str(given.get("id", "")), texts)
        return gr.skip()

    page.acts("source", live, act, set(asked), inputs["train.steps"])
