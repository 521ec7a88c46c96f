"""The figures of a report as markup, for the page and for the exported file, in the report's own units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

from mygpt2.ripples.plot import Axis, Plot, axis_of
from mygpt2.ripples.report import Report
from mygpt2.ripples.words import amount, chance, memory, steps

Shown = dict[str, Any]  # what one figure draws: see figures.py


class Period(Protocol):
    """A period that can be chosen on a page: a button in the periodogram, stripes on the loss."""

    @property
    def key(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def period(self) -> float: ...

    @property
    def height(self) -> float: ...

    def spans(self, first: float, last: float) -> list[tuple[float, float]]: ...


def all_figures(report: Report) -> str:
    """Everything but the loss itself, in the order in which a person asks."""
    names = ("periodogram", "residual", "sliding", "folded", "by_place_in_file", "autocorrelation", "forecast")
    parts = [figure(report, name) for name in names]
    return f'<div class="figs">{"".join(parts)}</div>' if any(parts) else ""


def figure(report: Report, name: str, *, known: Sequence[Period] = (), shaded: Period | None = None) -> str:
    """One figure by its name in the report, "" where there is nothing to draw.

    `known`: periods that are buttons in the periodogram; `shaded`: the one that is shaded on the residual.
    """
    shown = report.figures.get(name)
    if not shown:
        return ""
    match name:
        case "periodogram":
            return periodogram(shown, known, report)
        case "residual":
            return residual(shown, shaded)
        case "sliding":
            return sliding(shown)
        case "by_place_in_file":
            return by_place(shown)
        case _:
            return {"folded": folded, "autocorrelation": autocorrelation, "forecast": forecast}[name](shown, report)


def loss(report: Report, shaded: Period | None = None) -> str:
    """The loss of a log with its trend, and the chosen period shaded on it."""
    series = report.figures.get("series")
    if not series or not series["step"]:
        return ""
    x = axis_of(series["step"], "step")
    values = sorted(v for v in [*series["loss"], *series["trend"]] if v is not None)
    # Spikes would press everything else into a line: the axis leaves the highest two in a hundred out.
    y = axis_of([values[0], values[int(0.98 * (len(values) - 1))]], "loss (nats)", pad=0.03)
    plot = Plot(x, y)
    if shaded is not None:
        plot.stripes(shaded.spans(x.low, x.high), "shade")
    plot.line(series["step"], series["loss"], "raw", "loss")
    plot.line(series["step"], series["trend"], "fit", "trend")
    checked = report.figures.get("validation")
    if checked:
        plot.line(checked["step"], checked["loss"], "other", "validation")
    what = f" with the period of {shaded.label} shaded" if shaded is not None else ""
    desc = f"from {values[-1]:.3f} to {series['loss'][-1]:.3f} nats over steps {x.low:,.0f} to {x.high:,.0f}{what}"
    too_many = shaded is not None and not shaded.spans(x.low, x.high)
    note = "The chosen period is too short to be told apart here; a range of steps above shows it." if too_many else ""
    return plot.figure("Loss", desc, note, wide=True)


def residual(shown: Shown, shaded: Period | None = None) -> str:
    """The loss without its trend, with a period shaded on it."""
    plot = Plot(axis_of(shown["step"], "step"), axis_of(shown["value"], "nats", pad=0.05))
    if shaded is not None:
        plot.stripes(shaded.spans(plot.x.low, plot.x.high), "shade")
    plot.line(shown["step"], shown["value"], "raw")
    low, high = min(shown["value"]), max(shown["value"])
    desc = f"the loss without its descent lies between {low:.3g} and {high:.3g} nats"
    return plot.figure("Residual: the loss without its descent", desc)


def periodogram(shown: Shown, known: Sequence[Period], report: Report) -> str:
    """Amplitude by period, with the null's mean and level; its peaks are buttons."""
    period, amplitude, level = shown["period_steps"], shown["amplitude"], shown["level"]
    most = max(amplitude, default=1.0)
    plot = Plot(
        axis_of(period, "period (steps)", log=True), Axis(0.0, 1.12 * max(most, min(level, default=0)), False, "nats")
    )
    plot.line(period, shown["null"], "other", "noise, on average")
    name = f"reached by chance once in {1 / (shown.get('level_p') or 0.05):.0f} runs"
    plot.line(period, [min(v, 1.2 * plot.y.high) for v in level], "limit", name)
    plot.line(period, amplitude, "raw", "this loss")
    for peak in known:
        plot.dot(peak.period, min(peak.height, plot.y.high), f"Shade {peak.label}", peak=peak.key)
    if report.significant and not known:
        plot.vertical(report.period_steps, "fit", "the ripple")
    over = sum(a > b for a, b in zip(amplitude, level, strict=True))
    found = f"the highest is at {steps(report.period_steps)} steps" if report.period_steps else ""
    desc = (
        f"amplitude by period; {over} of {len(amplitude)} points are above the level that noise rarely reaches; {found}"
    )
    return plot.figure("Periodogram", desc, "Press a point to shade its period on the other curves." if known else "")


def sliding(shown: Shown) -> str:
    """Amplitude by period and time."""
    edges, windows, rows = shown["period_steps"], shown["window_steps"], shown["amplitude"]
    if not windows:
        return ""
    x = axis_of([v for window in windows for v in window], "step")
    plot = Plot(x, axis_of(edges, "period (steps)", log=True))
    middles = [(a + b) / 2 for a, b in windows]
    between = [(a + b) / 2 for a, b in pairwise(middles)]
    columns = list(zip([x.low, *between], [*between, x.high], strict=True))
    spans = list(pairwise(edges))
    plot.cells(columns, spans, rows)
    plot.line(middles, shown["best_period_steps"], "fit", "the clearest period of each window")
    first, last = shown["best_period_steps"][0], shown["best_period_steps"][-1]
    desc = f"the clearest period is {steps(first)} steps in the first window and {steps(last)} steps in the last"
    return plot.figure("Sliding spectrum", desc, "Darker is a larger amplitude.")


def folded(shown: Shown, report: Report) -> str:
    """The residual by phase of the period that was found."""
    low = [a - b for a, b in zip(shown["mean"], shown["error"], strict=True)]
    high = [a + b for a, b in zip(shown["mean"], shown["error"], strict=True)]
    plot = Plot(Axis(0.0, 1.0, False, "phase of the period"), axis_of([*low, *high, *shown["fit"]], "nats", pad=0.05))
    plot.band(shown["phase"], low, high, "raw")
    plot.line(shown["phase"], shown["mean"], "raw", "mean ± its error")
    plot.line(shown["fit_phase"], shown["fit"], "fit", "fitted wave")
    name = f"Folded at {steps(report.period_steps)} steps"
    desc = f"mean residual by phase, between {min(shown['mean']):.3g} and {max(shown['mean']):.3g} nats"
    note = "" if report.significant else "This period does not stand out from noise."
    return plot.figure(name, desc, note)


def by_place(shown: Shown) -> str:
    """Loss above the trend by place in the file, and as two buffers would leave it."""
    there = [(p, m, e) for p, m, e in zip(shown["place"], shown["mean"], shown["error"], strict=True) if m is not None]
    if not there:
        return ""
    place, mean, error = (list(column) for column in zip(*there, strict=True))
    low, high = ([m + k * e for m, e in zip(mean, error, strict=True)] for k in (-1, 1))
    plot = Plot(Axis(0.0, 1.0, False, "place in the file, 0 to 1"), axis_of([*low, *high], "nats", pad=0.05))
    plot.band(place, low, high, "raw")
    plot.line(place, mean, "raw", "mean ± its error")
    for look, (name, values) in zip(("fit", "other"), (shown.get("under_buffer") or {}).items(), strict=False):
        plot.line(shown["place"], values, look, f"behind a buffer of {name}")
    between = f"between {min(mean):.3g} and {max(mean):.3g} nats"
    desc = f"mean loss above the trend by place, {between}, of {shown['rows']:,} rows"
    return plot.figure("Folded by place in the file", desc)


def autocorrelation(shown: Shown, report: Report) -> str:
    """How the residual is like itself, with the lag of one pass."""
    plot = Plot(
        axis_of(shown["lag_steps"], "lag (steps)", zero=True),
        axis_of([*shown["value"], *shown["without_line"]], "correlation", zero=True, pad=0.05),
    )
    error = shown["error"]
    plot.band([plot.x.low, plot.x.high], [-error, -error], [error, error], "limit", "± two errors of noise")
    plot.line(shown["lag_steps"], shown["value"], "raw", "residual")
    if report.significant:
        plot.line(shown["lag_steps"], shown["without_line"], "other", "without the ripple")
    again = report.repetition
    desc = "correlation of the residual with itself by lag"
    note = ""
    if again:
        plot.vertical(again["lag_steps"], "fit", "one pass" if again["known"] else "a whole number of periods")
        word = "the same data was most likely read again" if again["found"] else "no sign that data was read again"
        note = (
            f"At {steps(again['lag_steps'])} steps it is {again['correlation']:.2f}, near by {again['near_by']:.2f}: "
            f"{word} ({chance(again['p_value'])})."
        )
    return plot.figure("Autocorrelation and repetition", desc, note)


def forecast(shown: Shown, report: Report) -> str:
    """What a buffer of any size would leave, and the other orders, against memory."""
    rows = [row for row in report.forecast if row["memory_bytes"]]
    sizes = [*shown["memory_bytes"], *(row["memory_bytes"] for row in rows)]
    top = max([*shown["amplitude"], *(row["amplitude"] for row in rows)], default=1.0)
    plot = Plot(
        axis_of(sizes, "memory (bytes)", log=True), Axis(-0.04 * top, 1.1 * top, False, "amplitude left (nats)")
    )
    plot.line(shown["memory_bytes"], shown["amplitude"], "raw", "shuffle buffer of any size")
    now = next((row for row in report.forecast if row["memory_bytes"] is None), None)
    if now:
        plot.horizontal(now["amplitude"], "limit", "as measured")
    for row in rows:
        words = f"{row['order']}: {amount(row['amplitude'])} nats, {memory(row['memory_bytes'])}"
        plot.dot(row["memory_bytes"], row["amplitude"], words, look="main" if row["periodic"] else "good")
    desc = f"amplitude left against memory, from {amount(top)} nats down to none with lanes"
    return plot.figure("Forecast: amplitude against memory", desc, "Points are the orders of the table below.")
