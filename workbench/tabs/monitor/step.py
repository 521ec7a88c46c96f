"""The step card: what happened in a step of a run, and the rows that it was trained on, highest loss first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mygpt2.data.beside import fields_of_row
from mygpt2.errors import UserError
from mygpt2.experiments.step import Row, report, seen_of
from mygpt2.records import whole
from mygpt2.run_dir import RunDir, last_record, state_of
from mygpt2.run_dir.lines import TAIL_BYTES
from workbench import html, words
from workbench.context import Context
from workbench.corpus import show
from workbench.corpus.reading import Reading
from workbench.corpus.step import BY_SOURCE, Batch, Line, batch_of, row_of
from workbench.jobs import Alert
from workbench.jobs.reading import muon_times
from workbench.paging import row_at
from workbench.tabs.monitor.histories import Histories
from workbench.tabs.monitor.view import Monitor

AT_ONCE = 12  # rows; the others by a click
MOST_EVENTS = 12

# What stands still of the card; ui_assets/tab-monitor-step.js fills it.
CARD = """
<section class="wb-stepcard" role="dialog" aria-label="Step" hidden>
  <header class="wb-step-top">
    <h3 tabindex="-1" data-step="title"></h3><span class="wb-step-run" data-step="run"></span>
    <span class="wb-step-buttons">
      <button type="button" class="wb-small" data-step="before" title="Previous step">←</button>
      <input type="number" class="wb-step-to" data-step="to" min="1" aria-label="Go to step" title="Go to step (Enter)">
      <button type="button" class="wb-small" data-step="after" title="Next step">→</button>
      <button type="button" class="wb-small" data-step="close" aria-label="Close" title="Close (Esc)">✕</button>
    </span>
  </header>
  <div class="wb-step-body" data-step="body">
    <div data-step="head"></div>
    <div data-step="rows"></div>
    <p class="wb-muted" role="status" data-step="note"></p>
    <p class="wb-step-end"><button type="button" class="wb-small" data-step="more" hidden></button>
    <button type="button" class="wb-mon-link" data-step="data">Open this step in Data</button>
    <button type="button" class="wb-mon-link" data-step="branch">Branch from here</button></p>
  </div>
</section>
"""
CARD_SCRIPT = "window.workbench.step.mount(element, server, (asked) => trigger('act', asked));"


def server_functions(monitor: Monitor) -> list[Callable[[Any], dict[str, Any]]]:
    """What the card in the page may call. Both only read."""
    reading = Reading()

    def step_card(request: Any) -> dict[str, Any]:
        """See `card`; {"problem"} for what there is not."""
        return _answered(lambda asked: card(monitor, asked), request)

    def step_row(request: Any) -> dict[str, Any]:
        """{"markup"} of a row's text; {"problem"} where its documents cannot be read."""
        return _answered(lambda asked: {"markup": row(monitor, reading, asked)}, request)

    return [step_card, step_row]


def _answered(answer: Callable[[Mapping[str, Any]], dict[str, Any]], request: Any) -> dict[str, Any]:
    try:
        return answer(request if isinstance(request, dict) else {})
    except UserError as error:
        return {"problem": str(error)}


def card(monitor: Monitor, asked: Mapping[str, Any]) -> dict[str, Any]:
    """{"run", "step", "head", "rows", "more", "before", "after"}, of `asked` run, step, the row to begin `from`, and
    the `order` of the rows, see `Batch.rows`.

    more: how many rows follow. before, after: the steps beside it, or None. UserError without such a run or step.
    """
    run, step = monitor.context.run(str(asked.get("run", ""))), _step(asked)
    start = max(0, whole(asked.get("from")) or 0)
    last = whole((last_record(run.metrics_file, TAIL_BYTES) or {}).get("step")) or 0
    batch, missing = _batch(monitor.context, run, step)
    newest = max(last, batch.last if batch else 0)
    head = _head(monitor, run, step, batch) if start == 0 else html.Markup("")
    order = str(asked.get("order") or "")
    every = batch.rows(order if batch.sources else "") if batch else ()
    lines = every[start : start + AT_ONCE]
    rows = _rows(batch, lines, start, order) if batch else html.note(missing)
    return {
        "run": run.name, "step": step, "head": head, "rows": rows,
        "more": len(every) - start - len(lines),
        "before": step - 1 if step > 1 else None, "after": step + 1 if step < newest else None,
    }  # fmt: skip


def _step(asked: Mapping[str, Any]) -> int:
    step = whole(asked.get("step"))
    if step is None or step < 1:
        raise UserError(f"step {asked.get('step')!r} is not a step; give a whole number from 1 up")
    return step


def _batch(context: Context, run: RunDir, step: int) -> tuple[Batch | None, str]:
    """The batch, or why it is not known."""
    try:
        context.traced_files(run)
        return batch_of(run, step), ""
    except UserError as error:
        more = "; a run at work writes it every 200 steps and with every checkpoint" if state_of(run).alive else ""
        return None, f"What was in this step is not known: {error}{more}."
    except OSError as error:
        return None, f"What was in this step is not known: the trace cannot be read ({error.strerror or error})."


def _head(monitor: Monitor, run: RunDir, step: int, batch: Batch | None) -> html.Markup:
    """The step's own figures, and what else happened there."""
    row, before = _metrics(run, step), _metrics(run, step - 1)
    if not row and batch:  # not every step is logged
        row = {"loss": batch.loss}
    figures: list[tuple[Any, Any, Any]] = [
        ("Loss", words.fixed(row.get("loss")), _change("loss", row, before)),
        ("Gradient norm", words.fixed(row.get("grad_norm"), 3), _change("grad_norm", row, before)),
        ("Learning rate", words.brief(row.get("lr")), _muon(run, row)),
        ("Tokens so far", words.brief(row.get("tokens")), ""),
    ]
    resumed = None not in (row.get("attempt"), before.get("attempt")) and row["attempt"] != before["attempt"]
    found = _events(monitor.histories, run, step, monitor.context.jobs.alerts(run.name))
    if resumed:
        found.insert(0, html.join([html.chip("resumed", "warn"), f" attempt {row['attempt']} goes on from here"]))
    items = "".join(f"<li>{html.escape(event)}</li>" for event in found[:MOST_EVENTS])
    events = f'<ul class="wb-step-events">{items}</ul>' if items else ""
    return html.join([_why(run, step), html.figures(figures) if row else "", html.Markup(events)])


def _why(run: RunDir, step: int) -> html.Markup:
    """Whether the step's loss stands out, and the likeliest cause, in a sentence or two."""
    try:
        found = report(run, step, look_back=False)
    except UserError:  # the rest of the card says what is missing
        return html.Markup("")
    tone = "spike" if found.spike is not None or found.causes else "calm"
    return html.Markup(f'<p class="wb-step-why wb-step-{tone}">{html.escape(found.sentence)}</p>')


def _muon(run: RunDir, row: Mapping[str, Any]) -> str:
    """Muon's rate, where the logged one is that of AdamW's part alone."""
    lr, times = words.number(row.get("lr")), muon_times(run)
    return "" if lr is None or times is None else f"AdamW part; Muon {words.brief(lr * times)}"


def _metrics(run: RunDir, step: int) -> dict[str, Any]:
    """What metrics.jsonl has of a step; empty for nothing."""
    try:
        return row_at(run, step) or {}
    except OSError:
        return {}


def _change(name: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """How a figure differs from that of the step before."""
    one, other = words.number(now.get(name)), words.number(before.get(name))
    if one is None or other is None:
        return ""
    return f"{one - other:+.3g}".replace("-", "\N{MINUS SIGN}") + f" since step {before['step']:,}"


TONES: dict[str, html.Tone] = {"error": "bad", "warning": "warn"}


def _events(histories: Histories, run: RunDir, step: int, alerts: Sequence[Alert]) -> list[html.Markup]:
    found = []
    for alert in alerts:
        if alert.step == step:
            found.append(html.join([html.chip(alert.kind, TONES.get(alert.level, "neutral")), f" {alert.text}"]))
    for event in histories.events(run):
        kind = str(event.get("kind", ""))
        if whole(event.get("step")) != step or not kind:
            continue
        if kind == "eval":
            text = f"{words.fixed(event.get('loss'))}, {words.fixed(event.get('bits_per_byte'))} bits per byte"
            found.append(html.join([html.chip("validation loss"), f" {text}"]))
        elif kind == "save":
            found.append(html.join([html.chip("checkpoint"), f" {words.bytes_of(event.get('bytes'))} saved"]))
        else:
            tone: html.Tone = "warn" if kind in ("alert", "skipped") else "neutral"
            found.append(html.join([html.chip(kind.replace("_", " "), tone), f" {words.event_text(event)}"]))
    return found


def _rows(batch: Batch, lines: Sequence[Line], start: int, order: str) -> html.Markup:
    """A line for each row, to be unfolded; before the first of all, what they are."""
    places = {source.name: source.place for source in batch.sources}
    known = [line.loss for line in batch.lines if math.isfinite(line.loss)] or [0.0]
    items = html.join(_line(line, places, min(known), max(known)) for line in lines)
    if start:
        return items
    rows, documents = _counted(len(batch.lines), "row"), _counted(batch.documents, "document")
    told = f"{rows} from {documents} of {batch.source}, highest loss first"
    return html.Markup(
        f'<h4 class="wb-step-told">{html.escape(told)}</h4>{_sources(batch, order)}'
        f'<div class="wb-step-rows">{items}</div>'
    )


def _sources(batch: Batch, order: str) -> html.Markup:
    """Of a mixture: each source's rows and their mean loss, as buttons that show its rows alone, and one that sorts."""
    if not batch.sources:
        return html.Markup("")

    def press(of: str, inside: html.Markup) -> html.Markup:
        return html.Markup(
            f'<button type="button" class="wb-small" data-step="order" data-order="{html.escape(of)}" '
            f'aria-pressed="{"true" if of == order else "false"}">{inside}</button>'
        )

    found = []
    for source in batch.sources:
        told = f"{_counted(source.rows, 'row')}, mean {words.fixed(source.loss, 3)}" if source.rows else "no row"
        found.append(press(source.name, html.join([html.dot(source.place), html.Markup(
            f"<b>{html.escape(source.name)}</b> "), told])))  # fmt: skip
    found.append(press(BY_SOURCE, html.escape("Sort by source")))
    group = html.join(found)
    return html.Markup(f'<div class="wb-step-sources" role="group" aria-label="Sources of the rows">{group}</div>')


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _line(line: Line, sources: Mapping[str, int], lowest: float, highest: float) -> html.Markup:
    others = len(line.places) - 1
    more = f" and {others:,} more" if others > 0 else ""
    where = (show.place(line.places[0], line.unit) if line.places else "no document") + more
    dot = html.dot(sources[line.source], line.source) if line.source in sources else ""
    share = (line.loss - lowest) / (highest - lowest) if math.isfinite(line.loss) and highest > lowest else 1.0
    return html.Markup(
        f'<details class="wb-step-row" data-slot="{line.slot}"><summary>'
        f'<span class="wb-step-loss">{html.escape(words.fixed(line.loss, 3))}</span>'
        f'<span class="wb-step-bar" aria-hidden="true"><i style="width:{5 + 95 * share:.1f}%"></i></span>'
        f'<span class="wb-step-where">{dot}{html.escape(where)}</span></summary>'
        f'<div class="wb-row wb-step-text"><p class="wb-muted" role="status">Reading the text …</p></div></details>'
    )


def row(monitor: Monitor, reading: Reading, asked: Mapping[str, Any]) -> html.Markup:
    """The text of the row of a slot, with what stands beside each document. UserError where it cannot be read."""
    run, step, slot = monitor.context.run(str(asked.get("run", ""))), _step(asked), whole(asked.get("slot"))
    traced = reading.traced(monitor.context, run, step)
    batch = batch_of(run, step)
    line = next((line for line in batch.lines if line.slot == slot), None)
    if line is None:
        raise UserError(f"step {step} of run {run.name!r} has no row in slot {asked.get('slot')!r}")
    found = row_of(traced, line.record)
    beside = fields_of_row(traced.opened, line.record)
    warning = html.problem(traced.warning) if traced.warning else html.Markup("")
    told = html.note(f"{show.figures(found)}{show.DOT}{len(found.ids):,} tokens")
    before = _before(run, step, line, line.unit)
    return html.join([warning, told, before, show.text(found, traced.tokenizer, line.unit, beside)])


def _before(run: RunDir, step: int, line: Line, unit: str) -> html.Markup:
    """When the row's documents were trained on before in this run."""
    keys = tuple(zip(line.record["block"], line.record["document"], strict=True))
    seen = seen_of(run, step, [Row(line.slot, line.lane, line.epoch, line.loss, keys, line.places)])
    if seen is None:
        return html.Markup("")
    told = []
    for key, place in zip(keys, line.places, strict=True):
        if was := seen.found.get(key):
            what = "was trained on before" if was.again else "began earlier: a part of it was trained on"
            told.append(f"{show.place(place, unit)} {what} in step {was.step:,}, row loss {words.fixed(was.loss, 3)}")
    since = "" if seen.whole else f" Looked back to step {seen.since:,}."
    return html.note(f"{'; '.join(told) or 'None of its documents was trained on before in this run'}.{since}")
