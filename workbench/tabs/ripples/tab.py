"""The ripples tab: is there a period in a loss, where does it come from, and what would remove it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.ripples.layout import DATASETS
from workbench import html
from workbench.charts import LiveChart
from workbench.context import Context
from workbench.page import ACTION, DOWNLOAD, PRIVATE, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.ripples import studies, view
from workbench.tabs.ripples.reports import Reports
from workbench.tabs.ripples.subject import choices

OTHERS = ("first", "second", "study")  # what the other two pages ask for
NUMBERS = ("batch_tokens", "file_tokens", "files", "streams")
APPLY, PAIR, STUDY = (
    f"(asked, ...values) => window.workbench.ripples.{name}(asked, values)" for name in ("apply", "pair", "study")
)  # what is asked for, and the address of it
PICKED = """(asked, picked, run, ...rest) =>
  window.workbench.ripples.apply(asked, [picked?.value ?? run, ...rest])"""  # the field may not have it yet
PEAK = "(peak) => { window.workbench.ripples.choose(peak); return []; }"
STEP = """<div class="wb-step"><label>Step <input type="number" min="0" step="1" inputmode="numeric"></label>
<p class="wb-muted" role="status">Hover or click the loss, or type a step: file, row group and first document.</p>
<button type="button" class="wb-small wb-step-open" hidden>Open this step in Data</button></div>"""


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app.

    All choices allow any value: their lists change on the server, which after a restart knows none that a page has.
    """
    reports, c = Reports(context), SimpleNamespace(part=partial(page.part, "ripples"))
    c.file = gr.Textbox(visible="hidden", label="file", container=False)
    with gr.Tabs(selected="one", elem_id="wb-ripples-parts") as c.parts:
        for id, label, place in (("one", "A run or a log", _one_part), ("pair", "Two runs", _pair_part),
                                 ("study", "Study of orders", _study_part)):  # fmt: skip
            with gr.Tab(label, id=id), gr.Row(elem_classes="wb-beside", elem_id=f"wb-ripples-{id}"):
                place(context, c)
    changed = ("run", "reference", "first", "second", "study", "peak", "chart", "of_run")
    live = page.live("ripples", partial(view.look, context, reports), {name: getattr(c, name) for name in changed})
    _listen_one(context, page, reports, c, live)
    _listen_pair(context, page, reports, c, live)
    _listen_study(context, page, c, live)


# The parts


def _one_part(context: Context, c: SimpleNamespace) -> None:
    known = choices(context)
    with gr.Column(elem_classes="wb-results"):
        c.part("verdict", elem_id="wb-ripples-verdict", first=view.WAIT)
        c.part("status", elem_id="wb-ripples-status")
        with gr.Row(elem_id="wb-ripples-curves"):
            c.part("residual", elem_id="wb-ripples-residual")
            c.part("spectrum", elem_id="wb-ripples-spectrum")
        with gr.Column(visible=False, elem_id="wb-ripples-of-run") as c.of_run:
            c.chart = LiveChart(context, view.RAW, label="Loss of the run", elem_id="wb-ripples-chart")
            c.step = gr.HTML(
                html_template=STEP, js_on_load="window.workbench.ripples.mountStep(element, server, trigger);",
                server_functions=[view.teller(context)], apply_default_css=False, elem_id="wb-ripples-step",
            )  # fmt: skip
        c.part("loss", elem_id="wb-ripples-loss")
        c.part("figures", elem_id="wb-ripples-figures")
    with gr.Column(elem_classes="wb-settings"):
        c.run = gr.Dropdown(known, value=None, allow_custom_value=True, label="Run or log",
                            info="or the path of a log in the roots", elem_id="wb-ripples-run")  # fmt: skip
        c.picked = picker(context, "log", c.run, drop="wb-ripples-one")
        c.peak = gr.Dropdown([], label="Period shaded on the curves", visible=False, allow_custom_value=True,
                             info="or press a point of the periodogram", elem_id="wb-ripples-peak")  # fmt: skip
        with gr.Accordion("Settings", open=False, elem_id="wb-ripples-known"):
            _settings(known, c)


def _settings(known: list[tuple[str, str]], c: SimpleNamespace) -> None:
    """What is measured of a log, and what is known of it."""
    c.steps = gr.Textbox(label="Steps", info="FIRST:LAST, for example 3000:5000", elem_id="wb-ripples-steps")
    c.reference = gr.Dropdown([("its own trend", ""), *known], value="", allow_custom_value=True,
                              label="Measured against",
                              info="or a run with the same data order, which takes most noise away")  # fmt: skip
    c.column = gr.Textbox(label="Column of the loss", info="where it is not found by itself")
    c.batch_tokens = gr.Number(None, label="Tokens per step", info="where the log has none")
    c.dataset = gr.Dropdown([("not known", ""), *((name, name) for name in DATASETS)], value="",
                            label="Dataset", info="a published layout of files")  # fmt: skip
    c.file_tokens = gr.Number(None, label="Tokens per file")
    c.files = gr.Number(None, label="Files of one pass")
    c.streams = gr.Number(None, label="Files read at once", info="as by ranks with a file each")
    c.analyse = gr.Button("Measure with these", size="sm", elem_id="wb-ripples-analyse", elem_classes="wb-fit")


def _pair_part(context: Context, c: SimpleNamespace) -> None:
    known = choices(context)
    with gr.Column(elem_classes="wb-results"):
        c.part("pair", elem_id="wb-ripples-pair")
    with gr.Column(elem_classes="wb-settings"):
        c.first = gr.Dropdown(known, value=None, allow_custom_value=True, label="First", elem_id="wb-ripples-first")
        c.second = gr.Dropdown(known, value=None, allow_custom_value=True, label="Second", elem_id="wb-ripples-second")
        c.compare = gr.Button("Compare", variant="primary", size="sm", elem_id="wb-ripples-compare",
                              elem_classes="wb-fit")  # fmt: skip


def _study_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Column(elem_classes="wb-results"):
        c.part("standing", elem_id="wb-study-standing")
    with gr.Column(elem_classes="wb-settings"):
        with gr.Row(elem_classes="wb-actions"):
            c.study = gr.Dropdown([], label="Study", allow_custom_value=True, elem_id="wb-study-chosen", min_width=200)
            c.remove = gr.Button("Remove from the list", size="sm", interactive=False, elem_id="wb-study-remove",
                                 elem_classes="wb-fit")  # fmt: skip
        gr.HTML(html.note(
            "A study trains the same small run four times: in file order, behind buffers of 1,000 and 10,000 "
            "documents, and in lanes. What each order leaves of the ripple stands beside what the file order forecasts."
        ))  # fmt: skip
        c.source = gr.Textbox("pydocs", label="Source", elem_id="wb-study-source",
                              info="pydocs, a dataset of the hub, or a path in the roots")  # fmt: skip
        picker(context, "data", c.source)
        c.count = gr.Number(studies.STEPS, label="Steps", precision=0, minimum=studies.FEWEST_STEPS,
                            info="of each run; 2,048 tokens each", elem_id="wb-study-steps")  # fmt: skip
        c.own = gr.Textbox(label="Settings", info="optional: section.name=value, with spaces between",
                           elem_id="wb-study-settings")  # fmt: skip
        c.begin = gr.Button("Queue the four runs", variant="primary", size="sm", elem_id="wb-study-begin",
                            elem_classes="wb-fit")  # fmt: skip


# What happens


def _listen_one(context: Context, page: Page, reports: Reports, c: SimpleNamespace, live: gr.HTML) -> None:
    fields = {"run": c.run, "reference": c.reference, **{name: getattr(c, name) for name in view.FIELDS}}
    applied: dict[str, Any] = dict(fn=None, inputs=[live, *fields.values()], outputs=live, js=APPLY, **QUIET)
    now, outputs = page.now("ripples"), [c.file, *page.outputs("train")]

    def measure(asked: Mapping[str, Any]) -> None:
        view.act(context, reports, asked, {"act": "analyse"})

    def act(asked: Mapping[str, Any], event: gr.EventData) -> Any:
        done = view.act(context, reports, asked, event._data if isinstance(event._data, dict) else {})
        if isinstance(done, str):
            return {c.file: done}
        return dict(zip(page.outputs("train"), page.go("train", **done), strict=True)) if done else gr.skip()

    for event in (c.run.input, c.reference.input):
        event(**applied)
    c.analyse.click(**applied).then(page.friendly(measure), live, None, **ACTION).then(**now)
    page.acts("ripples", live, act, live, outputs)
    c.file.change(None, c.file, None, js=DOWNLOAD, **PRIVATE)
    c.picked.picked(None, [live, c.picked, *fields.values()], live, js=PICKED, **QUIET)
    c.peak.input(None, c.peak, None, js=PEAK, **PRIVATE)

    def opened(asked: Mapping[str, Any], event: gr.EventData) -> Any:
        told = event._data or {}
        return page.go("data", run=told.get("run") or asked.get("run", ""), step=told.get("step", 1))

    c.step.click(page.friendly(opened), live, page.outputs("data"), **ACTION)
    port = page.port("ripples")
    filled = [*fields.values(), live, c.parts, c.first, c.second, c.study]
    answered = port.change(page.friendly(partial(asked, page, list(fields))), [port, live], filled, **QUIET)
    answered.then(**now)  # the parts of an inner tab are there once it is open


def _listen_pair(context: Context, page: Page, reports: Reports, c: SimpleNamespace, live: gr.HTML) -> None:
    chosen: dict[str, Any] = dict(fn=None, inputs=[live, c.first, c.second], outputs=live, js=PAIR, **QUIET)
    for choice in (c.first, c.second):
        choice.input(**chosen)
    compared = page.friendly(partial(view.compare, context, reports))
    c.compare.click(compared, [c.first, c.second], None, **ACTION).then(**chosen).then(**page.now("ripples"))


def _listen_study(context: Context, page: Page, c: SimpleNamespace, live: gr.HTML) -> None:
    chosen: dict[str, Any] = dict(fn=None, inputs=[live, c.study], outputs=live, js=STUDY, **QUIET)
    c.study.input(**chosen)
    c.begin.click(page.friendly(partial(begin, context)), [c.source, c.count, c.own], c.study, **ACTION).then(**chosen)
    c.remove.click(page.friendly(partial(remove, context)), c.study, None, **ACTION).then(**page.now("ripples"))


# Handlers over plain values


def begin(context: Context, source: Any, steps: Any, own: Any) -> Any:
    """Queues a study and chooses it."""
    made = studies.begin(context, source, steps, own)
    gr.Info(f"Four runs are queued: study-{made.id}-…", duration=5)
    return gr.Dropdown(choices=[(one.label, one.id) for one in studies.studies(context)], value=made.id)


def remove(context: Context, chosen: Any) -> None:
    for one in studies.studies(context):
        if one.id == chosen:
            studies.remove(context, one)


def asked(page: Page, fields: list[str], text: str, shown: Mapping[str, Any] | None = None) -> list[Any]:
    """What another tab or the address asked for, put into the fields. A run alone forgets what was said of another.

    `shown`: what is asked for now, of which the other two pages stay.
    """
    request: Mapping[str, Any] = page.request(text)
    given: dict[str, Any] = {name: str(request[name]) for name in fields if request.get(name)}
    values: list[Any] = [gr.skip()] * len(fields)
    wanted = {key: value for key, value in (shown or {}).items() if "run" not in given or key in OTHERS}
    wanted |= {key: str(request[key]) for key in OTHERS if request.get(key)}
    if "run" in given:
        given |= {name: _number(given[name]) for name in NUMBERS if name in given}
        given = {name: value for name, value in given.items() if value is not None}
        blank = {"reference": "", "dataset": "", "column": "", "steps": ""}
        values = [given.get(name, blank.get(name)) for name in fields]
        wanted |= given | ({"link": True} if request.get("link") else {})
    part = str(request.get("part") or ("one" if "run" in given else ""))
    tabs = gr.Tabs(selected=part) if part in ("one", "pair", "study") else gr.skip()
    return [*values, wanted, tabs, *(str(request[key]) if request.get(key) else gr.skip() for key in OTHERS)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
