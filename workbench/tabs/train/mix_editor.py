"""The editor of a mixture: sources with their shares, as one text in TOML's notation in the field `data.mix`.

What it looks like and does is in ui_assets/tab-train-mixture.js; its server function only reads a text.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from mygpt2.config.mix import MOST_SOURCES, MixSource
from workbench import forms
from workbench.context import Context
from workbench.page import QUIET
from workbench.picker.component import in_script, served
from workbench.tabs.train.fields import Fields
from workbench.tabs.train.mixtures import OWN
from workbench.tabs.train.show import field_id

# What going back to one source writes: the source, and what of its settings has a field of its own.
WRITTEN = ("data.mix", "data.source", *(f"data.{key}" for key in OWN))
_ON_LOAD = """
window.workbench.mixture.mount({ element, props, server, watch, trigger, options: %s, events: ["edited"] });
"""
_TAKE = "(asked, ...fields) => window.workbench.mixture.written(asked, fields)"
_TOLD = "(text) => ({ text })"


def editor(context: Context, fields: Fields, text: str) -> None:
    """Places the editor and the field that carries its text."""
    carrier = gr.Textbox(text, visible="hidden", elem_id="train-mix", label="train mix", container=False,
                         max_length=forms.MAX_TEXT)  # fmt: skip
    fields.inputs["data.mix"] = carrier
    options, picker_list = served(context, "data")
    options |= {"most_sources": MOST_SOURCES, "fields": _described(), "own": OWN, "source": field_id("data.source")}

    def mix_entries(text: Any) -> dict[str, Any]:
        """The sources of a mixture's text, each value as the text of its field; `unread` for what is no mixture."""
        given = forms.as_text(text)[: forms.MAX_TEXT]
        tables = forms.mixture(given)
        texts = [{key: forms.as_text(value) for key, value in table.items()} for table in tables[:MOST_SOURCES]]
        return {"sources": texts, "unread": not tables and given.strip() not in ("", "[]")}

    made = gr.HTML({}, html_template='<div class="wb-mix"></div>', js_on_load=_ON_LOAD % in_script(options),
                   server_functions=[picker_list, mix_entries], label="Mixture of several sources data.mix",
                   apply_default_css=False, elem_id=field_id("data.mix"), elem_classes="wb-mix-field")  # fmt: skip
    fields.editor = made


def listen(fields: Fields) -> None:
    """What is edited goes into the fields, and what fills them into the editor."""
    own = [fields.inputs[name] for name in WRITTEN]
    fields.editor.edited(None, [fields.editor, *own], own, js=_TAKE, **QUIET)
    own[0].change(None, own[0], fields.editor, js=_TOLD, **QUIET)


def _described() -> list[dict[str, Any]]:
    """What stands under More of each source, from the schema."""
    from mygpt2.config.fields import settings_of

    known = {setting.key: setting for setting in settings_of("", MixSource)}
    usual = {"text_column": "text", "score_column": "score", "language_column": "language"}
    return [
        {"key": key, "title": known[key].title, "help": known[key].short_help, "empty": usual.get(key, "any"),
         "number": known[key].kind == "float"}
        for key in ("max_epochs", *OWN)
    ]  # fmt: skip
