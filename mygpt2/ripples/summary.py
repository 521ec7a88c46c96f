"""A report in numbers and tables of text, for the page and for the exported file: each in its own markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt2.ripples.report import Report
from mygpt2.ripples.words import amount, chance, interval, memory, steps, tokens

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of text; `numeric` columns are set to the right. `below`: a sentence on what it says."""

    caption: str
    headers: Row
    rows: Sequence[Row]
    numeric: frozenset[int]
    below: str = ""


def head(report: Report) -> tuple[str, str]:
    """(found, none or unknown; the same in words)."""
    if report.significant:
        return "found", "A ripple"
    return ("none", "No ripple") if report.can_say else ("unknown", "Nothing can be said")


def numbers(report: Report) -> list[Row]:
    """(label, value) of what the verdict says, and of what it rests on."""
    if not report.can_say:
        return []
    found, limit, signal = report.significant, report.detection_limit, report.signal
    rows = _pulses(report.pulses) if report.pulses else []
    if found:
        low, high = report.period_ci
        between = f" [{tokens(low)}, {tokens(high)}] {report.period_ci_unit}"
        rows.append(("period, interval at 95 %", period(vars(report)) + between))
        share = report.share_of_file
        exact = f" (1/{report.part_of_file})" if report.part_of_file else ""
        of_file = "the length of a file is not known" if share is None else f"{share:.3f}{exact}"
        rows.append(("share of a file", of_file))
        rows.append(("semi-amplitude (nats)", f"{amount(report.amplitude)} {interval(report.amplitude_ci)}"))
    rows.append(("p, the whole search counted", chance(report.p_value)))
    if found:
        slow = report.share_of_slow_variance
        rows.append(("share of slow variance", "n/a" if slow is None else f"{slow:.0%}"))
        rows.append(("validation shows it", _validation(report.validation)))
        rows.append(("what would remove it", _remedy(report)))
    if limit and not found:
        words = f"{amount(limit['amplitude'])} nats at {steps(limit['period_steps'])} steps"
        rows.append(("would have been seen from", words))
    if signal:
        first, last = signal["first_step"], signal["last_step"]
        rows.append(("steps", f"{first:,.0f} to {last:,.0f}, {signal['points']:,} points"))
    return rows


def _pulses(found: Mapping[str, Any]) -> list[Row]:
    """What recurs without being a wave."""
    kind = {"pulse": "pulses", "again": "the same rough stretch again", "wave": "a curve of many harmonics"}
    rows = [(kind.get(found["kind"], "recurs"), f"every {steps(found['period_steps'])} steps")]
    if found["kind"] == "pulse":
        long = f"{found['width_steps']:.3g} step{'s' if found['width_steps'] >= 2 else ''}"
        rows.append(("height (nats), length", f"{found['height']:+.3g} {interval(found['height_ci'])}, {long}"))
        rows.append(("first at step", f"{found['first_step']:,.0f}"))
    return [*rows, ("cause", found["cause"] or "nothing that is known to be done so often")]


def _validation(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not measured often enough to say"
    word = "yes" if found["p_value"] < 0.05 else "no"
    return f"{word} ({amount(found['amplitude'])} nats, {chance(found['p_value'])})"


def _remedy(report: Report) -> str:
    recurs = report.pulses or {}
    if recurs.get("main") and recurs.get("kind") == "pulse":
        return f"no order of the data: see what is done at {recurs['cause']}" if recurs["cause"] else "see the verdict"
    rows = report.forecast
    best = next((row for row in rows if not row["periodic"]), None)
    if best is None:
        return "n/a" if not rows else min(rows, key=lambda row: row["amplitude"])["order"]
    return f"data.order = lanes ({best['order']}, {memory(best['memory_bytes'])}): no line is left"


def period(found: Mapping[str, Any]) -> str:
    """The period of a report, a candidate or a stretch, in tokens where they are known."""
    if found.get("period_tokens"):
        return f"{tokens(found['period_tokens'])} tokens ({steps(found['period_steps'])} steps)"
    return f"{steps(found.get('period_steps'))} steps"


def candidates(report: Report) -> Table:
    """Known periods of the data, each tested as such."""
    rows: list[Row] = []
    for known in report.candidates:
        ratio = "" if known["ratio"] is None else f"{known['ratio']:.3g}"
        tested = known["p_value"] is not None
        word = "this is the ripple's period" if known["fits"] else f"tested on {known['tested_on']}"
        rows.append((
            known["name"], period(known), chance(known["p_value"]) if tested else "not tested",
            amount(known["amplitude"]) if tested else "", ratio, word if tested else known["reason"],
        ))  # fmt: skip
    headers = ("period of", "length", "p", "nats", "found / known", "")
    return Table("Candidates: periods that the data's layout offers", headers, rows, frozenset((2, 3, 4)))


def drift(report: Report) -> Table:
    """Stretches in which a period stands out by itself."""
    rows = [
        (f"{part['from_step']:,.0f} to {part['to_step']:,.0f}", period(part), amount(part["amplitude"]),
         chance(part["p_value"]))
        for part in report.drift
    ]  # fmt: skip
    return Table("Stretches where it stands out", ("steps", "period", "nats", "p"), rows, frozenset((2, 3)))


def forecast(report: Report) -> Table:
    """What each order would leave."""
    rows = []
    for row in report.forecast:
        left = f"{amount(row['amplitude'])} {interval(row['amplitude_ci'])}" if row["periodic"] else "no line"
        rows.append((row["order"], left, amount(row["peak_to_peak"]), memory(row["memory_bytes"]), row["note"]))
    headers = ("order", "amplitude left (nats)", "peak to peak", "memory", "")
    return Table("Forecast: what other orders would leave of it", headers, rows, frozenset((1, 2, 3)))


def attribution(report: Report) -> Table:
    """What documents' properties explain of the rows' losses."""
    found = report.attribution or {"properties": [], "row_groups": 0, "r2": 0.0, "rows": 0}
    rows = [(p["name"], f"{p['partial_r2']:.2%}", chance(p["p_value"])) for p in found["properties"]]
    left = found.get("ripple_left")
    after = "" if left is None else f" With them taken away, {left:.0%} of the ripple's amplitude is left."
    words = f"Together they explain {found['r2']:.1%} of the losses of {found['rows']:,} rows.{after}"
    caption = f"Attribution: partial R² of document properties, clustered by {found['row_groups']:,} row groups"
    return Table(caption, ("property", "partial R²", "p"), rows, frozenset((1, 2)), words)


def tables(report: Report) -> list[Table]:
    """All tables, those without rows too; none of a report of which nothing can be said."""
    return [candidates(report), drift(report), forecast(report), attribution(report)] if report.can_say else []
