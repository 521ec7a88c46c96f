"""The monitor tab: the list of runs, the chosen run, its chart, and what can be done with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html
from workbench.charts import LiveChart
from workbench.context import Context
from workbench.evaluations import yardstick
from workbench.page import ACTION, QUIET, Page
from workbench.tabs.monitor import actions, bring, step, table
from workbench.tabs.monitor.export import export
from workbench.tabs.monitor.view import NEEDS, SAVED, Monitor, look

CHOSEN = "() => [window.workbench.monitor.chosen()]"
SHOWN = "() => [window.workbench.monitor.shown()]"  # by the head, to which the buttons belong
SHOWN_AND_QUESTION = "(_, about) => [window.workbench.monitor.shown(), about]"
NOTED = "(of, text) => [window.workbench.monitor.noted(of, text), text]"
# An answer may come once another run is shown, or more was typed: it is then about what the page no longer has.
KEPT = """(kept, of, tags) => kept?.run !== of?.run ? [of, tags] : [
  kept.digest ? { run: kept.run, digest: kept.digest } : of,
  kept.typed === tags ? kept.saved : tags,
]"""

# What stands still of the parts that the page's own script (ui_assets/tab-monitor.js) fills: no data is in here.
LIST = """
<section class="wb-runs" aria-label="Runs">
  <button type="button" class="wb-runs-chooser" aria-expanded="false" aria-controls="wb-runs-fold">
    <span class="wb-muted">Runs</span> <b data-choose></b> <span class="wb-muted" data-choose></span>
    <span class="wb-muted wb-runs-state" data-choose></span></button>
  <div class="wb-runs-fold" id="wb-runs-fold">
  <div class="wb-mon-bar wb-runs-bar">
    <label class="wb-search">Search runs
      <input type="search" placeholder="name, note, tag, state" autocomplete="off"></label>
    <label>Sort by <select>
      <option value="newest">newest</option><option value="state">at work first</option>
      <option value="star">starred first</option><option value="name">name</option><option value="loss">loss</option>
      <option value="share">progress</option><option value="speed">speed</option>
    </select></label>
    <button type="button" class="wb-mon-button" data-wb-table aria-keyshortcuts="l"
      title="All runs as a table (l)">Table</button>
  </div>
  <p class="wb-muted wb-runs-count" role="status"></p>
  <p class="wb-runs-acts wb-hidden" role="group" aria-label="What to do with the ticked runs"><b></b>
    <button type="button" class="wb-mon-link" data-ticked="compare">Compare</button>
    <button type="button" class="wb-mon-link" data-ticked="sample"
      title="The chosen run and the next ticked one, side by side">Sample</button>
    <button type="button" class="wb-mon-link" data-ticked="delete">Delete …</button>
    <button type="button" class="wb-mon-link" data-ticked="none">Untick</button></p>
  <ul class="wb-runs-list"></ul>
  <div class="wb-empty wb-runs-none wb-hidden">
    <p>No run lies in this folder yet.</p>
    <p>Train starts one; a run started in a terminal appears here by itself.</p>
    <p><button type="button" class="wb-mon-button" data-wb-go="train">Go to Train</button></p>
  </div>
  </div>
</section>
"""
LIST_SCRIPT = "window.workbench.monitor.mountList(element);"

LOG = """
<section class="wb-log" aria-label="Log">
  <div class="wb-mon-bar wb-log-bar">
    <label>Log of <select data-log="file"></select></label>
    <label>Search the log <input type="search" data-log="query" autocomplete="off"></label>
    <label class="wb-mon-tick"><input type="checkbox" data-log="follow" checked> Follow</label>
    <span class="wb-muted" role="status" data-log="count"></span>
  </div>
  <pre class="wb-log-text" tabindex="0" role="region" aria-label="Log lines" data-log="text"></pre>
</section>
"""
LOG_SCRIPT = "window.workbench.log.mount(element);"

EXPORT = '<p role="status" class="wb-mon-said" data-export-status></p>'
EXPORT_SCRIPT = "window.workbench.exports.mount(element, server);"


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    part, monitor = partial(page.part, "monitor"), Monitor.over(context)
    table.place(context, page, monitor.index)
    with gr.Row(elem_id="wb-monitor"):
        with gr.Column(scale=2, min_width=300, elem_id="wb-monitor-list"):
            gr.HTML(html_template=LIST, js_on_load=LIST_SCRIPT, apply_default_css=False)
            if not context.read_only:
                bring.place(context, page)
        with gr.Column(scale=5, min_width=320, elem_id="wb-monitor-run"):
            part("head", elem_id="wb-monitor-head")
            buttons, confirm = _buttons()
            part("trouble", elem_id="wb-monitor-trouble")
            chart = LiveChart(context, url=True, yardstick=partial(yardstick.known, context),
                              label="Curves of the chosen runs", elem_id="wb-monitor-chart")  # fmt: skip
            chart.measure(page.friendly(_measurer(context)), None, None, **ACTION)
            with gr.Tabs(elem_id="wb-monitor-panes"):
                fields, all_rows = _panes(part)
            gr.HTML(html_template=EXPORT, js_on_load=EXPORT_SCRIPT, apply_default_css=False,
                    server_functions=[_exporter(context)])  # fmt: skip
        card = gr.HTML(html_template=step.CARD, js_on_load=step.CARD_SCRIPT, apply_default_css=False,
                       server_functions=step.server_functions(monitor), elem_id="wb-monitor-step")  # fmt: skip
    live = page.live("monitor", partial(look, monitor), {"chart": chart, **fields})
    card.act(_opener(page), None, [page.tabs, page.port("data"), page.port("train")], **QUIET)
    slider = fields["slider"]
    gr.on([slider.change, all_rows.change], None, [slider, all_rows], live, js="(at, all) => ({ at, all })", **QUIET)
    page.port("monitor").change(None, page.port("monitor"), None, js="(text) => window.workbench.monitor.open(text)")
    _act(context, page, buttons, confirm)
    _edit(context, page, fields["note"], fields["tags"], fields["note_of"])


def _buttons() -> tuple[dict[str, gr.Button], tuple[gr.Row, gr.Button, gr.Button, gr.Textbox]]:
    """What can be done with the chosen run, and the question before a kill.

    The buttons themselves are out of sight: those of the head and of its menu press them.
    """
    found: dict[str, gr.Button] = {}
    with gr.Row(elem_classes="wb-hidden"):
        for name in NEEDS:
            found[name] = gr.Button(name, elem_id=f"wb-do-{name}")
    with gr.Row(visible=False, elem_classes="wb-mon-actions wb-mon-confirm", elem_id="wb-confirm-kill") as row:
        question = gr.Textbox(visible="hidden", label="run asked about", container=False)
        gr.HTML(html.note("Kill ends every process at once: steps since the last checkpoint are lost."))
        yes = gr.Button("Yes, kill it", size="sm", variant="stop", elem_id="wb-do-kill-yes", min_width=60)
        no = gr.Button("Keep it running", size="sm", elem_id="wb-do-kill-no", min_width=60)
    return found, (row, yes, no, question)


def _panes(part: Callable[..., Any]) -> tuple[dict[str, Any], gr.Checkbox]:
    """What lies below the chart: the fields that the view fills, and a choice; elem_ids tell which pane is open."""

    def tab(name: str, label: str) -> gr.Tab:
        return gr.Tab(label, elem_id=f"wb-pane-{name}", render_children=True)

    with tab("log", "Log"):
        gr.HTML(html_template=LOG, js_on_load=LOG_SCRIPT, apply_default_css=False)
    with tab("samples", "Samples"):
        slider = gr.Slider(1, 2, value=1, step=1, visible=False, label="Moment (the last is the newest)",
                           elem_id="wb-sample-at", buttons=[])  # fmt: skip
        part("samples", elem_id="wb-monitor-samples")
    with tab("notes", "Notes"):
        note = gr.Textbox(label="Note (notes.md)", lines=6, max_lines=20, info=SAVED,
                          elem_id="wb-note", interactive=False)  # fmt: skip
        tags = gr.Textbox(label="Tags", info="Words with commas between them; the list's search finds them.",
                          elem_id="wb-tags", interactive=False)  # fmt: skip
        note_of = gr.JSON(visible=False)
    with tab("settings", "Settings"):
        all_rows = gr.Checkbox(False, label="Also settings that are the same", elem_id="wb-all-settings")
        part("settings", elem_id="wb-monitor-settings")
    with tab("results", "Results"):
        part("results", elem_id="wb-monitor-results")
    with tab("events", "Events"):
        part("alerts", elem_id="wb-monitor-alerts")
        part("events", elem_id="wb-monitor-events")
    with tab("details", "Details"):
        part("details", elem_id="wb-monitor-details")
    return {"slider": slider, "note": note, "tags": tags, "note_of": note_of}, all_rows


def _measurer(context: Context) -> Callable[[gr.EventData], None]:
    def measure(event: gr.EventData) -> None:
        gr.Info(yardstick.measure(context, str(event._data["run"])), duration=5)

    return measure


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


def _act(context: Context, page: Page, buttons: Mapping[str, gr.Button], confirm: tuple[Any, ...]) -> None:
    """Wires the buttons. A run's name comes from the page with every click."""
    row, yes, no, question = confirm
    focus = question  # any would do as the input whose place the name takes

    def do(
        button: gr.Button, action: Callable[..., str], inputs: Any = focus, js: str = SHOWN, tell: Any = _told
    ) -> None:
        act = page.friendly(partial(tell, action))
        done = button.click(act, inputs, None, js=js, trigger_mode="multiple", **ACTION)
        done.then(**page.acted("monitor"))

    for how in ("save", "now"):
        do(buttons[how], partial(_stop, context, how), tell=_done)
    for what in ("save", "sample"):
        do(buttons[f"{what}_now"], partial(_ask, context, what))
    do(buttons["resume"], partial(actions.resume, context))
    do(buttons["star"], partial(actions.star, context))
    do(yes, partial(actions.confirm_kill, context), [focus, question], SHOWN_AND_QUESTION, _done)
    buttons["kill"].click(lambda run: [gr.Row(visible=True), run], focus, [row, question], js=SHOWN, **QUIET)
    for button in (yes, no):
        button.click(lambda: gr.Row(visible=False), None, row, **QUIET)
    sent = (("branch", "train", "branch"), ("train", "train", "from_run"), ("sample", "sample", "model_a"),
            ("compare", "compare", "models"), ("ripples", "ripples", "run"))  # fmt: skip
    for name, tab, key in sent:
        js = CHOSEN if name == "compare" else SHOWN
        send = buttons[name].click(partial(_send, page, tab, key), focus, page.outputs(tab), js=js, **QUIET)
        send.then(**page.acted("monitor"))
    pair = page.friendly(partial(_send_pair, page))
    buttons["pair"].click(pair, focus, page.outputs("ripples"), js=CHOSEN, **ACTION)


def _told(action: Callable[..., str], *values: Any) -> None:
    gr.Info(action(*values), duration=5)


def _done(action: Callable[..., str], *values: Any) -> None:
    """Without a word: the head shows what comes of it."""
    action(*values)


def _stop(context: Context, how: Any, run: str) -> str:
    return actions.stop(context, run, how)


def _ask(context: Context, what: str, run: str) -> str:
    return actions.ask(context, run, what)


def _send(page: Page, tab: str, key: str, value: str) -> list[Any]:
    return page.go(tab, **{key: value})


def _opener(page: Page) -> Callable[..., Any]:
    def open_there(event: gr.EventData) -> list[Any]:  # a partial would hide the event from Gradio
        asked = event._data if isinstance(event._data, dict) else {}
        run, step = (str(asked.get(key, "")) for key in ("run", "step"))
        if asked.get("to") == "train":
            return [gr.Tabs(selected="train"), gr.skip(), page.ask(branch=run, at=step)]
        return [*page.go("data", run=run, step=step), gr.skip()]

    return open_there


def _send_pair(page: Page, chosen: str) -> list[Any]:
    """The first two runs of the chart, compared where their noise cancels."""
    first, _, rest = chosen.partition(",")
    if not first or not rest:
        raise UserError("only one run is ticked; tick a second one in the list to compare the two step against step")
    return page.go("ripples", part="pair", first=first, second=rest.partition(",")[0])


def _edit(context: Context, page: Page, note: gr.Textbox, tags: gr.Textbox, note_of: gr.JSON) -> None:
    """Saves the note and the tags of the run they were shown for when their field is left."""
    kept = gr.JSON(visible="hidden", label="as saved")

    def save_note(of: dict[str, Any] | None, text: str) -> dict[str, Any]:
        of = of or {}
        digest = actions.save_note(context, of, text or "")
        return {"run": of.get("run"), "digest": digest, "nonce": secrets.token_hex(4)}

    def save_tags(of: dict[str, Any] | None, text: str) -> dict[str, Any]:
        run = str((of or {}).get("run", ""))
        saved = ", ".join(actions.save_tags(context, run, text or ""))
        return {"run": run, "typed": text, "saved": saved, "nonce": secrets.token_hex(4)}

    each: dict[str, Any] = {"trigger_mode": "multiple", **ACTION}  # none is left out while the one before is saved
    note.blur(page.friendly(save_note), [note_of, note], kept, js=NOTED, **each)
    for event in (tags.blur, tags.submit):
        event(page.friendly(save_tags), [note_of, tags], kept, **each)
    kept.change(None, [kept, note_of, tags], [note_of, tags], js=KEPT, **QUIET)
