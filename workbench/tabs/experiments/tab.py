"""The experiments tab: several runs that answer a question together."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.page import DOWNLOAD, PRIVATE, QUIET, Page
from workbench.tabs.experiments import act, begin, export
from workbench.tabs.experiments.forms import forms
from workbench.tabs.experiments.look import Seen, look

MOST_FORM = 16_384  # characters of a form's values


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    seen = Seen(context)
    file = gr.Textbox(visible="hidden", label="file", elem_id="wb-exp-file")
    with gr.Row(elem_classes="wb-beside"):
        with gr.Column(elem_classes="wb-results"):
            for part in ("list", "confirm", "card", "deleted"):
                page.part("experiments", part, elem_id=f"wb-exp-{part}")
        with gr.Column(elem_classes="wb-settings", elem_id="wb-exp-begin"):
            gr.HTML(forms(), js_on_load="window.workbench.experiments.mount(element);", apply_default_css=False)
    live = page.live("experiments", partial(look, seen))

    def clicked(asked: Mapping[str, Any], event: gr.EventData) -> Any:
        data = event._data if isinstance(event._data, dict) else {}
        what, id = str(data.get("act", "")), str(data.get("id", ""))
        if what in export.KINDS:
            made = export.file_of(seen.experiments.all(), id, what, seen.curves, context.runs)
            return {file: json.dumps({**made, "nonce": secrets.token_hex(4)})}
        if what == "monitor":
            runs = ",".join(context.run(name).name for name in id.split())
            return dict(zip(page.outputs("monitor"), page.go("monitor", runs=runs), strict=True))
        return {live: changed(context, seen, _dict(asked), what, id)}

    outputs = [live, file, *page.outputs("monitor")]
    page.acts("experiments", live, clicked, live, outputs)
    file.change(None, file, None, js=DOWNLOAD, **PRIVATE)
    port = page.port("experiments")
    port.change(page.friendly(asked_for), [port, live], live, **QUIET)


def changed(context: Context, seen: Seen, asked: Mapping[str, Any], what: str, id: str) -> dict[str, Any]:
    """Does what a button of the parts asks for; the view that follows. UserError where it cannot be done."""
    context.changes()
    nonce = secrets.token_hex(4)
    if what == "begin":
        kind, values = form(id)
        made = begin.plan(context, kind, values)
        begin.start(context, seen.experiments, made)
        return {**asked, "name": made.name, "shown": nonce, "deleting": ""}
    if what == "delete":
        return {**asked, "name": id, "deleting": id, "shown": nonce}
    if what == "keep":
        return {**asked, "deleting": ""}
    if what not in act.ACTS:
        raise UserError(f"{what[:40]!r} cannot be done to an experiment; allowed: {', '.join(act.ACTS)}")
    gr.Info(html.escape(act.ACTS[what](context, seen.experiments, id)), duration=5)
    gone = {"name": "", "gone": id, "shown": nonce, "deleting": ""} if what.startswith("delete-") else {}
    return {**asked, **gone}


def form(text: str) -> tuple[str, dict[str, Any]]:
    """(kind, values) as the tab's script sends them. UserError for anything else."""
    try:
        found = json.loads(text if len(text) <= MOST_FORM else "")
        return str(found["kind"]), {str(key): value for key, value in found["values"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError("the form's values did not arrive; load the page again") from None


def asked_for(text: str, shown: Any) -> dict[str, Any]:
    """What a link or another tab asks for: an experiment by its name, or a question about a run."""
    request, nonce = Page.request(text), secrets.token_hex(4)
    value = _dict(shown)
    if name := str(request.get("name", "")):
        value |= {"name": name[:60], "shown": nonce, "deleting": ""}
    kind, run = str(request.get("ask", "")), str(request.get("run", ""))
    if kind in begin.PLANS:
        base = run if not run or run.startswith((begin.RUN, begin.PRESET)) else begin.RUN + run
        value |= {"question": {"kind": kind, "base": base, "nonce": nonce}}
    return value


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
