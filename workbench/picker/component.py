"""The picker in the page: Browse beside a field, the panel it opens, and files dropped on the field.

Its server functions only read. Files go to `workbench.picker.receive`; what they become there is chosen at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from mygpt2.format import file_size
from workbench.context import Context
from workbench.page import QUIET
from workbench.picker.incoming import MOST_BYTES, MOST_FILES
from workbench.picker.kinds import kind_named
from workbench.picker.listing import listing
from workbench.picker.receive import ADDRESS

# What the page runs for each picker; the names in quotes are its Gradio events.
_ON_LOAD = """
window.workbench.picker.mount({ element, props, server, trigger, options: %s, events: ['picked'] });
"""
_TAKE = "(picked) => picked?.value ?? ''"
_ADD = "(picked, now) => [[...new Set([...(now || []), picked?.value].filter(Boolean))]]"  # the one output, a list


def picker(context: Context, kind: str, field: Any, *, drop: str = "") -> gr.HTML:
    """Adds Browse to a field with an elem_id, a Textbox or a Dropdown that allows any value; call it where it stands.

    What is chosen goes into the field; of a Dropdown for several it is added. The returned component's `picked` event
    comes after that, its value is {"value", "name", "uploaded"}. `drop`: the elem_id of a larger place that files may
    be dropped on, the field otherwise.
    """
    several = bool(getattr(field, "multiselect", False))
    options, picker_list = served(context, kind)
    options |= {"field": field.elem_id, "drop": drop or field.elem_id}
    made = gr.HTML({}, html_template="", js_on_load=_ON_LOAD % in_script(options),
                   server_functions=[picker_list], label=f"picker of {field.label}", apply_default_css=False,
                   elem_classes="wb-hidden")  # fmt: skip
    made.picked(None, [made, field] if several else made, field, js=_ADD if several else _TAKE, **QUIET)
    return made


def served(context: Context, kind: str) -> tuple[dict[str, Any], Callable[[Any], dict[str, Any]]]:
    """(options, server function `picker_list`) of a picker: what a component needs whose own script asks
    `window.workbench.picker.lend` for Browse beside fields that come and go."""
    asked = kind_named(kind)
    options = {
        "kind": kind, "title": asked.title, "address": ADDRESS, "endings": asked.endings, "advice": asked.advice,
        "mostBytes": MOST_BYTES, "mostFiles": MOST_FILES, "most": file_size(MOST_BYTES),
        "uploads": not context.read_only,
    }  # fmt: skip

    def picker_list(request: Any) -> dict[str, Any]:
        request = request if isinstance(request, dict) else {}
        try:
            return listing(context, {**request, "kind": kind})
        except UserError as error:
            return {"error": str(error)}

    return options, picker_list


def in_script(value: Any) -> str:
    """A value as it may stand in a script of the page."""
    return json.dumps(value).replace("<", "\\u003c")
