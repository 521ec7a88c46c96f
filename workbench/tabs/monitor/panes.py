"""Alerts, events, samples and results of a run as markup. All text of theirs is somebody else's, and escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mygpt2.files import read_json
from mygpt2.inside import SMALL_BYTES, names_inside
from mygpt2.records import number, whole
from mygpt2.run_dir import RunDir
from workbench import html, words
from workbench.jobs import Alert
from workbench.tabs.monitor.told import sentence

SHOWN_ALERTS, SHOWN_TAILS, SHOWN_OTHERS, SHOWN_EVENTS = 30, 3, 5, 200
MARKS = {"error": "wb-bad", "warning": "wb-warn", "info": "wb-muted"}


def alerts(found: Sequence[Alert], focus: str) -> html.Markup:
    """Alerts of the chosen run and the folder, newest first, a crash with its log; then what is wrong with others."""
    own = [alert for alert in found if alert.run in (focus, "")]
    elsewhere = [alert for alert in found if alert.run not in (focus, "") and alert.level == "error"]
    if not own and not elsewhere:
        return html.note("No alerts.")
    parts = [listed(own[:SHOWN_ALERTS]) if own else html.note("No alerts here.")]
    if len(own) > SHOWN_ALERTS:
        parts.append(html.note(f"… and {len(own) - SHOWN_ALERTS} older ones"))
    if elsewhere:
        parts += [html.Markup("<h3>Other runs</h3>"), others(elsewhere)]
    return html.join(parts)


def listed(found: Sequence[Alert]) -> html.Markup:
    """Alerts one below the other; the first few crashes with the end of their log."""
    tails = 0
    items = []
    for alert in found:
        show_tail = bool(alert.log_tail) and tails < SHOWN_TAILS
        tails += show_tail
        items.append(_alert(alert, show_tail))
    return html.Markup(f'<ul class="wb-mon-alerts">{"".join(items)}</ul>')


def others(found: Sequence[Alert]) -> html.Markup:
    """What is wrong with other runs, with a way to each."""
    rows = "".join(
        f'<li class="{MARKS.get(a.level, "wb-muted")}"><button type="button" class="wb-mon-link" data-wb-run='
        f'"{html.escape(a.run)}">{html.escape(a.run)}</button> {_when(a)}: {html.escape(a.text)}</li>'
        for a in found[:SHOWN_OTHERS]
    )
    return html.Markup(f'<ul class="wb-mon-alerts wb-mon-others">{rows}</ul>')


def _when(alert: Alert) -> html.Markup:
    at = "" if alert.step is None else f", step {alert.step:,}"
    return html.join([html.when(alert.time), at])


def _alert(alert: Alert, show_tail: bool) -> str:
    tail = ""
    if show_tail:
        text = html.escape("\n".join(alert.log_tail))
        tail = f'<pre class="wb-log-tail" tabindex="0" aria-label="end of the log">{text}</pre>'
    mark = MARKS.get(alert.level, "")
    return (
        f'<li class="wb-mon-alert wb-mon-alert-{html.escape(alert.level)}"><p><strong class="{mark}">'
        f'{html.escape(alert.kind)}</strong> <span class="wb-muted">{_when(alert)}</span></p>'
        f"<p>{html.escape(alert.text)}</p>{tail}</li>"
    )


def events(found: Sequence[Mapping[str, Any]]) -> html.Markup:
    """What the trainer wrote down, newest first."""
    if not found:
        return html.empty("This run has not written an event yet.")
    rows = [
        (html.when(number(event.get("time")), exact=True), _event(event)) for event in reversed(found[-SHOWN_EVENTS:])
    ]
    told = f"The latest {len(rows)} of {len(found):,} events" if len(found) > len(rows) else f"{len(rows):,} events"
    keys = [f"event-{number}" for number in range(len(found), len(found) - len(rows), -1)]
    return html.table(("Time", "Event"), rows, caption=told if len(rows) > 1 else "1 event", keys=keys)


def _event(event: Mapping[str, Any]) -> html.Markup:
    """A sentence, and behind it everything that the event holds."""
    kind = str(event.get("kind", "?"))
    raw = ", ".join(filter(None, (kind, words.event_text(event))))
    return html.Markup(
        f'<details class="wb-mon-event"><summary>{html.escape(sentence(event))}</summary>'
        f'<p class="wb-muted wb-mono">{html.escape(raw)}</p></details>'
    )


def moments(samples: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[Mapping[str, Any]]]]:
    """Samples by step, ascending; of one step the latest attempt's, in the order of their prompts."""
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        step = whole(sample.get("step"))
        if step is not None:
            by_step.setdefault(step, []).append(sample)
    ordered = []
    for step in sorted(by_step):
        last = max(whole(sample.get("attempt")) or 0 for sample in by_step[step])
        ordered.append((step, [s for s in by_step[step] if (whole(s.get("attempt")) or 0) == last]))
    return ordered


def samples(timeline: Sequence[tuple[int, Sequence[Mapping[str, Any]]]], at: int) -> html.Markup:
    """The samples of the `at`-th moment (from 1), prompts apart from what the model made of them."""
    if not timeline:
        return html.empty(
            "No samples yet.", "The run writes some at regular steps, and when you ask for one under More."
        )
    at = min(max(int(at), 1), len(timeline))
    step, found = timeline[at - 1]
    items = "".join(
        f'<li><p class="wb-mon-sample"><span class="wb-mon-prompt">{html.escape(sample.get("prompt"))}</span>'
        f"{html.escape(sample.get('text'))}</p></li>"
        for sample in found
    )
    seeds = ", ".join(sorted({str(sample.get("seed")) for sample in found}))
    told = f"Step {step:,}, {at} of {len(timeline)}; seed {seeds}; "
    taken = html.when(number(found[-1].get("time")))
    return html.Markup(f'<p class="wb-muted">{html.escape(told)}{taken}</p><ul class="wb-mon-samples">{items}</ul>')


def results(run: RunDir) -> html.Markup:
    """Evaluations of this run's checkpoints, as evals/*.json has them."""
    try:
        names = [name for name in names_inside(run.evals_dir, run.path) if name.endswith(".json")][:500]
    except OSError:
        names = []
    records = ((name, read_json(run.evals_dir / name, run.path, most=SMALL_BYTES)) for name in names)
    rows = [_result(name.removesuffix(".json"), record) for name, record in records if record]
    if not rows:
        return html.empty("No evaluations of this run yet.", "Compare it evaluates its checkpoints.")
    headers = ("Model", "Measured on", "Loss", "Standard error", "Perplexity", "Bits per byte", "Tokens", "HellaSwag",
               "File")  # fmt: skip
    told = f"{len(rows)} {'result' if len(rows) == 1 else 'results'} in evals/"
    return html.table(headers, rows, numeric=(2, 3, 4, 5, 6, 7), caption=told)


def _text_of(protocol: str) -> str:
    """What a person calls the text that a protocol measures."""
    if protocol == "run":
        return "this run's validation text"
    if protocol.startswith("run:"):
        return f"{protocol.removeprefix('run:')}'s validation text"
    return protocol.removeprefix("local:")


def _result(name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    swag = record.get("hellaswag")
    shares = [v.get("acc_norm") for v in swag.values() if isinstance(v, dict)] if isinstance(swag, dict) else []
    return (
        str(record.get("model") or words.NA),
        _text_of(str(record.get("protocol") or words.NA)),
        words.fixed(record.get("loss")),
        words.fixed(record.get("stderr")),
        words.fixed(record.get("perplexity"), 2),
        words.fixed(record.get("bits_per_byte")),
        words.count(record.get("tokens")),
        words.percent(shares[0] if shares else None, 2),
        f"{name}.json",
    )
