"""What stands below the lead: the technique behind folds, and what two runs have of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mygpt2.ripples import summary
from mygpt2.ripples.drawings import figure
from mygpt2.ripples.plot import Plot, axis_of
from mygpt2.ripples.report import Report
from mygpt2.ripples.words import interval
from workbench import html
from workbench.html import Markup, escape

UNKNOWN = (
    "No period of the data is known. Say under Settings what is known of the log (its dataset, or tokens per file), "
    "and measure again."
)
NO_TRACE = (
    "Which documents raise the loss can be told of a run with a trace (log.trace): of a mixture by source, and of "
    "parquet files on this machine that have dump, score, length or language score as columns."
)


def folds(report: Report) -> Markup:
    """The figures and tables behind the verdict, each fold a question; what is missing says so."""
    if not report.can_say:
        return Markup("")
    origin = [
        _table(summary.candidates(report)) or html.note(UNKNOWN), _figures(report, "by_place_in_file"),
        _table(summary.attribution(report)) or html.note(NO_TRACE),
    ]  # fmt: skip
    parts = [
        _fold("Where it comes from" if report.significant else "Known periods, each tested", origin),
        _fold("Does it change over the run?", [_figures(report, "sliding"), _table(summary.drift(report))]),
        _fold("Its shape, and whether data was read again", [_figures(report, "folded", "autocorrelation")]),
        _fold("What other orders would leave", [_figures(report, "forecast"), _table(summary.forecast(report))]),
        _fold("All numbers and notes", [_numbers(report)]),
    ]
    return html.join(parts)


def _fold(title: str, content: Sequence[Markup]) -> Markup:
    body = html.join(content)
    if not body:
        return body
    return Markup(
        f'<details class="wb-fold" data-key="{escape(title)}"><summary>{escape(title)}</summary>{body}</details>'
    )


def _figures(report: Report, *names: str) -> Markup:
    found = "".join(figure(report, name) for name in names)
    return Markup(f'<div class="figs">{found}</div>' if found else "")


def _table(table: summary.Table) -> Markup:
    if not table.rows:
        return Markup("")
    below = html.note(table.below) if table.below else ""
    return html.join([html.table(table.headers, table.rows, table.numeric, table.caption), below])


def _numbers(report: Report) -> Markup:
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in summary.numbers(report)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    below = f'<ul class="wb-muted wb-notes">{notes}</ul>' if notes else ""
    return Markup(f'<div class="wb-card"><p>{escape(report.verdict)}</p><dl>{rows}</dl>{below}</div>')


def pair(report: Mapping[str, Any]) -> Markup:
    """Two runs, step against step."""
    need, ratio = report["steps_to_resolve"], report.get("noise_ratio")
    three = [
        ("Difference", f"{report['difference']:+.5f} nats", f"last quarter, 95 %: {interval(report['interval'])}"),
        (f"Steps until {need['nats']:g} nats is resolved", f"{need['paired']:,}",
         f"step against step; {need['unpaired']:,} without"),
        ("Noise that pairing takes away", "n/a" if ratio is None else f"{ratio:.1f} times",
         f"residuals correlate {report['correlation']:.4f} over {report['steps']:,} steps; "
         f"{'the same' if report['same_order'] else 'not the same'} data order"),
    ]  # fmt: skip
    head = f"{report['first']} − {report['second']}"
    said, of, more = report["verdict"].partition(" Their batches ")
    return Markup(
        f'<section class="wb-verdict" aria-label="Verdict on two runs"><h3>{escape(head)}</h3>'
        f'<p class="wb-verdict-words">{escape(said)}</p>'
        f"{html.figures(three)}{html.note(of + more)}</section>{difference(report)}"
    )


def difference(report: Mapping[str, Any]) -> str:
    """First minus second over the run, with its interval."""
    curve = report["curve"]
    at, mean, low, high = ([piece[key] for piece in curve] for key in ("step", "difference", "low", "high"))
    plot = Plot(axis_of(at, "step"), axis_of([*low, *high], "nats", zero=True, pad=0.05))
    plot.band(at, low, high, "raw", "interval at 95 %")
    plot.line(at, mean, "raw", f"{report['first']} − {report['second']}")
    plot.horizontal(0.0, "limit")
    desc = f"the difference is {report['difference']:+.4f} nats over the last quarter"
    return plot.figure("Difference over the run", desc, wide=True)
