"""The Train tab: preset, form, what it will take, start or queue; the queue, and the runs that can go on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import gradio as gr

from mygpt2.config import load_config
from mygpt2.config.summary import count_parameters, vocabulary_size
from mygpt2.run_dir import list_runs
from workbench import draft as drafts
from workbench.context import Context
from workbench.draft import DEVICES, FIRST_PRESET, NPROC, PRESET, RUN
from workbench.live import Asked, News
from workbench.page import ACTION, DOWNLOAD, PRIVATE, QUIET, Page
from workbench.tabs.train import fields as form
from workbench.tabs.train import fill, handlers, measure, show
from workbench.tabs.train import queue as queues
from workbench.tabs.train.data_block import data_block, listen_data
from workbench.tabs.train.groups import groups
from workbench.tabs.train.handlers import Parts

RUNS_SECONDS = 15.0  # between two looks at the runs that could go on


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    parts, made = compose(context, page)
    listen_data(context, page, parts, made["source"])
    _wire_form(context, page, parts, made)
    _wire_launch(context, page, parts, made)
    _wire_live(context, page, parts, made)


def compose(context: Context, page: Page) -> tuple[Parts, dict[str, Any]]:
    """The components, without what they do: those of the form, and the rest by name."""
    fields = form.Fields()
    parts = Parts(fields)
    made: dict[str, Any] = {}
    texts = fill.from_preset(FIRST_PRESET).values
    with gr.Column(elem_id="train", elem_classes="wb-train"):
        made["welcome"] = _welcome(context, parts)
        form.place(fields, PRESET, _presets())
        with gr.Row(elem_classes="wb-train-main", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="wb-train-form"):
                parts.message = gr.HTML("", elem_id="train-message")
                made["source"] = _form(context, page, fields, texts)
                made |= _files()
            with gr.Column(scale=4, min_width=300, elem_classes="wb-train-side"):
                made["suggest"] = _launch_card(context, fields, parts)
                _outlook(page, parts, made)
        made |= _queue(context, page)
        _hidden(parts)
    return parts, made


def _welcome(context: Context, parts: Parts) -> gr.Row:
    with gr.Row(
        visible=_is_new(context), elem_id="train-welcome", elem_classes="wb-card", equal_height=True
    ) as welcome:
        config = load_config(FIRST_PRESET)
        size = count_parameters(config.model, vocabulary_size(config.data.tokenizer) or 0)
        gr.HTML(show.welcome(size))
        parts.welcome_start = gr.Button("Start this run", variant="primary", elem_id="train-welcome-start", scale=0,
                                        min_width=180)  # fmt: skip
    return welcome


def _is_new(context: Context) -> bool:
    return not context.read_only and not list_runs(context.runs)


def _presets() -> gr.Radio:
    return gr.Radio(fill.preset_choices(), value=FIRST_PRESET, label="Preset", info="Where the settings begin.",
                    elem_id="field-preset", interactive=True, render=False)  # fmt: skip


def _form(context: Context, page: Page, fields: form.Fields, texts: Mapping[str, str]) -> gr.HTML:
    """All settings, in the order in which a person decides; returns the picker of the source."""
    for group in groups():
        if group.folded:
            form.fold(fields, group, texts)
            continue
        gr.HTML(form.heading(group))
        if group.id == "data":
            picked = data_block(context, page, fields, texts)
        else:
            form.group_fields(fields, group, texts)
    return picked


def _launch_card(context: Context, fields: form.Fields, parts: Parts) -> gr.Button:
    """Name, devices, processes and the two buttons; returns the one that suggests a name."""
    devices = drafts.first_devices(context)
    slots = list(dict.fromkeys(context.jobs.slots))
    own: dict[str, Any] = {"interactive": True, "render": False}
    run = gr.Textbox(drafts.free_name(context, FIRST_PRESET), label="Name of the run", elem_id="field-run",
                     info="Also its folder: letters, digits, dot, underscore, dash.", max_length=200, max_lines=1,
                     **own)  # fmt: skip
    chosen = gr.CheckboxGroup(slots, value=devices, label="Devices", elem_id="field-devices",
                              info="A device serves one run at a time.", **own)  # fmt: skip
    processes = gr.Textbox(str(drafts.first_processes(FIRST_PRESET, devices)), label="Processes", max_lines=1,
                           info="torchrun starts that many: one per GPU, or as the cores allow.", max_length=20,
                           elem_id="field-processes", **own)  # fmt: skip
    with gr.Column(elem_classes=["wb-card", "wb-launch"]):
        gr.HTML("<h3>Start</h3>")
        form.place(fields, RUN, run)
        suggest = gr.Button("Suggest a free name", size="sm", elem_id="train-suggest")
        form.place(fields, DEVICES, chosen)
        form.place(fields, NPROC, processes)
        with gr.Row():
            parts.start = gr.Button("Start now", variant="primary", elem_id="train-start", min_width=120)
            parts.queue_up = gr.Button("Add to queue", elem_id="train-queue-up", min_width=120)
        parts.reasons = gr.HTML("", elem_id="train-reasons")
    return suggest


def _outlook(page: Page, parts: Parts, made: dict[str, Any]) -> None:
    parts.estimate = gr.HTML(show.estimate("Being worked out."), elem_id="train-estimate")
    made["measure"] = gr.Button("Measure a few real steps", size="sm", elem_id="train-measure", min_width=120)
    page.part("train", "measured", elem_id="train-measured")
    parts.schedule = gr.HTML("", elem_id="train-schedule")
    parts.changes = gr.HTML("", elem_id="train-changes", js_on_load=None)
    parts.command = gr.Textbox("", label="The command that will be executed", placeholder="shown once Start is on",
                               lines=3, max_lines=12, interactive=False, buttons=["copy"], elem_id="train-command",
                               elem_classes="wb-mono")  # fmt: skip


def _files() -> dict[str, Any]:
    with gr.Row():
        load = gr.UploadButton("Load settings (TOML)", file_types=[".toml"], size="sm", elem_id="train-load")
        save = gr.Button("Save settings (TOML)", size="sm", elem_id="train-save")
    return {"load": load, "save": save}


def _queue(context: Context, page: Page) -> dict[str, Any]:
    with gr.Column(elem_classes="wb-train-queue"):
        gr.HTML("<h2>Queue</h2>")
        page.part("train", "queue", elem_id="train-queue")
        pause = gr.Button("Pause the queue", size="sm", elem_id="train-pause", visible=not context.read_only)
        gr.HTML("<h2>Go on with a run</h2>")
        processes = gr.Textbox("", label="Processes for the resumed run", placeholder="as before", max_lines=1,
                               max_length=20, elem_id="train-resume-processes",
                               visible=not context.read_only)  # fmt: skip
        page.part("train", "runs", elem_id="train-resume")
    return {"pause": pause, "processes": processes}


def _hidden(parts: Parts) -> None:
    for name in ("shown", "filled", "file"):
        box = gr.Textbox(visible="hidden", elem_id=f"train-{name}", label=f"train {name}", container=False)
        setattr(parts, name, box)


def _wire_form(context: Context, page: Page, parts: Parts, made: dict[str, Any]) -> None:
    load, save, suggest = made["load"], made["save"], made["suggest"]
    inputs = parts.fields.inputs

    def refresh(data: dict[Any, Any]) -> Any:
        return handlers.refresh(context, parts, data)

    def choose(data: dict[Any, Any]) -> Any:
        return handlers.choose_preset(context, parts, data)

    def devices(data: dict[Any, Any]) -> Any:
        return handlers.choose_devices(parts, data)

    def request(data: dict[Any, Any]) -> Any:
        return handlers.answer_request(context, parts, data[page.port("train")], data)

    def upload(file: str | None) -> Any:
        return handlers.upload(context, parts, file)

    def download(data: dict[Any, Any]) -> Any:
        return handlers.download(context, parts, data)

    def name(data: dict[Any, Any]) -> Any:
        return handlers.suggest_name(context, parts, data)

    inputs[DEVICES].input(page.friendly(devices), parts.form, inputs[NPROC], **QUIET)
    # A Textbox has no `input` event for what is pasted or dictated.
    typed = [made.change for key, made in inputs.items() if key != PRESET]
    refreshed = gr.on([*typed, parts.filled.change], page.friendly(refresh), parts.form | {parts.shown},
                      parts.refreshed, trigger_mode="always_last", **QUIET)  # fmt: skip
    refreshed.then(None, parts.shown, None, js=form.SHOW_NOTES, **QUIET)
    inputs[PRESET].input(page.friendly(choose), parts.form, parts.filling, **ACTION)
    page.port("train").change(page.friendly(request), parts.form | {page.port("train")}, parts.filling, **ACTION)
    load.upload(page.friendly(upload), load, parts.filling, **ACTION)
    save.click(page.friendly(download), parts.form, parts.file, **ACTION)
    parts.file.change(None, parts.file, None, js=DOWNLOAD, **PRIVATE)
    suggest.click(page.friendly(name), parts.form, parts.filling, **ACTION)


def _wire_launch(context: Context, page: Page, parts: Parts, made: dict[str, Any]) -> None:
    welcome = made["welcome"]
    to_monitor = page.outputs("monitor")
    run = parts.fields.inputs[RUN]

    def start(data: dict[Any, Any]) -> Any:
        name, updates = handlers.launch(context, parts, True, data)
        selected, request = page.go("monitor", runs=name)
        return {to_monitor[0]: selected, to_monitor[1]: request, welcome: gr.Row(visible=False), **updates}

    def start_first() -> Any:
        selected, request = page.go("monitor", runs=handlers.launch_first(context))
        return {to_monitor[0]: selected, to_monitor[1]: request, welcome: gr.Row(visible=False),
                run: drafts.free_name(context, FIRST_PRESET), parts.filled: secrets.token_hex(4)}  # fmt: skip

    def queue_up(data: dict[Any, Any]) -> Any:
        name, updates = handlers.launch(context, parts, False, data)
        gr.Info(f"{name} is queued; what you change now changes nothing in it.", title="Queued")
        return {welcome: gr.Row(visible=False), **updates}

    def arrive(filled: str | None, port: str | None, request: gr.Request) -> Any:
        """The first look at the form: whether the folder is new, a name that is free now, and everything looked at.

        An address or another tab that fills the form names the run itself.
        """
        if filled:
            return {welcome: gr.Row(visible=_is_new(context))}
        asked = {"from_run", "from_job", "preset"} & {*request.query_params, *page.request(port)}
        name = {} if asked else {run: drafts.free_name(context, FIRST_PRESET)}
        return {welcome: gr.Row(visible=_is_new(context)), parts.filled: secrets.token_hex(4), **name}

    after = [run, parts.filled, welcome]
    parts.start.click(page.friendly(start), parts.form, [*to_monitor, *after], **ACTION)
    parts.welcome_start.click(page.friendly(start_first), None, [*to_monitor, *after], **ACTION)
    page.on_open("train", arrive, [parts.filled, page.port("train")], after)
    parts.queue_up.click(page.friendly(queue_up), parts.form, after, **ACTION).then(**page.now("train"))


def _wire_live(context: Context, page: Page, parts: Parts, made: dict[str, Any]) -> None:
    """The queue, the measurement and the runs that can go on, and what their buttons do."""
    measure_it, pause, processes = made["measure"], made["pause"], made["processes"]
    go, copy, now = page.outputs("monitor"), page.port("train"), page.now("train")
    live = page.live("train", View(context), {"pause": pause})

    def act(data: dict[Any, Any], event: gr.EventData) -> Any:
        action, id = (str((event._data or {}).get(key, "")) for key in ("act", "id"))
        if action == "reset":
            return handlers.reset(context, parts, id, data)
        if action == "copy":
            return {copy: page.ask(from_job=id)}
        if action in ("open", "resume"):
            job = context.jobs.store.get(id) if action == "open" else queues.resume(context, id, data[processes])
            return dict(zip(go, page.go("monitor", runs=job.run), strict=True))
        if action == "stop-measuring":
            measure.stop(context)
        else:
            queues.act(context, action, id)
        return gr.skip()

    def begin(data: dict[Any, Any]) -> None:
        measure.start(context, handlers.draft_of(parts, data))

    def toggle() -> None:
        context.changes()
        (context.jobs.resume if context.jobs.paused else context.jobs.pause)()

    live.act(page.friendly(act), parts.form | {processes}, [*go, copy, *parts.filling], **ACTION).then(**now)
    measure_it.click(page.friendly(begin), parts.form, None, **ACTION).then(**now)
    pause.click(page.friendly(toggle), None, None, **ACTION).then(**now)


class View:
    """What there is to see of the queue. Whether a run could go on is looked up anew only now and then."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._runs: tuple[Any, Any] = None, ""

    def __call__(self, asked: Asked, news: News) -> None:
        jobs, task = self._context.jobs, measure.newest(self._context)
        queued, going = jobs.queue(), task is not None and task.running
        news.show("queue", queues.queue(self._context))
        news.show("measured", measure.view(task))
        news.show("runs", self._resumable([job.run for job in queued]))
        news.set("pause", value="Continue the queue" if jobs.paused else "Pause the queue")
        news.tell("enabled", {"train-measure": not going})
        news.busy = bool(queued) or going

    def _resumable(self, queued: list[str]) -> Any:
        state = time.monotonic() // RUNS_SECONDS, queued, len(list_runs(self._context.runs))
        if self._runs[0] != state:
            self._runs = state, queues.resume_table(self._context)
        return self._runs[1]
