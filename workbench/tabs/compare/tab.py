"""The compare tab: several models measured on one text or on HellaSwag, with the error of every number."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html, tasklist, words
from workbench.context import Context
from workbench.evaluations import cost
from workbench.evaluations.own import OwnResults
from workbench.evaluations.results import Result, Results
from workbench.evaluations.start import ITEMS, KIND, PRECISIONS, plans, protocols, start
from workbench.jobs import Task
from workbench.live import Asked, News
from workbench.models import checkpoints_of, choices, gpt2_at_hand
from workbench.page import ACTION, DOWNLOAD, PRIVATE, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.compare import export
from workbench.tabs.compare.groups import Set, sets
from workbench.tabs.compare.view import results_view

SHOWN_ENDED = 6  # evaluations
CHOSEN = "(asked, ...values) => window.workbench.compare.chosen(asked, values)"
BEGUN = "(asked, ...values) => window.workbench.compare.begun(asked, values)"


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    measured = Measured(context)
    file = gr.Textbox(visible="hidden", label="file", elem_id="wb-compare-file")
    with gr.Row(elem_classes="wb-beside"):
        with gr.Column(elem_classes="wb-results"):
            with gr.Row(elem_classes="wb-actions"):
                shown = gr.Dropdown([], label="Text", container=False, elem_id="wb-compare-set")
                page.part("compare", "save", elem_id="wb-compare-save")
            page.part("compare", "view", elem_id="wb-compare-view", first=results_view(None))
        with gr.Column(elem_classes="wb-settings"):
            fields, evaluate = _form(context, page)
            command = gr.HTML(elem_id="wb-compare-command")
            page.part("compare", "tasks", elem_id="wb-compare-tasks")
    models, protocol = fields["models"], fields["protocol"]
    live = page.live(
        "compare", partial(look, context, measured), {"set": shown, "models": models, "protocol": protocol}
    )

    def pressed(values: dict[Any, Any]) -> Any:
        return begin(context, {name: values[field] for name, field in fields.items()})

    def clicked(event: gr.EventData) -> Any:
        data = event._data if isinstance(event._data, dict) else {}
        kind, id = (str(data.get(key, "")) for key in ("act", "id"))
        if kind in ("csv", "json"):
            return {file: exported(measured, kind, id)}
        if kind == "pair":
            first, second = id.split(" ", 1)
            return dict(zip(page.outputs("ripples"), page.go("ripples", part="pair", first=first, second=second),
                            strict=True))  # fmt: skip
        act(context, measured, data)
        return gr.skip()

    listed = gr.State(choices(context))
    lists = [models, protocol, listed]
    page.on_open("compare", _opened(context, page), [fields["device"], listed], [*lists, fields["device"]])
    for field in (models, protocol):
        field.focus(page.friendly(partial(refreshed, context)), listed, lists, **QUIET)
        field.input(None, [live, models, protocol], live, js=CHOSEN, **QUIET)
    begun = evaluate.click(page.friendly(pressed), set(fields.values()), command, **ACTION)
    begun.then(None, [live, models, protocol], live, js=BEGUN, **QUIET)
    page.acts("compare", live, clicked, None, [file, *page.outputs("ripples")])
    shown.input(None, [live, shown], live, js="(asked, set) => ({ ...asked, set, since: null })", **QUIET)
    file.change(None, file, None, js=DOWNLOAD, **PRIVATE)
    page.port("compare").change(
        page.friendly(partial(asked, context)), [page.port("compare"), live], [models, protocol, live], **QUIET
    )


def _form(context: Context, page: Page) -> tuple[dict[str, Any], gr.Button]:
    """Settings of a measurement. Models and text begin with what is ticked in Monitor, see `look`."""
    gr.HTML(html.Markup("<h3>Measure more</h3>"))
    models = gr.Dropdown(
        choices(context), value=None, multiselect=True, allow_custom_value=True, max_choices=16, label="Models",
        info="runs, their checkpoints, folders in the roots, GPT-2", elem_id="wb-compare-models",
    )  # fmt: skip
    picker(context, "model", models)
    protocol = gr.Dropdown(
        texts(context), value=None, allow_custom_value=True, label="Text",
        info="whose loss is measured; or a path in the roots", elem_id="wb-compare-protocol",
    )  # fmt: skip
    with gr.Accordion("More", open=False):
        hellaswag = gr.Dropdown(
            [("no", ""), ("yes, from the hub", "hub")], value="", allow_custom_value=True, label="HellaSwag",
            info="or the path of a file in the roots", elem_id="wb-compare-hellaswag",
        )  # fmt: skip
        items = gr.Number(0, precision=0, label="HellaSwag items", info=f"spread evenly; 0: all {ITEMS:,}")
        device = gr.Dropdown(context.jobs.devices.names, label="Device", info="one evaluation at a time on each")
        precision = gr.Dropdown(list(PRECISIONS), label="Precision", info="of the forward passes")
    with gr.Row(elem_classes="wb-actions"):
        evaluate = gr.Button("Measure", variant="primary", size="sm", elem_id="wb-compare-evaluate",
                             elem_classes="wb-fit")  # fmt: skip
        page.part("compare", "cost", elem_id="wb-compare-cost")
    return {"models": models, "protocol": protocol, "hellaswag": hellaswag, "items": items, "device": device,
            "precision": precision}, evaluate  # fmt: skip


class Measured:
    """All results of the folder: of evaluations, and what runs measured of themselves."""

    def __init__(self, context: Context) -> None:
        self._results, self._own = Results(context.runs), OwnResults(context.runs)
        self.own: list[Result] = []

    def sets(self) -> list[Set]:
        self.own = self._own.read()
        return sets(self._results.read(), self.own)


def texts(context: Context) -> list[tuple[str, str]]:
    return [*protocols(context), ("no text, HellaSwag alone", "")]


def begin(context: Context, values: Mapping[str, Any]) -> str:
    """Starts an evaluation for each model; the commands. UserError where one cannot be started."""
    context.changes()
    found = plans(context, **values)
    start(context, found)
    lines = html.join(html.Markup(f"<pre>{html.escape(shlex.join(plan.argv))}</pre>") for plan in found)
    return html.Markup(f'<details class="wb-commands"><summary>The commands</summary>{lines}</details>')


def act(context: Context, measured: Measured, data: Mapping[str, Any]) -> None:
    """Stops a task, takes it off the list, or measures runs on the text that was shown with the button."""
    context.changes()
    kind, id = (str(data.get(key, "")) for key in ("act", "id"))
    if kind == "measure":
        key, *models = id.split("\n")
        chosen = next((one for one in measured.sets() if one.key == key), None)
        protocol = protocol_named(chosen) if chosen else ""
        devices = context.jobs.devices
        device = found if (found := devices.free()) in devices.names else devices.names[0]
        start(context, plans(context, models, protocol, "", 0, device, PRECISIONS[0]))
        return
    tasks = context.jobs.tasks
    task = tasks.get(id)
    if task.kind == KIND and kind == "stop":
        tasks.stop(task.id)
    elif task.kind == KIND and kind == "forget":
        tasks.forget(task.id)


def protocol_named(chosen: Set) -> str:
    """What an evaluation calls the text of a set: a protocol, run:NAME, or a path; "" where nobody could ask for it."""
    losses = [result.loss for result in chosen.results if result.loss]
    runs = [loss.text for loss in losses if loss.text.startswith("run:")]
    return (runs or [loss.protocol.removeprefix("local:") for loss in losses] or [""])[0]


def look(context: Context, measured: Measured, asked: Asked, news: News) -> None:
    """The sets of results, the comparison of one, what a further measurement would take, and those under way."""
    found, tasks = measured.sets(), context.jobs.tasks.list(KIND)
    at_hand = context.runs_at_hand(asked.get("ticked"), weights=True)
    chosen = pick(found, asked, at_hand)
    news.busy = any(task.running for task in tasks)
    news.show("tasks", tasklist.listed(tasks, SHOWN_ENDED))
    missing = absent(context, chosen, at_hand, tasks) if chosen and not context.read_only else []
    news.show("view", results_view(chosen, missing))
    kinds = (("csv", "Table as CSV"), ("json", "Everything as JSON"))
    save = html.menu("Save", [html.item(label, kind, chosen.key) for kind, label in kinds]) if chosen else ""
    news.show("save", save)
    news.set("set", choices=[(_said(one), one.key) for one in found], value=chosen.key if chosen else None)
    models, protocol = asked.get("models"), asked.get("protocol")
    for field, value in (("models", models), ("protocol", protocol)):
        if value is not None and asked.get("filled"):  # once, by whoever asked: a person's choice is left alone
            news.set(field, stamp=asked["filled"], value=value)
    if models is None:
        models = preset_models(context, at_hand)
        news.set("models", value=models)
    if protocol is None:
        protocol = f"run:{at_hand[0]}" if at_hand else ""
        news.set("protocol", value=protocol)
    news.show("cost", html.note(cost_said(context, measured, models, str(protocol or ""))))


def _said(one: Set) -> str:
    count = len({result.model for result in one.results})
    return f"{one.label} · {count} {'model' if count == 1 else 'models'}"


def pick(found: Sequence[Set], asked: Asked, at_hand: Sequence[str]) -> Set | None:
    """One measured since a measurement was begun here; until then the set that was asked for; else one of several
    models rather than of one, with most of the runs at hand, the newest."""
    since = asked.get("since")
    if found and isinstance(since, int | float) and max(result.time for result in found[0].results) >= since:
        return found[0]
    named = next((one for one in found if one.key == asked.get("set")), None)
    if named or not found:
        return named

    def worth(one: Set) -> tuple[bool, int]:
        models = {result.model for result in one.results}
        return len(models) > 1, len({model.partition("/")[0] for model in models} & set(at_hand))

    return max(found, key=worth)  # of equal ones the first, which is the newest


def absent(context: Context, chosen: Set, at_hand: Sequence[str], tasks: Sequence[Task]) -> list[str]:
    """Runs at hand with a checkpoint that have no result in a set of a text, and are not being measured."""
    if not chosen.is_text:
        return []
    here = {result.model.partition("/")[0] for result in chosen.results}
    going = {task.label.partition("/")[0] for task in tasks if task.running}
    return [name for name in at_hand if name not in here | going and checkpoints_of(context.runs / name)]


def preset_models(context: Context, at_hand: Sequence[str]) -> list[str]:
    """The runs at hand that have a checkpoint, and GPT-2 where it need not be fetched."""
    found = [name for name in at_hand if checkpoints_of(context.runs / name)]
    return [*found, *filter(None, [gpt2_at_hand(context)])]


def cost_said(context: Context, measured: Measured, models: Sequence[Any], protocol: str) -> str:
    if not models or not protocol:
        return ""
    took = cost.seconds(context, models, protocol, measured.own)
    return "" if took is None else f"about {words.seconds(took)} if nothing else is running"


def _opened(context: Context, page: Page) -> Callable[..., Any]:
    def opened(device: Any, listed: list[Any]) -> Any:
        """What can be chosen now, and a device that is free."""
        lists = refreshed(context, listed)
        return *(lists if isinstance(lists, tuple) else [gr.skip()] * 3), page.free_device(context.jobs.devices, device)

    return opened


def refreshed(context: Context, listed: list[Any]) -> Any:
    """New checkpoints, folders and runs in the lists; nothing when there are none."""
    known = choices(context)
    if [tuple(item) for item in listed or []] == known:
        return gr.skip()
    return gr.update(choices=known), gr.update(choices=texts(context)), known


def exported(measured: Measured, kind: str, key: str | None) -> str:
    """The chosen set as JSON of a file's name and text, for the browser to save."""
    chosen = _find(measured.sets(), key)
    if chosen is None:
        raise UserError("there is no result to save yet; measure a model first")
    text = export.as_csv(chosen) if kind == "csv" else export.as_json(chosen)
    return json.dumps({"name": f"comparison.{kind}", "text": text, "nonce": secrets.token_hex(4)})


def asked(context: Context, text: str, shown: Mapping[str, Any] | None = None) -> list[Any]:
    """Models and text of a request, and what is asked for with them; what it does not name stays."""
    request = Page.request(text)
    known, wanted = choices(context), {**(shown or {}), "filled": secrets.token_hex(4)}
    models = [name.strip() for name in str(request.get("models", "")).split(",") if name.strip()]
    box, field = gr.update(choices=known), gr.update(choices=texts(context))
    if models:
        wanted["models"] = models
        box = gr.update(choices=known, value=models)
    if "protocol" in request:
        wanted["protocol"] = str(request["protocol"])
        field = gr.update(choices=texts(context), value=wanted["protocol"])
    return [box, field, wanted]


def _find(found: list[Set], key: str | None) -> Set | None:
    return next((one for one in found if one.key == key), found[0] if found else None)
