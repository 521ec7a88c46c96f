"""What the tab leads with: the verdict in a sentence, and three figures: the period, the amplitude, the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mygpt2.ripples import summary
from mygpt2.ripples.report import Report
from mygpt2.ripples.words import amount, chance, memory, steps, tokens
from workbench import html
from workbench.html import Markup, Tone, escape
from workbench.words import count

TONES: dict[str, Tone] = {"found": "warn", "none": "good", "unknown": "neutral"}
LANES = "data.order=lanes"  # as Train takes it


@dataclass(frozen=True)
class Remedy:
    """What would take a ripple away: a word or two, a sentence, and the settings of a new run, "" where none would."""

    short: str
    words: str
    settings: str = ""


def lead(report: Report, run: str) -> Markup:
    """The first thing to be seen of a report. `run`: one of this folder, whose settings Train begins with, or ""."""
    state, head = summary.head(report)
    chip = html.chip(head, TONES[state])
    said = f'<p class="wb-verdict-words">{chip} {escape(sentence(report))}</p>'
    three = html.figures([_period(report), _amplitude(report), _fix(report, run)]) if report.can_say else ""
    return Markup(
        f'<section class="wb-verdict wb-verdict-{state}" aria-label="Verdict"><h3>{escape(report.name)}</h3>{said}'
        f"{three}</section>"
    )


def sentence(report: Report) -> str:
    """The verdict in one sentence of plain English; of a log of which nothing can be said, why."""
    recurs = report.pulses or {}
    if not report.can_say:
        return report.verdict
    if not report.significant:
        return _nothing(report)
    every = f"{steps(report.period_steps)} steps"
    if not recurs.get("main"):
        return (
            f"The loss rises and falls by {amount(report.amplitude)} nats every {every}{_cause(report)} "
            f"({chance(report.p_value)})."
        )
    p = chance(recurs["p_value"])
    if recurs["kind"] == "pulse":
        cause = f", together with {recurs['cause']}" if recurs["cause"] else ""
        way = "jumps" if recurs["height"] > 0 else "drops"
        return f"The loss {way} by {abs(recurs['height']):.3g} nats every {every}{cause} ({p})."
    if recurs["kind"] == "again":
        return f"The same rough stretch of loss comes again every {every}, as if the same data were read again ({p})."
    return f"The loss repeats one shape, which is not a plain wave, every {every}{_cause(report)} ({p})."


def _nothing(report: Report) -> str:
    found = searched(report)
    if found is None:
        return f"No period stands out from the noise ({chance(report.p_value)})."
    shortest, longest, most = found
    return (
        f"Any period from {_long(shortest)} to {_long(longest)} steps with an amplitude over {amount(most)} nats would "
        f"have stood out ({chance(report.p_value)})."
    )


def searched(report: Report) -> tuple[float, float, float] | None:
    """(shortest period, longest period, nats from which any of them would have been called significant)."""
    shown = report.figures.get("periodogram") or {}
    if not shown.get("period_steps") or not shown.get("level"):
        return None
    return min(shown["period_steps"]), max(shown["period_steps"]), max(shown["level"])


def _long(x: float) -> str:
    """A length in steps, with a decimal only where it says something."""
    return f"{x:,.0f}" if x >= 100 or x == round(x) else f"{x:.1f}"


def _cause(report: Report) -> str:
    """What the period belongs to, where that is known."""
    fits = [known["name"] for known in report.candidates if known["fits"]]
    if fits:
        return f", which is the length of {' and '.join(fits)}"
    share = report.share_of_file
    if share is None:
        return ""
    part = f"1/{report.part_of_file}" if report.part_of_file else f"{share:.3g}"
    return f", which is {part} of a file" if share < 1 else f", which is {share:.3g} files"


def _period(report: Report) -> tuple[str, Any, Any]:
    if not report.significant:
        found = searched(report)
        return "Period", "none", f"searched: {_long(found[0])} to {_long(found[1])} steps" if found else ""
    document = (report.layout or {}).get("document_tokens")
    parts = [f"{tokens(report.period_tokens)} tokens" if report.period_tokens else ""]
    parts.append(f"{count(report.period_tokens / document)} documents" if report.period_tokens and document else "")
    parts.append(f"{report.share_of_file:.3f} of a file" if report.share_of_file else "")
    if report.period_ci_steps:
        low, high = report.period_ci_steps
        parts.append(f"95 %: {steps(low)} to {steps(high)} steps")
    parts.append(f"drifts from {steps(report.drift[0]['period_steps'])} to {steps(report.drift[-1]['period_steps'])}"
                 if len(report.drift) > 1 else "")  # fmt: skip
    return "Period", f"{steps(report.period_steps)} steps", _lines(parts)


def _amplitude(report: Report) -> tuple[str, Any, Any]:
    if not report.significant:
        found = searched(report)
        return "Amplitude", f"< {amount(found[2])} nats" if found else "not seen", chance(report.p_value)
    recurs = report.pulses or {}
    p = chance(report.p_value)
    if recurs.get("main") and recurs["kind"] == "pulse":
        low, high = recurs["height_ci"]
        long = f"{recurs['width_steps']:.3g} step{'s' if recurs['width_steps'] >= 2 else ''} long"
        return "Height", f"{recurs['height']:+.3g} nats", _lines([f"95 %: {low:+.3g} to {high:+.3g}", long, p])
    between = [f"95 %: {amount(report.amplitude_ci[0])} to {amount(report.amplitude_ci[1])}"]
    if report.between_steps:
        first, last = report.between_steps
        between.append(f"in steps {count(first)} to {count(last)}")
    return "Amplitude", f"±{amount(report.amplitude)} nats", _lines([*between, p])


def _fix(report: Report, run: str) -> tuple[str, Any, Any]:
    found = remedy(report)
    button = ""
    if found.settings:
        button = html.button("train", f"{run} {found.settings}".strip(), "Open in Train",
                             f"Open in Train with {found.settings}", "wb-small wb-small-primary")  # fmt: skip
    return "Remedy", found.short, html.join([Markup(f"<span>{escape(found.words)}</span> "), button])


def remedy(report: Report) -> Remedy:
    """What to change. Only the order of the data is a setting; what the program does is told in words."""
    if not report.significant:
        return Remedy("none needed", "Leave the order of the data as it is.")
    recurs = report.pulses or {}
    if recurs.get("main") and recurs["kind"] == "pulse":
        what = f"at {recurs['cause']}" if recurs["cause"] else f"every {steps(recurs['period_steps'])} steps"
        return Remedy("not the data", f"No order of the data removes it: look at what the program does {what}.")
    if recurs.get("main") and recurs["kind"] == "again":
        return Remedy("more data", "The same text comes round: a larger set, or a single pass, would end it.")
    lanes = next((row for row in report.forecast if not row["periodic"]), None)
    if lanes is not None:
        size = memory(lanes["memory_bytes"])
        return Remedy("read in lanes", f"Set data.order to lanes: nothing of it is left, for {size} of memory.", LANES)
    if (report.layout or {}).get("order") == "lanes":
        return Remedy("not known", "The data is read in lanes already, so its order is not where this comes from.")
    return Remedy("not known", "Give the tokens per step under Settings, and what other orders leave can be forecast.")


def _lines(parts: list[str]) -> Markup:
    return Markup("<br>".join(escape(part) for part in parts if part))
