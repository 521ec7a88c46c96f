"""A report as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from mygpt2.ripples.report import Report
from mygpt2.ripples.words import chance, megabytes, one_line, size

WIDTH = 100


def report_text(report: Report) -> str:
    """The verdict, then what it rests on, a section each."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield one_line(report.name)
    yield from textwrap.wrap(one_line(report.verdict), WIDTH)
    if report.can_say:
        yield from _section("candidates", _candidates(report))
        yield from _section("data read again", _repetition(report))
        yield from _section("what a row's documents explain", _attribution(report))
        yield from _section("forecast", _forecast(report))
    yield from _section("notes", (one_line(note) for note in report.notes))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield f"\n{title}"
        yield from (f"  {line}" for line in found)


def _candidates(report: Report) -> Iterator[str]:
    for c in report.candidates:
        period = size(c["period_tokens"]) if c["period_tokens"] else ""
        steps = f"{c['period_steps']:,.5g} steps" if c["period_steps"] else ""
        said = c["reason"] or f"{chance(c['p_value'])}, {c['amplitude']:.4f} nats, on {c['tested_on']}"
        ratio = f"; found period = {c['ratio']:.3f} of it" if c["ratio"] is not None else ""
        mark = "  <- fits" if c["fits"] else ""
        yield f"{c['name']:<28} {period:>22} {steps:>16}  {said}{ratio}{mark}"


def _repetition(report: Report) -> Iterator[str]:
    found = report.repetition
    if found:
        lag = size(found["lag_tokens"]) if found["lag_tokens"] else f"{found['lag_steps']:.5g} steps"
        one, two = found["thirds"]
        if found["found"]:
            yield (
                f"yes: correlation {found['correlation']:+.2f} at {lag}, {found['near_by']:+.2f} near by, {one:+.2f} "
                f"and {two:+.2f} at a third and two thirds of it; {chance(found['p_value'])}"
            )
            return
        first, last = found["lags_steps"]
        yield (
            f"no sign of it at any lag from {first:,.0f} to {last:,.0f} steps, where a correlation of "
            f"{found['limit']:.2f} would have been seen; the likest, {lag}, has {found['correlation']:+.2f}, against "
            f"{found['near_by']:+.2f} near by"
        )


def _attribution(report: Report) -> Iterator[str]:
    found = report.attribution
    if not found:
        return
    yield f"{found['rows']:,} rows, {found['row_groups']:,} row groups; together R2 = {found['r2']:.3f}"
    width = max((16, *(len(item["name"]) for item in found["properties"])))
    for item in found["properties"]:
        yield f"{item['name']:<{width}} partial R2 = {item['partial_r2']:.4f}  {chance(item['p_value'])}"
    if found["ripple_left"] is not None:
        yield f"without them {100 * found['ripple_left']:.0f} % of the ripple are left"


def _forecast(report: Report) -> Iterator[str]:
    for row in report.forecast:
        memory = "" if row["memory_bytes"] is None else f"{megabytes(row['memory_bytes'])} MB"
        amplitude = f"{row['amplitude']:.5f} nats" if row["periodic"] else "none"
        yield f"{row['order']:<34} {amplitude:>14} {memory:>14}  {row['note']}"


def comparison_text(report: dict[str, Any]) -> str:
    """A paired comparison as text."""
    lines = textwrap.wrap(one_line(report["verdict"]), WIDTH)
    lines += ["", f"{'step':>10} {'difference':>11}  95 % interval"]
    lines += [
        f"{p['step']:>10.0f} {p['difference']:>+11.5f}  [{p['low']:+.5f}, {p['high']:+.5f}]" for p in report["curve"]
    ]
    return "\n".join(lines)
