"""Which model is best on a text, and whether that can be trusted: a sentence with numbers. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.html import Tone
from workbench.tabs.compare.groups import (
    METRICS,
    NORMAL_95,
    SCORINGS,
    Bar,
    Set,
    accuracy_bars,
    bars,
    error_between,
    paired_error,
    resolved,
)

CHECKPOINT = re.compile(r"(?P<run>.+)/step-0*(?P<step>\d+)(?P<rest>.*)")
MOST_TEXT = 200  # times as much text: beyond, nobody would measure it


@dataclass(frozen=True)
class Answer:
    """`chip` in a word or two, `words` in a sentence, `more`: what would tell, or what the error does not cover.

    `pair`: two runs that step against step may be told apart.
    """

    tone: Tone
    chip: str
    words: str
    more: str = ""
    pair: tuple[str, str] | None = None
    again: tuple[str, ...] = ()  # models that measured here would tell apart better


@dataclass(frozen=True)
class _Unit:
    name: str
    scale: float = 1.0
    digits: int = 4

    def text(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}"


def answer(chosen: Set) -> Answer:
    """Of what was measured; what is quoted is left aside, as its error is not known."""
    shown, unit = _shown(chosen)
    measured = [bar for bar in shown if not bar.quoted]
    if not measured:
        return Answer("neutral", "Nothing measured", "There are only quoted figures here.")
    best, name = measured[0], Names(chosen)
    of = f"{unit.text(best.value)} {unit.name}"
    if len(measured) == 1:
        give = "" if best.stderr is None else f", with a standard error of {unit.text(best.stderr)}"
        return Answer("neutral", "One model", f"{name(best.label)} alone is measured here: {of}{give}.",
                      "Measure another model on the same text to have something to compare.")  # fmt: skip
    second = measured[1]
    by, error = abs(second.value - best.value), error_between(second, best)
    ahead = f"{name(best.label)} is first of {len(measured)} with {of}, {unit.text(by)} ahead of {name(second.label)}"
    if error is None:
        return Answer("warn", "Error not known", f"{ahead}; how much of that is chance is not known.",
                      "A text of several documents has an error to judge by.")  # fmt: skip
    doubtful = [bar for bar in measured[1:] if not resolved(bar, best)]
    if not doubtful:
        ratio = by / error if error else math.inf  # 0: every document differs by the same
        times = "many" if ratio > 1e6 else f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
        return Answer(
            "good", "Clear", f"{name(best.label)} is the best of {len(measured)} with {of}: {unit.text(by)} ahead of "
            f"{name(second.label)}, {times} times the standard error of that difference ({unit.text(error)}).",
            "You can trust that for this text. The error covers the choice of text; another seed can move a run too.",
        )  # fmt: skip
    names = [name(bar.label) for bar in (best, *doubtful)]
    together = f"{', '.join(names[:-1])} and {names[-1]}"
    again = () if paired_error(second, best) is not None else tuple(_runs(best, second))
    hint = "Measured here, document by document, their difference has a far smaller error." if again else ""
    more = hint or _what_would_tell(by, error)
    return Answer(
        "warn", "Not clear", f"{together} cannot be told apart: {unit.text(by)} {unit.name} lie between the first two, "
        f"with a standard error of {unit.text(error)}.", more, _pair(best, second), again,
    )  # fmt: skip


class Names:
    """How a model is called in a set: a run by its name where one of its checkpoints alone is there."""

    def __init__(self, chosen: Set) -> None:
        found = [m for result in chosen.results if (m := CHECKPOINT.fullmatch(result.model))]
        steps: dict[str, set[str]] = {}
        for m in found:
            steps.setdefault(m["run"], set()).add(m["step"])
        self._single = {run for run, those in steps.items() if len(those) == 1}

    def __call__(self, label: str) -> str:
        m = CHECKPOINT.fullmatch(label)
        if m is None:
            return label
        step = "" if m["run"] in self._single else f" at step {int(m['step']):,}"
        return f"{m['run']}{step}{m['rest']}"


def _shown(chosen: Set) -> tuple[Sequence[Bar], _Unit]:
    """The bars that the answer goes by: of HellaSwag the scoring that others quote."""
    if chosen.is_text:
        return bars(chosen), _Unit("nats per token" if chosen.unit == "loss" else "bits per byte")
    for scoring in reversed(SCORINGS):
        for metric in reversed(METRICS):
            if found := accuracy_bars(chosen, scoring, metric):
                return found, _Unit(f"% ({scoring} {metric})", 100.0, 2)
    return [], _Unit("")


def _what_would_tell(by: float, error: float) -> str:
    """The standard error falls with the root of the amount of text."""
    times = (NORMAL_95 * error / by) ** 2 if by else float("inf")
    if times > MOST_TEXT:
        return "They may well be equal: no text of a practical size would tell."
    return f"About {times:,.0f} times as much text would tell." if times >= 2 else "Twice as much text would tell."


def _runs(best: Bar, second: Bar) -> list[str]:
    """The checkpoints that two bars are of, where both are of runs and can be measured again."""
    models = [bar.result.model for bar in (best, second) if bar.result]
    return models if len(models) == 2 and all(map(CHECKPOINT.fullmatch, models)) else []


def _pair(best: Bar, second: Bar) -> tuple[str, str] | None:
    """Two different runs; checkpoints of one are not two."""
    runs = [model.partition("/")[0] for model in _runs(best, second)]
    return (runs[0], runs[1]) if runs and runs[0] != runs[1] else None
