"""The block of the form that says what is trained on: the text, its tokenizer and the column that holds it."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from mygpt2.config.fields import settings
from workbench.tabs.train.fields import Fields, component, place

NAMES = ("data.source", "data.tokenizer", "data.text_column")


def data_block(fields: Fields, texts: Mapping[str, str]) -> None:
    """Places the three settings and registers them in `fields`; what helps to choose them belongs here too.

    texts: the texts of all settings, by dotted name.
    """
    with gr.Column(elem_classes="wb-fields", elem_id="train-data"):
        for name in NAMES:
            place(fields, name, component(settings()[name], texts[name]))
