"""What a look says, as the card shows it: a verdict in a word and in a sentence, intervals to draw, what would decide.

A look is a record of a file: whoever reads one here is ready for `looks.BROKEN`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from mygpt2.experiments.telling import headline, verdict_text
from mygpt2.records import number, whole
from workbench import words
from workbench.html import Markup, Tone

Look = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """One line of the drawing, in nats per token: a mean, its interval of 95 %, and the wider one that decided."""

    label: str
    mean: float
    low: float
    high: float
    wide: tuple[float, float] | None = None
    note: str = ""
    main: bool = False


@dataclass(frozen=True)
class Answer:
    """A look in words. `chip` is the verdict in a word; `figures` are (label, value, a small line below).

    `arms`: what each arm is, by its name; `why`: why some were stopped early; `text`: all of it as a terminal has it.
    """

    chip: str
    tone: Tone
    headline: str
    intervals: Sequence[Interval] = ()
    figures: Sequence[tuple[str, str, str]] = ()
    decide: Sequence[str] = ()
    lines: Sequence[str] = ()
    notices: Sequence[str] = ()
    decides: str = "What would decide it, nine times in ten"
    title: str = "Difference, variant less base"
    sides: tuple[str, str] = ("variant better", "variant worse")
    legend: str = "thick: 95 % interval"
    drawn: Markup | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


TONES: Mapping[str, Tone] = {"keep": "good", "drop": "bad", "undecided": "warn"}


# Is it better?


def judged(look: Look) -> Answer:
    """A verdict of `judge`."""
    found = cast("dict[str, Any]", look)
    verdict = str(found["verdict"])
    lines = verdict_text(found).splitlines()[1:]
    decide = [line.strip() for line in lines if line.startswith("  ")]
    notices = [line.removeprefix("Note: ") for line in lines if line.startswith("Note: ")]
    rest = [line for line in lines if not line.startswith(("  ", "Note: ", "What would decide"))]
    return Answer(
        verdict,
        TONES[verdict],
        headline(found),
        _judged_intervals(found),
        _judged_figures(found),
        decide,
        rest,
        notices,
    )


def _judged_intervals(found: Mapping[str, Any]) -> list[Interval]:
    if not found["validation"]:
        return []
    main = found["validation"]
    over = "pairs of seeds" if main["over"] == "replicates" else "documents"
    count = len(found["replicates"]) if main["over"] == "replicates" else main["documents"]
    wide = (float(main["interval"][0]), float(main["interval"][1])) if main["level"] is not None else None
    low, high = main["interval95"]
    lines = [
        Interval("Held-out text", float(main["mean"]), float(low), float(high), wide, f"over {count:,} {over}", True)
    ]
    if len(found["replicates"]) > 1:
        for pair in found["replicates"]:
            mean, error = float(pair["difference"]), float(pair["error"])
            seeds = f"seeds {pair['data_seed']} and {pair['model_seed']}, over documents"
            lines.append(
                Interval(f"Pair {pair['number']}", mean, mean - 1.96 * error, mean + 1.96 * error, None, seeds)
            )
    if part := found["training"]:
        low, high = part["interval95"]
        note = f"last quarter, over {part['count']:,} {'steps' if part['how'] == 'steps' else 'documents'}"
        lines.append(Interval("Training losses", float(part["mean"]), float(low), float(high), None, note))
    return lines


def _judged_figures(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    ledger = found["ledger"]
    number_of, challengers = whole(ledger.get("number")) or 0, whole(ledger.get("challengers"))
    asked = f"{challengers:,} different variants" if challengers and challengers > 1 else ""
    of = words.percent(ledger["budget"], 0)
    spent = f"{words.percent(ledger['spent'], 2)} of the {of} chance of any false verdict is spent"
    figures = []
    if main := found["validation"]:
        low, high = main["interval95"]
        figures = [
            ("Variant less base", f"{main['mean']:+.4f}", f"nats per token, 95 %: {low:+.4f} to {high:+.4f}"),
            ("Chance of it by luck", _p(found["p"]), f"decides at or below {_p(found['level'])}"),
        ]
    told = f"{number_of:,}" if number_of else "none"
    figures.append(("Questions about this base", told, "; ".join(filter(None, (asked, spent)))))
    cost = found["cost"]
    figures.append(
        ("Cost so far", words.seconds(cost["seconds"]), f"{cost['runs']} runs, {words.brief(cost['tokens'])} tokens")
    )
    return figures


def _p(value: Any) -> str:
    found = number(value)
    return words.NA if found is None else f"{found:.2g}" if found >= 1e-4 else f"{found:.0e}"
