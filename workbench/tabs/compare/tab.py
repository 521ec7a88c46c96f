"""The compare tab: several models measured on one text or on HellaSwag, with the error of every number."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html, tasklist
from workbench.context import Context
from workbench.evaluations.results import Results
from workbench.evaluations.start import ITEMS, KIND, PRECISIONS, plans, protocols, start
from workbench.live import Asked, News
from workbench.models import ONLY_HUB, choices
from workbench.page import ACTION, DOWNLOAD, PRIVATE, QUIET, Page
from workbench.tabs.compare import export
from workbench.tabs.compare.groups import Set, sets
from workbench.tabs.compare.view import results_view

SHOWN_ENDED = 6  # evaluations
_ADDRESS = """(models, protocol) => {
  window.workbench.url({ tab: "compare", models: (models || []).join(","), protocol });
  return [];
}"""


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    results = Results(context.runs)
    fields = _form(context)
    evaluate = gr.Button("Evaluate", variant="primary", elem_id="wb-compare-evaluate")
    command = gr.HTML(elem_id="wb-compare-command")
    page.part("compare", "tasks", elem_id="wb-compare-tasks")
    shown = gr.Dropdown([], label="Results", info="of one text in one way of reading it; the newest first",
                        elem_id="wb-compare-set")  # fmt: skip
    page.part("compare", "view", elem_id="wb-compare-view", first=results_view(None))
    with gr.Row(elem_id="wb-compare-export"):
        saves = {kind: gr.Button(f"Save {kind.upper()}", size="sm", scale=0) for kind in ("csv", "json")}
    file = gr.Textbox(visible="hidden", label="file", elem_id="wb-compare-file")
    live, now = page.live("compare", partial(look, context, results), {"set": shown}), page.now("compare")

    def pressed(values: dict[Any, Any]) -> Any:
        return begin(context, {name: values[field] for name, field in fields.items()})

    def clicked(event: gr.EventData) -> None:
        act(context, event._data)

    listed = gr.State(choices(context))
    models, lists = fields["models"], [fields["models"], fields["protocol"], listed]
    page.on_open("compare", _opened(context, page), [page.port("compare"), models, fields["device"], listed],
                 [*lists, fields["device"]])  # fmt: skip
    for field in (models, fields["protocol"]):
        field.focus(page.friendly(partial(refreshed, context)), listed, lists, **QUIET)
    begun = evaluate.click(page.friendly(pressed), set(fields.values()), command, **ACTION)
    begun.then(None, [fields["models"], fields["protocol"]], None, js=_ADDRESS, **PRIVATE)
    begun.then(**now)
    live.act(page.friendly(clicked), None, None, **ACTION).then(**now)
    shown.input(None, shown, live, js="(set) => ({ set })", **QUIET)
    for kind, button in saves.items():
        saved = button.click(page.friendly(partial(exported, results, kind)), shown, file, **ACTION)
        saved.success(None, file, None, js=DOWNLOAD, **PRIVATE)
    page.port("compare").change(
        page.friendly(partial(asked, context)), page.port("compare"), [fields["models"], fields["protocol"]], **QUIET
    )


def _form(context: Context) -> dict[str, Any]:
    known = choices(context)
    models = gr.Dropdown(
        known, value=[known[0][1]], multiselect=True, allow_custom_value=True, max_choices=16, label="Models",
        info="checkpoints of runs, folders inside the roots, GPT-2 from the hub", elem_id="wb-compare-models",
    )  # fmt: skip
    with gr.Row(equal_height=False):
        protocol = gr.Dropdown(
            [("no text", ""), *protocols(context)], value="", allow_custom_value=True, label="Text",
            info="whose loss is measured; or type a path inside the roots", elem_id="wb-compare-protocol",
        )  # fmt: skip
        hellaswag = gr.Dropdown(
            [("no", ""), ("yes, from the hub", "hub")], value="", allow_custom_value=True, label="HellaSwag",
            info="or type the path of a file inside the roots", elem_id="wb-compare-hellaswag",
        )  # fmt: skip
    with gr.Accordion("Settings", open=False), gr.Row():
        items = gr.Number(0, precision=0, label="HellaSwag items", info=f"spread evenly; 0: all {ITEMS:,}")
        device = gr.Dropdown(context.jobs.devices.names, label="Device", info="one evaluation at a time on each")
        precision = gr.Dropdown(list(PRECISIONS), label="Precision", info="of the forward passes")
    return {"models": models, "protocol": protocol, "hellaswag": hellaswag, "items": items, "device": device,
            "precision": precision}  # fmt: skip


def begin(context: Context, values: Mapping[str, Any]) -> str:
    """Starts an evaluation for each model; the commands. UserError where one cannot be started."""
    context.changes()
    found = plans(context, **values)
    start(context, found)
    lines = html.join(html.Markup(f"<pre>{html.escape(shlex.join(plan.argv))}</pre>") for plan in found)
    return html.Markup(f'<details class="wb-commands"><summary>The commands</summary>{lines}</details>')


def act(context: Context, data: Mapping[str, Any]) -> None:
    """Stops a task or takes it off the list."""
    context.changes()
    tasks = context.jobs.tasks
    task = tasks.get(str(data.get("id", "")))
    if task.kind == KIND and data.get("act") == "stop":
        tasks.stop(task.id)
    elif task.kind == KIND and data.get("act") == "forget":
        tasks.forget(task.id)


def look(context: Context, results: Results, asked: Asked, news: News) -> None:
    """The evaluations, the sets of results, and the comparison of the one that was chosen."""
    found, tasks = sets(results.read()), context.jobs.tasks.list(KIND)
    chosen = _find(found, asked.get("set"))
    news.busy = any(task.running for task in tasks)
    news.show("tasks", tasklist.listed(tasks, SHOWN_ENDED))
    news.show("view", results_view(chosen))
    news.set("set", choices=[(one.label, one.key) for one in found], value=chosen.key if chosen else None)


def _opened(context: Context, page: Page) -> Callable[..., Any]:
    def opened(port: str | None, models: Any, device: Any, listed: list[Any], request: gr.Request) -> Any:
        """What can be chosen now, and what is chosen unless a person or a link did."""
        asked = "models" in page.request(port) or "models" in request.query_params
        lists = refreshed(context, listed, choose=not asked and models in (None, [], [ONLY_HUB[0]]))
        return *(lists if isinstance(lists, tuple) else [gr.skip()] * 3), page.free_device(context.jobs.devices, device)

    return opened


def refreshed(context: Context, listed: list[Any], choose: bool = False) -> Any:
    """New checkpoints, folders and runs in the lists; nothing when there are none. `choose`: also the first model."""
    known = choices(context)
    choose = choose and known[0][1] != ONLY_HUB[0]
    if [tuple(item) for item in listed or []] == known and not choose:
        return gr.skip()
    texts = gr.update(choices=[("no text", ""), *protocols(context)])
    models = gr.update(choices=known, value=[known[0][1]]) if choose else gr.update(choices=known)
    return models, texts, known


def exported(results: Results, kind: str, key: str | None) -> str:
    """The chosen set as JSON of a file's name and text, for the browser to save."""
    chosen = _find(sets(results.read()), key)
    if chosen is None:
        raise UserError("there is no result to save yet; evaluate a model first")
    text = export.as_csv(chosen) if kind == "csv" else export.as_json(chosen)
    return json.dumps({"name": f"comparison.{kind}", "text": text})


def asked(context: Context, text: str) -> list[Any]:
    """Models and text of a request; what it does not name stays."""
    request = Page.request(text)
    known = choices(context)
    models = [name.strip() for name in str(request.get("models", "")).split(",") if name.strip()]
    box = gr.update(choices=known, value=models) if models else gr.update(choices=known)
    texts = [("no text", ""), *protocols(context)]
    if "protocol" not in request:
        return [box, gr.update(choices=texts)]
    return [box, gr.update(choices=texts, value=str(request["protocol"]))]


def _find(found: list[Set], key: str | None) -> Set | None:
    return next((one for one in found if one.key == key), found[0] if found else None)
