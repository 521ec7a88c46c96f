"""The Train tab: preset, form, what it will take, start or queue; the queue, and the runs that can be resumed."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import gradio as gr

from mygpt2.run_dir import list_runs
from workbench.context import Context
from workbench.draft import BRANCH, DEVICES, PRESET, RUN
from workbench.live import Asked, News
from workbench.page import ACTION, DOWNLOAD, PRIVATE, QUIET, Page
from workbench.tabs.train import fields as form
from workbench.tabs.train import first, handlers, measure, presets, there
from workbench.tabs.train import queue as queues
from workbench.tabs.train.compose import compose
from workbench.tabs.train.data_block import listen_data
from workbench.tabs.train.parts import Parts

RUNS_SECONDS = 15.0  # between two looks at the runs that could be resumed
TIMES_SECONDS = 60.0  # between two looks at what the presets would take
FILLS = {"from_run", "from_job", "preset", "branch"}  # what a link or another tab asks for that names the run too
CHANGES = {"tokenizer", "settings"}  # what they ask for that changes the form as it opens
HANDING = """() => '<p class="wb-muted" role="status">Being handed over …</p>'"""
KEPT = "(filled, port) => [filled, port, window.workbench.train.kept(%s)]"  # by folder of runs


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    parts, made = compose(context, page)
    listen_data(context, page, parts)
    _wire_form(context, page, parts, made)
    _wire_launch(context, page, parts)
    _wire_live(context, page, parts, made)


def _wire_form(context: Context, page: Page, parts: Parts, made: dict[str, Any]) -> None:
    load, save = made["load"], made["save"]
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

    inputs[DEVICES].input(page.friendly(devices), parts.form, inputs["processes"], **QUIET)
    # A Textbox has no `input` event for what is pasted or dictated.
    typed = [made.change for key, made in inputs.items() if key != PRESET]
    known = parts.form | {parts.shown, parts.filled}
    changes = [*typed, parts.filled.change, made["measurement"].change]
    refreshed = page.follow("form", changes, refresh, known, parts.refreshed)
    run, branch = inputs[RUN], inputs[BRANCH]
    refreshed.then(None, [parts.shown, run], run, js=form.SHOW_NOTES, **QUIET)
    parts.filled.change(None, [parts.filled, run, branch], [run, branch], js=form.BEGUN, **QUIET)
    inputs[PRESET].input(page.friendly(choose), parts.form, parts.filling, trigger_mode="always_last", **ACTION)
    page.port("train").change(page.friendly(request), parts.form | {page.port("train")}, parts.filling, **ACTION)
    load.upload(page.friendly(upload), load, parts.filling, **ACTION)
    save.click(page.friendly(download), parts.form, parts.file, **ACTION)
    parts.file.change(None, parts.file, None, js=DOWNLOAD, **PRIVATE)


def _wire_launch(context: Context, page: Page, parts: Parts) -> None:
    to_monitor, now = page.outputs("monitor"), page.now("train")

    def start(data: dict[Any, Any]) -> Any:
        name, updates = handlers.launch(context, parts, True, data)
        return dict(zip(to_monitor, page.go("monitor", runs=name), strict=True)) | updates

    def queue_up(data: dict[Any, Any]) -> Any:
        name, updates = handlers.launch(context, parts, False, data)
        gr.Info(f"{name} is queued with the settings as they are now.", title="Queued")
        return updates

    def hand_over(data: dict[Any, Any]) -> Any:
        name, updates = handlers.hand_over(context, parts, data)
        return (dict(zip(to_monitor, page.go("monitor", runs=name), strict=True)) if name else {}) | updates

    def download(data: dict[Any, Any]) -> Any:
        return there.download(context, parts, handlers.draft_of(parts, data))

    def arrive(filled: str | None, port: str | None, kept: str | None, request: gr.Request) -> Any:
        """The first look at the form: as the browser kept it, unless a link or another tab fills it."""
        if filled:
            return gr.skip()
        asked = {*request.query_params, *page.request(port)}
        if FILLS & asked:
            return {parts.filled: secrets.token_hex(4)}
        return handlers.restore(context, parts, None if CHANGES & asked else kept)

    started = parts.start.click(page.friendly(start), parts.form, [*to_monitor, parts.filled], **ACTION)
    page.on_open(
        "train",
        arrive,
        [parts.filled, page.port("train"), parts.kept],
        parts.filling,
        js=KEPT % json.dumps(str(context.runs)),
    )
    parts.submit.click(None, None, parts.handing, js=HANDING, **QUIET)
    handed = parts.submit.click(page.friendly(hand_over), parts.form, [*to_monitor, parts.filled, parts.handing],
                                **ACTION)  # fmt: skip
    handed.then(**page.now("monitor"))
    parts.save_file.click(page.friendly(download), parts.form, parts.file, **ACTION)
    queued = parts.queue_up.click(page.friendly(queue_up), parts.form, parts.filled, **ACTION)
    queued.then(**now)
    for begun in (started, handed, queued):
        for ended in (begun.then, begun.failure):
            ended(None, None, None, js=form.ANSWERED, **QUIET)


def _wire_live(context: Context, page: Page, parts: Parts, made: dict[str, Any]) -> None:
    """The newcomer's card, the queue, the measurement and the runs to resume, and what their buttons do."""
    processes, copy, now = made["processes"], page.port("train"), page.now("train")
    fields = {"preset": parts.fields.inputs[PRESET], "measurement": made["measurement"]}
    live = page.live("train", View(context), fields)

    def go(tab: str, **request: Any) -> dict[Any, Any]:
        return dict(zip(page.outputs(tab), page.go(tab, **request), strict=True))

    def act(data: dict[Any, Any], event: gr.EventData) -> Any:
        action, id = (str((event._data or {}).get(key, "")) for key in ("act", "id"))
        if action == "reset":
            return handlers.reset(context, parts, id, data)
        if action == "suggest":
            return handlers.suggest_name(context, parts, data)
        if action == "copy":
            return {copy: page.ask(from_job=id)}
        if action == "rate":
            return {copy: page.ask(from_run=id)}
        if action in ("sample", "compare"):
            return go("sample", model_a=id) if action == "sample" else go("compare", models=f"{id},gpt2")
        if action in ("first", "watch", "open", "resume"):
            return go("monitor", runs=_run_of(context, action, id, data[processes]))
        (measure if action.endswith("-measuring") else queues).act(context, action, id)
        return gr.skip()

    def begin(data: dict[Any, Any]) -> None:
        measure.start(context, handlers.draft_of(parts, data))

    ports = [page.port(tab) for tab in ("monitor", "sample", "compare", "train")]
    page.acts("train", live, act, parts.form | {processes}, [page.tabs, *ports, *parts.filling])
    made["measure"].click(page.friendly(begin), parts.form, None, **ACTION).then(**now)


def _run_of(context: Context, action: str, id: str, processes: str) -> str:
    """The run that Monitor is to show after an action, which is done here."""
    if action == "first":
        return handlers.launch_first(context)
    if action == "watch":
        return id
    return (context.jobs.store.get(id) if action == "open" else queues.resume(context, id, processes)).run


class View:
    """What there is to see beside the form. What takes a look at many runs is looked up anew only now and then."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._runs: tuple[Any, Any] = None, ""
        self._presets: tuple[Any, Any] = None, ()

    def __call__(self, asked: Asked, news: News) -> None:
        jobs, task = self._context.jobs, measure.newest(self._context)
        queued, going = jobs.queue(), task is not None and task.running
        news.show("first", first.card(self._context))
        news.show("queue", queues.queue(self._context))
        news.show("measured", measure.view(task))
        news.show("runs", self._resumable([job.run for job in queued]))
        news.set("preset", choices=self._choices(task.id if task else ""))
        if task is not None and task.state == "done":
            news.set("measurement", value=task.id)
        news.tell("enabled", {"train-measure": not going})
        news.busy = bool(queued) or going

    def _resumable(self, queued: list[str]) -> Any:
        state = time.monotonic() // RUNS_SECONDS, queued, len(list_runs(self._context.runs))
        if self._runs[0] != state:
            self._runs = state, queues.resume_list(self._context)
        return self._runs[1]

    def _choices(self, measured: str) -> Any:
        state = time.monotonic() // TIMES_SECONDS, measured, len(list_runs(self._context.runs))
        if self._presets[0] != state:
            self._presets = state, presets.choices(self._context)
        return self._presets[1]
