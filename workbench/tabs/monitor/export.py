"""What can be taken away of a run: all points as CSV, the settings as TOML, a report as one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from mygpt2.errors import UserError
from mygpt2.inside import SMALL_BYTES
from mygpt2.run_dir import RunDir, read_events, read_inside, state_of
from workbench import html, words
from workbench.charts.table import points_csv
from workbench.jobs import Alert
from workbench.tabs.monitor import diff, panes
from workbench.tabs.monitor.details import figures_of
from workbench.tabs.monitor.glance import glance
from workbench.tabs.monitor.labels import read_labels

KINDS = ("csv", "config", "report")
MAX_PICTURE_BYTES = 8 << 20
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b2530; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #dde2e6; }
img { max-width: 100%; } table { border-collapse: collapse; font-size: 0.85rem; } .wb-muted { color: #54616f; }
td, th { text-align: left; padding: 0.15rem 0.6rem; border-bottom: 1px solid #eee; overflow-wrap: anywhere; }
pre, .wb-mon-sample { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f7f5; padding: 0.5rem; }
pre { font-size: 0.8rem; } .wb-mon-prompt { font-weight: 600; } .wb-bad { color: #a8251b; } .wb-warn { color: #8a5300; }
ul { padding-left: 1.2rem; } .wb-number { text-align: right; }
"""


def export(run: RunDir, what: str, alerts: Sequence[Alert] = ()) -> dict[str, str]:
    """{"name", "type", "text"} of a file for the browser to save. UserError for what there is not."""
    if what == "csv":
        return {"name": f"{run.name}.csv", "type": "text/csv", "text": points_csv(run)}
    if what == "config":
        return {"name": f"{run.name}.toml", "type": "application/toml", "text": _settings(run)}
    if what == "report":
        return {"name": f"{run.name}.html", "type": "text/html", "text": report(run, alerts)}
    raise UserError(f"export {what!r} is not known; allowed: {', '.join(KINDS)}")


def _settings(run: RunDir) -> str:
    try:
        return read_inside(run.config_file, run.path, most=SMALL_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"the settings of run {run.name!r} cannot be read: {error}") from None


def report(run: RunDir, alerts: Sequence[Alert]) -> str:
    """One file that stands alone: no script, no link to anywhere."""
    from mygpt2.run_dir import read_records

    state, events, labels = state_of(run), read_events(run), read_labels(run)
    timeline = panes.moments(read_records(run.samples_file))
    figures = [("State", f"{state.state}{f' ({state.reason})' if state.reason else ''}")]
    figures += figures_of(glance(run, state, events))
    figures += [("Started", words.moment(state.status.get("started"))), ("Tags", ", ".join(labels.tags) or "none")]
    sections: list[tuple[str, html.Markup]] = [
        ("Numbers", html.table(("", ""), figures)),
        ("Curves", _picture(run)),
        ("Note", html.Markup(f"<pre>{html.escape(labels.note)}</pre>") if labels.note else html.note("none")),
        ("Alerts", panes.alerts([alert for alert in alerts if alert.run == run.name], run.name)),
        ("Results", panes.results(run)),
        ("Samples of the last step", panes.samples(timeline, len(timeline))),
        ("Settings", html.table(("Setting", "Value"), list(diff.facts(run).items()))),
        ("Evaluations during training", html.table(("Step", "Protocol", "Loss", "Bits/byte"), _evaluations(events))),
    ]
    body = "".join(f"<section><h2>{html.escape(title)}</h2>{content}</section>" for title, content in sections)
    title = html.escape(f"Run {run.name}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )


def _picture(run: RunDir) -> html.Markup:
    try:
        picture = read_inside(run.plot_file, run.path, most=MAX_PICTURE_BYTES)
    except OSError:
        return html.note("There is no loss_plot.png yet.")
    if not picture.startswith(b"\x89PNG"):
        return html.note("loss_plot.png is not a picture.")
    data = base64.b64encode(picture).decode()
    return html.Markup(f'<img alt="Training and validation loss over steps" src="data:image/png;base64,{data}">')


def _evaluations(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            words.count(e.get("step")),
            str(e.get("protocol")),
            *(words.fixed(e.get(k)) for k in ("loss", "bits_per_byte")),
        )
        for e in events
        if e.get("kind") == "eval"
    ]
