"""The monitor tab: the list of runs, the chosen run, its chart, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html
from workbench.charts import LiveChart
from workbench.context import Context
from workbench.page import ACTION, QUIET, Page
from workbench.tabs.monitor import actions, skeletons
from workbench.tabs.monitor.export import export
from workbench.tabs.monitor.poll import SAVED, Ask, Monitor, answer

TICK_SECONDS, IDLE_SECONDS = 1.5, 15.0  # while something is at work, and while nothing is
ASK = "(ask, at, all) => [window.workbench.monitor.ask(), at, all]"
CHOSEN = "() => [window.workbench.monitor.chosen()]"
FOCUS = "() => [window.workbench.monitor.focus()]"
FOCUS_AND_QUESTION = "(_, about) => [window.workbench.monitor.focus(), about]"
MARKUP = ("head", "mixed", "ranks", "stop", "alerts", "samples", "settings", "results", "events")


@dataclass(frozen=True)
class Parts:
    """The components that an answer may change. `board` is the page's script's mailbox, and the list."""

    board: gr.HTML
    chart: LiveChart
    markup: Mapping[str, gr.HTML]
    buttons: Mapping[str, gr.Button]  # by name; which of them make sense is told by what they need
    slider: gr.Slider
    note: gr.Textbox
    tags: gr.Textbox
    note_of: gr.JSON
    timer: gr.Timer

    def all(self) -> list[Any]:
        fields = [self.slider, self.note, self.tags, self.note_of, self.timer]
        return [self.board, self.chart, *self.markup.values(), *self.buttons.values(), *fields]

    def updates(self, found: Mapping[str, Any]) -> list[Any]:
        """Values for `all()`: gr.skip() for whatever has not changed."""
        changed: dict[Any, Any] = {}
        if "board" in found:
            changed[self.board] = found["board"]
        if "chart" in found:
            changed[self.chart] = found["chart"]
        changed |= {part: str(found[name]) for name, part in self.markup.items() if name in found}
        if "buttons" in found:
            allowed = found["buttons"]
            changed |= {self.buttons[name]: gr.Button(interactive=allowed[NEEDS[name]]) for name in self.buttons}
            changed[self.tags] = gr.Textbox(interactive=allowed["edit"])
        if "slider" in found:
            count, at = found["slider"]["count"], found["slider"]["at"]
            changed[self.slider] = gr.Slider(maximum=max(2, count), value=max(1, at), visible=count > 1)
        if "note" in found:
            of = found["note"]
            extra = {"interactive": found["buttons"]["edit"]} if "buttons" in found else {}
            changed[self.note] = gr.Textbox(value=of["note"], interactive=of["editable"], info=of["info"])
            changed[self.tags] = gr.Textbox(value=of["tags"], **extra)
            changed[self.note_of] = {key: of[key] for key in ("run", "digest")}
        if "busy" in found:
            changed[self.timer] = gr.Timer(value=TICK_SECONDS if found["busy"] else IDLE_SECONDS)
        return [changed.get(part, gr.skip()) for part in self.all()]


# What each button needs of the run, see poll.buttons.
NEEDS = {
    "save": "stop", "now": "stop", "kill": "kill", "save_now": "ask", "sample_now": "ask", "resume": "resume",
    "train": "use", "sample": "use", "compare": "use", "ripples": "use", "pair": "use", "star": "edit",
}  # fmt: skip


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    monitor = Monitor.over(context)
    ask = gr.Textbox(visible="hidden", label="what the page asks", container=False)
    all_rows: gr.Checkbox
    with gr.Row(elem_id="wb-monitor"):
        with gr.Column(scale=2, min_width=300, elem_id="wb-monitor-list"):
            board = gr.HTML(html_template=skeletons.LIST, js_on_load=skeletons.LIST_SCRIPT, apply_default_css=False)
        with gr.Column(scale=5, min_width=320, elem_id="wb-monitor-run"):
            markup = {"head": _markup("wb-monitor-head")}
            buttons, confirm = _buttons()
            markup["stop"] = _markup("wb-monitor-stop")
            markup["alerts"] = _markup("wb-monitor-alerts")
            markup["mixed"] = _markup("wb-monitor-mixed")
            chart = LiveChart(context, url=True, label="Curves of the chosen runs", elem_id="wb-monitor-chart")
            with gr.Accordion("Ranks and devices", open=True, elem_id="wb-monitor-ranks"):
                markup["ranks"] = _markup("wb-monitor-who")
            with gr.Tabs(elem_id="wb-monitor-panes"):
                slider, all_rows, note, tags, note_of = _panes(context, markup)
    timer = page.timer("monitor", TICK_SECONDS)
    parts = Parts(board, chart, {name: markup[name] for name in MARKUP}, buttons, slider, note, tags, note_of, timer)
    poll = dict(
        fn=page.friendly(partial(_poll, monitor, parts)), inputs=[ask, slider, all_rows], outputs=parts.all(), js=ASK,
        **QUIET,
    )  # fmt: skip
    timer.tick(**poll)
    board.pick(trigger_mode="always_last", **poll)
    slider.change(trigger_mode="always_last", **poll)
    all_rows.change(**poll)
    page.port("monitor").change(None, page.port("monitor"), None, js="(text) => window.workbench.monitor.open(text)")
    _act(context, page, buttons, confirm, ask, poll)
    _edit(context, page, note, tags, note_of)


def _markup(elem_id: str) -> gr.HTML:
    return gr.HTML(elem_id=elem_id, apply_default_css=False)


def _poll(monitor: Monitor, parts: Parts, ask: str, at: float | None, all_rows: bool | None) -> list[Any]:
    found = answer(monitor, Ask.parse(ask), sample_at=int(at or 0), all_rows=bool(all_rows))
    return parts.updates(found)


def _buttons() -> tuple[dict[str, gr.Button], tuple[gr.Row, gr.Button, gr.Button, gr.Textbox]]:
    """What can be done with the chosen run, and the question before a kill."""
    found: dict[str, gr.Button] = {}

    def button(name: str, label: str) -> None:
        found[name] = gr.Button(label, size="sm", interactive=False, elem_id=f"wb-do-{name}", min_width=60)

    with gr.Row(elem_classes="wb-mon-actions"):
        for name, label in (("save", "Stop and save"), ("now", "Stop now"), ("kill", "Kill …"),
                            ("save_now", "Save now"), ("sample_now", "Sample now"), ("resume", "Resume")):  # fmt: skip
            button(name, label)
    with gr.Row(elem_classes="wb-mon-actions"):
        for name, label in (("train", "Open in Train"), ("sample", "Sample it"), ("compare", "Compare it"),
                            ("ripples", "Ripples"), ("pair", "Step against step"), ("star", "★ Star")):  # fmt: skip
            button(name, label)
    with gr.Row(visible=False, elem_classes="wb-mon-actions wb-mon-confirm", elem_id="wb-confirm-kill") as row:
        question = gr.Textbox(visible="hidden", label="run asked about", container=False)
        gr.HTML(html.note("Kill ends every process at once: steps since the last checkpoint are lost."))
        yes = gr.Button("Yes, kill it", size="sm", variant="stop", elem_id="wb-do-kill-yes", min_width=60)
        no = gr.Button("Keep it running", size="sm", elem_id="wb-do-kill-no", min_width=60)
    return found, (row, yes, no, question)


def _panes(
    context: Context, markup: dict[str, gr.HTML]
) -> tuple[gr.Slider, gr.Checkbox, gr.Textbox, gr.Textbox, gr.JSON]:
    """What lies below the chart; the page's script tells the server which pane is open by its elem_id."""

    def tab(name: str, label: str) -> gr.Tab:
        return gr.Tab(label, elem_id=f"wb-pane-{name}", render_children=True)

    with tab("log", "Log"):
        gr.HTML(html_template=skeletons.LOG, js_on_load=skeletons.LOG_SCRIPT, apply_default_css=False)
    with tab("samples", "Samples"):
        slider = gr.Slider(1, 2, value=1, step=1, visible=False, label="Moment (the last is the newest)",
                           elem_id="wb-sample-at", buttons=[])  # fmt: skip
        markup["samples"] = _markup("wb-monitor-samples")
    with tab("notes", "Notes"):
        note = gr.Textbox(label="Note (notes.md)", lines=6, max_lines=20, info=SAVED,
                          elem_id="wb-note", interactive=False)  # fmt: skip
        tags = gr.Textbox(label="Tags", info="Words with commas between them; the list's search finds them.",
                          elem_id="wb-tags", interactive=False)  # fmt: skip
        note_of = gr.JSON(visible=False)
    with tab("settings", "Settings"):
        all_rows = gr.Checkbox(False, label="Also settings that are the same", elem_id="wb-all-settings")
        markup["settings"] = _markup("wb-monitor-settings")
    with tab("results", "Results"):
        markup["results"] = _markup("wb-monitor-results")
    with tab("events", "Events"):
        markup["events"] = _markup("wb-monitor-events")
    with tab("export", "Export"):
        gr.HTML(html_template=skeletons.EXPORT, js_on_load=skeletons.EXPORT_SCRIPT, apply_default_css=False,
                server_functions=[_exporter(context)])  # fmt: skip
    return slider, all_rows, note, tags, note_of


def _exporter(context: Context) -> Callable[..., Any]:
    def export_run(request: Any) -> dict[str, str]:
        """A file as text for the browser to save, or {"problem"}. Reads only."""
        try:
            asked = request if isinstance(request, dict) else {}
            run = context.run(str(asked.get("run", "")))
            return export(run, str(asked.get("what", "")), context.jobs.alerts(run.name))
        except UserError as error:
            return {"problem": str(error)}

    return export_run


def _act(
    context: Context, page: Page, buttons: Mapping[str, gr.Button], confirm: tuple[Any, ...], ask: Any, poll: Any
) -> None:
    """Wires the buttons. A run's name comes from the page with every click."""
    row, yes, no, question = confirm

    def do(button: gr.Button, action: Callable[..., str], inputs: Any = ask, js: str = FOCUS) -> Any:
        return button.click(page.friendly(partial(_told, action)), inputs, None, js=js, **ACTION)

    done = [
        *(do(buttons[how], partial(_stop, context, how)) for how in ("save", "now")),
        do(buttons["save_now"], partial(_ask, context, "save")),
        do(buttons["sample_now"], partial(_ask, context, "sample")),
        do(buttons["resume"], partial(actions.resume, context)),
        do(buttons["star"], partial(actions.star, context)),
        do(yes, partial(actions.confirm_kill, context), [ask, question], FOCUS_AND_QUESTION),
    ]
    for event in done:
        event.then(**poll)
    buttons["kill"].click(lambda run: [gr.Row(visible=True), run], ask, [row, question], js=FOCUS, **QUIET)
    for button in (yes, no):
        button.click(lambda: gr.Row(visible=False), None, row, **QUIET)
    for name, tab, key in (("train", "train", "from_run"), ("sample", "sample", "model_a"),
                           ("compare", "compare", "models"), ("ripples", "ripples", "run")):  # fmt: skip
        js = CHOSEN if name == "compare" else FOCUS
        buttons[name].click(partial(_send, page, tab, key), ask, page.outputs(tab), js=js, **QUIET)
    pair = page.friendly(partial(_send_pair, page))
    buttons["pair"].click(pair, ask, page.outputs("ripples"), js=CHOSEN, **ACTION)


def _told(action: Callable[..., str], *values: Any) -> None:
    gr.Info(action(*values), duration=5)


def _stop(context: Context, how: Any, run: str) -> str:
    return actions.stop(context, run, how)


def _ask(context: Context, what: str, run: str) -> str:
    return actions.ask(context, run, what)


def _send(page: Page, tab: str, key: str, value: str) -> list[Any]:
    return page.go(tab, **{key: value})


def _send_pair(page: Page, chosen: str) -> list[Any]:
    """The first two runs of the chart, compared where their noise cancels."""
    first, _, rest = chosen.partition(",")
    if not first or not rest:
        raise UserError("only one run is ticked; tick a second one in the list to compare the two step against step")
    return page.go("ripples", part="pair", first=first, second=rest.partition(",")[0])


def _edit(context: Context, page: Page, note: gr.Textbox, tags: gr.Textbox, note_of: gr.JSON) -> None:
    """Saves the note and the tags of the run they were shown for when their field is left."""

    def save_note(of: dict[str, Any] | None, text: str) -> Any:
        of = of or {}
        digest = actions.save_note(context, of, text or "")
        return gr.skip() if digest == of.get("digest") else {"run": of.get("run"), "digest": digest}

    def save_tags(of: dict[str, Any] | None, text: str) -> str:
        return ", ".join(actions.save_tags(context, str((of or {}).get("run", "")), text or ""))

    note.blur(page.friendly(save_note), [note_of, note], note_of, **ACTION)
    for event in (tags.blur, tags.submit):
        event(page.friendly(save_tags), [note_of, tags], tags, **ACTION)
