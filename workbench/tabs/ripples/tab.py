"""The ripples tab: is there a period in a loss, where does it come from, and what would remove it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from workbench import html
from workbench.charts import LiveChart
from workbench.context import Context
from workbench.page import ACTION, PRIVATE, QUIET, Page
from workbench.tabs.ripples import handlers, studies
from workbench.tabs.ripples.reports import Reports
from workbench.tabs.ripples.steps import teller
from workbench.tabs.ripples.subject import DATASETS, choices, take_in

POLL_SECONDS = 2.0
RAW = {"panels": ["loss"], "smooth": 0}
NUMBERS = ("batch_tokens", "file_tokens", "files", "streams")
DOWNLOAD = "(file) => { const { name, text } = JSON.parse(file); window.workbench.download(name, text); return []; }"
ADDRESS = "(applied, peak) => { window.workbench.ripples.address(applied, peak); return []; }"
PAIR_ADDRESS = (
    "(first, second) => { window.workbench.url({ tab: 'ripples', part: 'pair', first, second }); return []; }"
)
STUDY_ADDRESS = "(study) => { window.workbench.url({ tab: 'ripples', part: 'study', study }); return []; }"
PEAKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-peak]");
  if (button) trigger("click", { peak: button.dataset.peak });
});"""
STEP = """<div class="wb-step"><label>Step <input type="number" min="0" step="1" inputmode="numeric"></label>
<p class="wb-muted" role="status">Hover or click the loss, or type a step: file, row group and first document.</p>
<button type="button" class="wb-step-open" hidden>Open this step in Data</button></div>"""
Fragment = partial(gr.HTML, apply_default_css=False)


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app.

    All choices allow any value: their lists change on the server, which after a restart knows none that a page has.
    """
    reports, c = Reports(context), SimpleNamespace()
    context.jobs.add_chore(studies.Keeper(context, reports))
    c.applied = gr.Textbox(
        "{}", visible="hidden", label="what is asked for", container=False, elem_id="wb-ripples-asked"
    )
    c.seen, c.pair_seen, c.study_seen = (
        gr.Textbox("{}", visible="hidden", label=f"what the page has {n}", container=False) for n in (1, 2, 3)
    )
    c.file = gr.Textbox(visible="hidden", label="file", container=False)
    with gr.Tabs(selected="one", elem_id="wb-ripples-parts") as c.parts:
        with gr.Tab("A run or a log", id="one"):
            _one_part(context, c)
        with gr.Tab("Two runs", id="pair"):
            _pair_part(context, c)
        with gr.Tab("Study of orders", id="study"):
            _study_part(c)
    timer = page.timer("ripples", POLL_SECONDS)
    _listen_one(context, page, reports, c, timer)
    _listen_pair(context, page, reports, c, timer)
    _listen_study(context, page, reports, c, timer)


# The parts


def _one_part(context: Context, c: SimpleNamespace) -> None:
    known = choices(context)
    with gr.Row(equal_height=False):
        c.run = gr.Dropdown(
            known, value=None, allow_custom_value=True, label="Run or log", scale=3, elem_id="wb-ripples-run",
            info="or type the path of a log inside the roots",
        )  # fmt: skip
        c.reference = gr.Dropdown(
            [("none", ""), *known], value="", allow_custom_value=True, label="Reference", scale=2,
            info="optional: with the same data order; the ripple is sought in the difference",
        )  # fmt: skip
        with gr.Column(scale=1, min_width=160):
            c.upload = gr.UploadButton("Upload a log", size="sm", elem_id="wb-ripples-upload")
            c.analyse = gr.Button("Analyse", variant="primary", size="sm", elem_id="wb-ripples-analyse")
            c.stop = gr.Button("Stop", size="sm", interactive=False, elem_id="wb-ripples-stop")
    with gr.Accordion("What is known of the log", open=False, elem_id="wb-ripples-known"):
        with gr.Row():
            c.column = gr.Textbox(label="Column of the loss", info="where it is not found by itself")
            c.batch_tokens = gr.Number(None, label="Tokens per step", info="where the log has none")
            c.steps = gr.Textbox(label="Steps", info="FIRST:LAST, for example 3000:5000", elem_id="wb-ripples-steps")
            c.dataset = gr.Dropdown([("not known", ""), *((name, name) for name in DATASETS if name)], value="",
                                    label="Dataset", info="a published layout of files")  # fmt: skip
        with gr.Row():
            c.file_tokens = gr.Number(None, label="Tokens per file")
            c.files = gr.Number(None, label="Files of one pass")
            c.streams = gr.Number(None, label="Files read at once", info="as by ranks with a file each")
    c.status = Fragment(handlers.EMPTY if known else handlers.NOTHING_YET, elem_id="wb-ripples-status")
    c.verdict = Fragment("", elem_id="wb-ripples-verdict")
    c.peak = gr.Dropdown(
        [], label="Shade a period on the loss", info="or press a point of the periodogram", visible=False,
        allow_custom_value=True, elem_id="wb-ripples-peak",
    )  # fmt: skip
    with gr.Column(visible=False, elem_id="wb-ripples-of-run") as c.of_run:
        c.chart = LiveChart(context, RAW, label="Loss of the run", elem_id="wb-ripples-chart")
        c.step = gr.HTML(
            html_template=STEP, js_on_load="window.workbench.ripples.mountStep(element, server, trigger);",
            server_functions=[teller(context)], apply_default_css=False, elem_id="wb-ripples-step",
        )  # fmt: skip
    c.loss = Fragment("", elem_id="wb-ripples-loss")
    c.figures = Fragment("", js_on_load=PEAKS, elem_id="wb-ripples-figures")
    with gr.Row(visible=False, elem_id="wb-ripples-save") as c.save:
        for kind, label in (("json", "Save the report as JSON"), ("html", "Save the report as one HTML file")):
            setattr(
                c, f"save_{kind}", gr.Button(label, size="sm", scale=0, min_width=240, elem_id=f"wb-ripples-{kind}")
            )


def _pair_part(context: Context, c: SimpleNamespace) -> None:
    known = choices(context)
    with gr.Row(equal_height=False):
        c.first = gr.Dropdown(known, value=None, allow_custom_value=True, label="First", elem_id="wb-ripples-first")
        c.second = gr.Dropdown(known, value=None, allow_custom_value=True, label="Second", elem_id="wb-ripples-second")
        c.compare = gr.Button(
            "Compare", variant="primary", size="sm", scale=0, min_width=120, elem_id="wb-ripples-compare"
        )
    c.pair = Fragment(elem_id="wb-ripples-pair")


def _study_part(c: SimpleNamespace) -> None:
    gr.HTML(html.note(
        "The same small run four times: in file order, behind buffers of 1,000 and of 10,000 documents, and in lanes. "
        "Each is analysed; what the orders left of the ripple stands beside what the file order forecasts."
    ))  # fmt: skip
    with gr.Row(equal_height=False):
        c.source = gr.Textbox("pydocs", label="Source", elem_id="wb-study-source",
                              info="pydocs, a dataset of the hub, or a path inside the roots")  # fmt: skip
        c.count = gr.Number(studies.STEPS, label="Steps", precision=0, minimum=studies.FEWEST_STEPS,
                            info="of each run; 2,048 tokens each", elem_id="wb-study-steps")  # fmt: skip
        c.own = gr.Textbox(label="Settings", info="optional: section.name=value, with spaces between",
                           elem_id="wb-study-settings")  # fmt: skip
        c.begin = gr.Button(
            "Queue the study", variant="primary", size="sm", scale=0, min_width=140, elem_id="wb-study-begin"
        )
    with gr.Row(equal_height=False):
        c.study = gr.Dropdown([], label="Study", allow_custom_value=True, elem_id="wb-study-chosen", scale=3)
        c.remove = gr.Button(
            "Remove from the list", size="sm", interactive=False, scale=0, min_width=160, elem_id="wb-study-remove"
        )
    c.standing = Fragment(elem_id="wb-study-standing")


# What happens


def _listen_one(context: Context, page: Page, reports: Reports, c: SimpleNamespace, timer: gr.Timer) -> None:
    fields = {"run": c.run, "reference": c.reference, **{name: getattr(c, name) for name in handlers.FIELDS}}
    outputs = [c.run, c.reference, c.status, c.verdict, c.peak, c.chart, c.loss, c.figures, c.analyse, c.stop, c.of_run,
               c.save, c.seen]  # fmt: skip
    shown: dict[str, Any] = dict(
        fn=page.friendly(partial(_look, context, reports, c, outputs)), inputs=[c.applied, c.peak, c.seen],
        outputs=outputs, **QUIET,
    )  # fmt: skip
    address: dict[str, Any] = dict(fn=None, inputs=[c.applied, c.peak], outputs=None, js=ADDRESS, **PRIVATE)

    def applied(values: dict[Any, Any]) -> str:
        return json.dumps({name: values[field] for name, field in fields.items() if values[field] not in (None, "")})

    timer.tick(**shown)
    for event in (c.run.input, c.reference.input):
        event(applied, set(fields.values()), c.applied, **QUIET).then(**shown).then(**address)
    c.analyse.click(applied, set(fields.values()), c.applied, **QUIET).then(
        page.friendly(partial(_act, context, reports, handlers.analyse)), c.applied, None, **ACTION
    ).then(**shown).then(**address)
    c.stop.click(page.friendly(partial(_act, context, reports, handlers.stop)), c.applied, None, **ACTION).then(**shown)
    c.upload.upload(page.friendly(partial(_take_in, context)), c.upload, c.run, **PRIVATE).success(
        applied, set(fields.values()), c.applied, **QUIET
    ).then(**shown).then(**address)
    c.peak.input(**shown).then(**address)

    def pressed(event: gr.EventData) -> Any:
        return str((event._data or {}).get("peak", ""))

    c.figures.click(pressed, None, c.peak, **QUIET).then(**shown).then(**address)

    def opened(asked: str, event: gr.EventData) -> Any:
        step = (event._data or {}).get("step", 1)
        return page.go("data", run=handlers.asked_for(asked).get("run", ""), step=step)

    c.step.click(page.friendly(opened), c.applied, page.outputs("data"), **ACTION)
    for kind, button in (("json", c.save_json), ("html", c.save_html)):
        saved = button.click(page.friendly(partial(_file, context, reports, kind)), c.applied, c.file, **ACTION)
        saved.success(None, c.file, None, js=DOWNLOAD, **PRIVATE)
    port = page.port("ripples")
    filled = [*fields.values(), c.applied, c.peak, c.parts, c.first, c.second, c.study]
    port.change(page.friendly(partial(asked, page, list(fields))), port, filled, **QUIET).then(**shown)


def _listen_pair(context: Context, page: Page, reports: Reports, c: SimpleNamespace, timer: gr.Timer) -> None:
    inputs, outputs = [c.first, c.second, c.pair_seen], [c.first, c.second, c.pair, c.pair_seen]

    def compared(ask: bool) -> Callable[..., Any]:
        return page.friendly(partial(_pair, context, reports, ask))

    timer.tick(compared(False), inputs, outputs, **QUIET)
    for choice in (c.first, c.second):
        choice.input(compared(False), inputs, outputs, **QUIET)
    c.compare.click(compared(True), inputs, outputs, **QUIET).then(
        None, [c.first, c.second], None, js=PAIR_ADDRESS, **PRIVATE
    )


def _listen_study(context: Context, page: Page, reports: Reports, c: SimpleNamespace, timer: gr.Timer) -> None:
    shown: dict[str, Any] = dict(
        fn=page.friendly(partial(_study, context, reports)), inputs=[c.study, c.study_seen],
        outputs=[c.study, c.standing, c.remove, c.study_seen], **QUIET,
    )  # fmt: skip
    address: dict[str, Any] = dict(fn=None, inputs=c.study, outputs=None, js=STUDY_ADDRESS, **PRIVATE)
    timer.tick(**shown)
    c.study.input(**shown).then(**address)
    begun = c.begin.click(page.friendly(partial(begin, context)), [c.source, c.count, c.own], c.study, **ACTION)
    begun.then(**shown).then(**address)
    c.remove.click(page.friendly(partial(remove, context)), c.study, None, **ACTION).then(**shown)


# Handlers over plain values


def _look(
    context: Context, reports: Reports, c: SimpleNamespace, outputs: list[Any], applied: str, peak: Any, seen: str
) -> list[Any]:
    """The first page's parts as values of its components."""
    found, after = handlers.look(context, reports, handlers.asked_for(applied), peak, handlers.asked_for(seen))
    values: dict[Any, Any] = {}
    if "choices" in found:
        values[c.run] = gr.Dropdown(choices=found["choices"])
        values[c.reference] = gr.Dropdown(choices=[("none", ""), *found["choices"]])
    values |= {getattr(c, name): str(found[name]) for name in ("status", "verdict", "loss", "figures") if name in found}
    if "peaks" in found:
        values[c.peak] = gr.Dropdown(**found["peaks"], visible=bool(found["peaks"]["choices"]))
    if "chart" in found:
        # Of another run the loss alone and unsmoothed, as a ripple is seen best; then it is the person's to change.
        values[c.chart] = found["chart"] | (RAW if "of" in found else {})
    if "buttons" in found:
        on = found["buttons"]
        values[c.analyse], values[c.stop] = gr.Button(interactive=on["analyse"]), gr.Button(interactive=on["stop"])
        values[c.of_run], values[c.save] = gr.Column(visible=on["run"]), gr.Row(visible=on["files"])
    if found:
        values[c.seen] = json.dumps(after)
    return [values.get(part, gr.skip()) for part in outputs]


def _act(context: Context, reports: Reports, action: Callable[..., None], applied: str) -> None:
    action(context, reports, handlers.asked_for(applied))


def _take_in(context: Context, uploaded: Any) -> Any:
    choice = take_in(context, uploaded)
    return gr.Dropdown(choices=choices(context), value=choice)


def _file(context: Context, reports: Reports, kind: str, applied: str) -> str:
    return handlers.file_text(context, reports, handlers.asked_for(applied), kind)


def _pair(context: Context, reports: Reports, ask: bool, first: Any, second: Any, seen: str) -> list[Any]:
    found, after = handlers.compare(context, reports, first, second, handlers.asked_for(seen), ask)
    if not found:
        return [gr.skip()] * 4
    list_of = gr.Dropdown(choices=found["choices"]) if "choices" in found else gr.skip()
    return [list_of, list_of, str(found["pair"]) if "pair" in found else gr.skip(), json.dumps(after)]


def _study(context: Context, reports: Reports, chosen: Any, seen: str) -> list[Any]:
    found, after = handlers.study(context, reports, chosen, handlers.asked_for(seen))
    if not found:
        return [gr.skip()] * 4
    return [
        gr.Dropdown(**found["studies"]) if "studies" in found else gr.skip(),
        str(found["study"]) if "study" in found else gr.skip(),
        gr.Button(interactive=found["remove"]) if "remove" in found else gr.skip(),
        json.dumps(after),
    ]


def begin(context: Context, source: Any, steps: Any, own: Any) -> Any:
    """Queues a study and chooses it."""
    made = studies.begin(context, source, steps, own)
    gr.Info(f"Four runs are queued: study-{made.id}-…", duration=5)
    return gr.Dropdown(choices=[(one.label, one.id) for one in studies.studies(context)], value=made.id)


def remove(context: Context, chosen: Any) -> None:
    for one in studies.studies(context):
        if one.id == chosen:
            studies.remove(context, one)


def asked(page: Page, fields: list[str], text: str) -> list[Any]:
    """What another tab or the address asked for, put into the fields. A run alone forgets what was said of another."""
    request: Mapping[str, Any] = page.request(text)
    given: dict[str, Any] = {name: str(request[name]) for name in fields if request.get(name)}
    values: list[Any] = [gr.skip()] * (len(fields) + 2)
    if "run" in given:
        given |= {name: _number(given[name]) for name in NUMBERS if name in given}
        given = {name: value for name, value in given.items() if value is not None}
        blank = {"reference": "", "dataset": "", "column": "", "steps": ""}
        values = [given.get(name, blank.get(name)) for name in fields]
        values += [json.dumps(given | ({"link": True} if request.get("link") else {})), gr.skip()]
    part = str(request.get("part") or ("one" if "run" in given else ""))
    values.append(gr.Tabs(selected=part) if part in ("one", "pair", "study") else gr.skip())
    values += [str(request[key]) if request.get(key) else gr.skip() for key in ("first", "second", "study")]
    return values


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
