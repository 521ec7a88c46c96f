"""A report as the page shows it: the verdict first, then its tables, and what two runs have of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mygpt2.ripples import summary
from mygpt2.ripples.plot import Plot, axis_of
from mygpt2.ripples.report import Report
from mygpt2.ripples.words import interval
from workbench import html
from workbench.html import Markup, escape

UNKNOWN = (
    "No period of the data is known. Say above what is known of the log (its dataset, or tokens per file), and analyse "
    "again."
)
NO_TRACE = (
    "Attribution needs a run with a trace (log.trace) over parquet files on this machine, with dump, score, length or "
    "language score as columns."
)


def verdict(report: Report) -> Markup:
    """The card: the sentence, and the same in numbers."""
    state, head = summary.head(report)
    rows = summary.numbers(report)
    body = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in rows)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    below = f'<ul class="wb-muted wb-notes">{notes}</ul>' if notes else ""
    return Markup(
        f'<section class="wb-card wb-verdict wb-verdict-{state}" aria-label="Verdict"><h3>{head}: '
        f'{escape(report.name)}</h3><div class="wb-verdict-both"><p class="wb-verdict-words">{escape(report.verdict)}'
        f"</p><dl>{body}</dl></div>{below}</section>"
    )


def tables(report: Report) -> Markup:
    """All tables of a report of which something can be said, and what is missing for those that are empty."""
    if not report.can_say:
        return Markup("")
    missing = [html.note(UNKNOWN)] if not report.candidates else []
    parts = [*missing, *map(_table, summary.tables(report))]
    parts += [html.note(NO_TRACE)] if not report.attribution else []
    return Markup(f'<div class="wb-ripples-tables">{html.join(parts)}</div>')


def _table(table: summary.Table) -> Markup:
    if not table.rows:
        return Markup("")
    below = html.note(table.below) if table.below else ""
    return html.join([html.table(table.headers, table.rows, table.numeric, table.caption), below])


def pair(report: Mapping[str, Any]) -> Markup:
    """Two runs, step against step."""
    need = report["steps_to_resolve"]
    ratio = report.get("noise_ratio")
    rows: Sequence[tuple[str, Any]] = [
        ("difference over the last quarter (nats)", f"{report['difference']:+.5f} {interval(report['interval'])}"),
        ("steps in common", f"{report['steps']:,}"),
        ("same data order", "yes" if report["same_order"] else "no"),
        ("residuals correlate", f"{report['correlation']:.4f}"),
        (f"steps until {need['nats']:g} nats is resolved", f"{need['paired']:,} paired, {need['unpaired']:,} not"),
        ("noise that pairing takes away", "n/a" if ratio is None else f"{ratio:.1f} times"),
    ]
    card = html.card(f"{report['first']} − {report['second']}", rows, report["verdict"])
    return html.join([card, difference(report)])


def difference(report: Mapping[str, Any]) -> Markup:
    """First minus second over the run, with its interval."""
    curve = report["curve"]
    at, mean, low, high = ([piece[key] for piece in curve] for key in ("step", "difference", "low", "high"))
    plot = Plot(axis_of(at, "step"), axis_of([*low, *high], "nats", zero=True, pad=0.05))
    plot.band(at, low, high, "raw", "interval at 95 %")
    plot.line(at, mean, "raw", f"{report['first']} − {report['second']}")
    plot.horizontal(0.0, "limit")
    desc = f"the difference is {report['difference']:+.4f} nats over the last quarter"
    return Markup(plot.figure("Difference over the run", desc, wide=True))
