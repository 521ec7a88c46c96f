"""A report in words and tables: the verdict first, then candidates, attribution, forecast, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench import html
from workbench.html import Markup, escape
from workbench.tabs.ripples.figures import difference, tokens_or_steps
from workbench.tabs.ripples.words import amount, chance, interval, memory, steps, tokens

Report = Mapping[str, Any]


def verdict(report: Report) -> Markup:
    """The card: the sentence, and the same in numbers."""
    sentence = f'<p class="wb-verdict-words">{escape(report.get("verdict") or "")}</p>'
    state = "found" if report.get("significant") else "none" if report.get("can_say") else "unknown"
    head = {"found": "A ripple", "none": "No ripple", "unknown": "Nothing can be said"}[state]
    rows = _numbers(report) if report.get("can_say") else []
    body = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in rows)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.get("notes") or [])
    name = escape(report.get("name"))
    told = f'<ul class="wb-muted wb-notes">{notes}</ul>' if notes else ""
    return Markup(
        f'<section class="wb-card wb-verdict wb-verdict-{state}" aria-label="Verdict"><h3>{head}: {name}</h3>'
        f'<div class="wb-verdict-both">{sentence}<dl>{body}</dl></div>{told}</section>'
    )


def _numbers(report: Report) -> list[tuple[str, Any]]:
    found = bool(report["significant"])
    limit, signal = report.get("detection_limit"), report.get("signal") or {}
    rows: list[tuple[str, Any]] = []
    recurs = report.get("pulses") or {}
    if recurs:
        rows += _pulses(recurs)
    if found:
        unit = " tokens" if report["period_ci_unit"] == "tokens" else " steps"
        low, high = report["period_ci"]
        between = f" [{tokens(low)}, {tokens(high)}]{unit}"
        rows.append(("period, interval at 95 %", tokens_or_steps(report) + between))
        share, part = report.get("share_of_file"), report.get("part_of_file")
        exact = f" (1/{part})" if part else ""
        of_file = "the length of a file is not known" if share is None else f"{share:.3f}{exact}"
        rows.append(("share of a file", of_file))
        rows.append(("semi-amplitude (nats)", f"{amount(report['amplitude'])} {interval(report['amplitude_ci'])}"))
    rows.append(("p, the whole search counted", chance(report["p_value"])))
    if found:
        slow = report.get("share_of_slow_variance")
        rows.append(("share of slow variance", "n/a" if slow is None else f"{slow:.0%}"))
        rows.append(("validation shows it", _validation(report.get("validation"))))
        rows.append(("what would remove it", _remedy(report)))
    if limit and not found:
        words = f"{amount(limit['amplitude'])} nats at {steps(limit['period_steps'])} steps"
        rows.append(("would have been seen from", words))
    if signal:
        first, last = signal["first_step"], signal["last_step"]
        rows.append(("steps", f"{first:,.0f} to {last:,.0f}, {signal['points']:,} points"))
    return rows


def _pulses(found: Report) -> list[tuple[str, Any]]:
    """What recurs and is no wave."""
    kind = {"pulse": "pulses", "again": "the same rough stretch again", "wave": "a curve of many harmonics"}
    rows: list[tuple[str, Any]] = [(kind.get(found["kind"], "recurs"), f"every {steps(found['period_steps'])} steps")]
    if found["kind"] == "pulse":
        long = f"{found['width_steps']:.3g} step{'s' if found['width_steps'] >= 2 else ''}"
        rows.append(("height (nats), length", f"{found['height']:+.3g} {interval(found['height_ci'])}, {long}"))
        rows.append(("first at step", f"{found['first_step']:,.0f}"))
    cause = found["cause"] or "nothing that is known to be done so often"
    rows.append(("cause", cause))
    return rows


def _validation(found: Report | None) -> str:
    if found is None:
        return "not measured often enough to say"
    word = "yes" if found["p_value"] < 0.05 else "no"
    return f"{word} ({amount(found['amplitude'])} nats, {chance(found['p_value'])})"


def _remedy(report: Report) -> str:
    recurs = report.get("pulses") or {}
    if recurs.get("main") and recurs.get("kind") == "pulse":
        return f"no order of the data: see what is done at {recurs['cause']}" if recurs["cause"] else "see the verdict"
    rows = report.get("forecast") or []
    best = next((row for row in rows if not row["periodic"]), None)
    if best is None:
        return "n/a" if not rows else min(rows, key=lambda row: row["amplitude"])["order"]
    return f"data.order = lanes ({best['order']}, {memory(best['memory_bytes'])}): no line is left"


def candidates(report: Report) -> Markup:
    """Known periods of the data, each tested as such."""
    rows: list[tuple[Any, ...]] = []
    for known in report.get("candidates") or []:
        period = tokens_or_steps(known)
        ratio = "" if known["ratio"] is None else f"{known['ratio']:.3g}"
        if known["p_value"] is None:
            rows.append((known["name"], period, "not tested", "", ratio, known["reason"]))
            continue
        word = "this is the ripple's period" if known["fits"] else f"tested on {known['tested_on']}"
        rows.append((known["name"], period, chance(known["p_value"]), amount(known["amplitude"]), ratio, word))
    if not rows:
        return html.note(
            "No period of the data is known. Say above what is known of the log (its dataset, or tokens per file), and "
            "analyse again."
        )
    headers = ("period of", "length", "p", "nats", "found / known", "")
    return html.table(headers, rows, numeric={2, 3, 4}, caption="Candidates: periods that the data's layout offers")


def attribution(report: Report) -> Markup:
    """What documents' properties explain of the rows' losses."""
    found = report.get("attribution")
    if not found:
        return html.note(
            "Attribution needs a run with a trace (log.trace) over parquet files on this machine, with dump, score, "
            "length or language score as columns."
        )
    rows = [(p["name"], f"{p['partial_r2']:.2%}", chance(p["p_value"])) for p in found["properties"]]
    left = found.get("ripple_left")
    after = "" if left is None else f" With them taken away, {left:.0%} of the ripple's amplitude is left."
    words = f"Together they explain {found['r2']:.1%} of the losses of {found['rows']:,} rows.{after}"
    caption = f"Attribution: partial R² of document properties, clustered by {found['row_groups']:,} row groups"
    table = html.table(("property", "partial R²", "p"), rows, numeric={1, 2}, caption=caption)
    return html.join([table, html.note(words)])


def forecast(report: Report) -> Markup:
    """What each order would leave."""
    rows = []
    for row in report.get("forecast") or []:
        left = f"{amount(row['amplitude'])} {interval(row['amplitude_ci'])}" if row["periodic"] else "no line"
        rows.append((row["order"], left, amount(row["peak_to_peak"]), memory(row["memory_bytes"]), row["note"]))
    if not rows:
        return Markup("")
    headers = ("order", "amplitude left (nats)", "peak to peak", "memory", "")
    return html.table(headers, rows, numeric={1, 2, 3}, caption="Forecast: what other orders would leave of it")


def drift(report: Report) -> Markup:
    """Stretches in which a period stands out by itself."""
    rows = [
        (f"{part['from_step']:,.0f} to {part['to_step']:,.0f}", tokens_or_steps(part), amount(part["amplitude"]),
         chance(part["p_value"]))
        for part in report.get("drift") or []
    ]  # fmt: skip
    if not rows:
        return Markup("")
    return html.table(("steps", "period", "nats", "p"), rows, numeric={2, 3}, caption="Stretches where it stands out")


def tables(report: Report) -> Markup:
    """All tables of a report of which something can be said."""
    if not report.get("can_say"):
        return Markup("")
    parts = [candidates(report), drift(report), forecast(report), attribution(report)]
    return Markup(f'<div class="wb-ripples-tables">{html.join(parts)}</div>')


def pair(report: Report) -> Markup:
    """Two runs, step against step."""
    need = report["steps_to_resolve"]
    ratio = report.get("noise_ratio")
    rows: Sequence[tuple[str, Any]] = [
        ("difference over the last quarter (nats)", f"{report['difference']:+.5f} {interval(report['interval'], 3)}"),
        ("steps in common", f"{report['steps']:,}"),
        ("same data order", "yes" if report["same_order"] else "no"),
        ("residuals correlate", f"{report['correlation']:.4f}"),
        (f"steps until {need['nats']:g} nats is resolved", f"{need['paired']:,} paired, {need['unpaired']:,} not"),
        ("noise that pairing takes away", "n/a" if ratio is None else f"{ratio:.1f} times"),
    ]
    card = html.card(f"{report['first']} − {report['second']}", rows, report["verdict"])
    return html.join([card, difference(report)])
