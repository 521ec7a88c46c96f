"""The periods of a report that can be chosen, each with the part of it that is shaded on the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mygpt2.ripples.report import Report
from mygpt2.ripples.words import amount, chance, steps

MOST, MOST_BELOW = 6, 2  # peaks of the periodogram beside the main one; of those that noise has as well
APART = 0.07  # of the periodogram's axis between two peaks, so that each can be pressed
NEAR = 0.06  # periods that differ by less are one


@dataclass(frozen=True)
class Peak:
    """A period with a name. `origin` is the step at which a crest begins: half of each period is shaded from there."""

    key: str
    label: str
    period: float
    amplitude: float
    origin: float
    height: float  # where it stands in the periodogram of the whole run

    @property
    def shade(self) -> dict[str, Any]:
        """As the live chart takes it."""
        return {"period": self.period, "phase": self.origin, "share": 0.5, "unit": "step"}

    def spans(self, first: float, last: float, most: int = 150) -> list[tuple[float, float]]:
        """The shaded stretches between two steps; none where there are more than can be told apart."""
        if (last - first) / self.period > most:
            return []
        k = math.floor((first - self.origin) / self.period)
        found = []
        while (start := self.origin + k * self.period) < last:
            found.append((max(first, start), min(last, start + self.period / 2)))
            k += 1
        return [(a, b) for a, b in found if b > a]


def peaks(report: Report) -> list[Peak]:
    """What was found first, then candidates that fit or stand out, then the periodogram's highest, each period once."""
    figures = report.figures
    shown = (figures.get("periodogram") or {}).get("period_steps") or [1.0]
    apart = APART * math.log(max(shown) / min(shown))
    found: list[Peak] = []

    def add(key: str, what: str, period: float | None, amplitude: float | None, origin: float | None = None) -> None:
        near = max(NEAR, apart if key.startswith("peak") else 0.0)
        if not period or any(abs(math.log(period / other.period)) < near for other in found):
            return
        label = f"{steps(period)} steps, {amount(amplitude)} nats: {what}"
        begin = _crest(figures, period) if origin is None else origin
        found.append(Peak(key, label, period, amplitude or 0.0, begin, _height(figures, period)))

    if report.significant:
        add("found", f"the ripple ({chance(report.p_value)})", report.period_steps, report.amplitude,
            _crest_of_line(report))  # fmt: skip
    for number, part in enumerate(report.drift):
        where = f"steps {part['from_step']:,.0f} to {part['to_step']:,.0f}"
        add(f"drift-{number}", where, part["period_steps"], part["amplitude"])
    for number, known in enumerate(report.candidates):
        if known["p_value"] is not None and known["p_value"] < 0.05:
            what = f"{known['name']} ({chance(known['p_value'])})"
            add(f"known-{number}", what, known["period_steps"], known["amplitude"])
    for number, (period, amplitude, over) in enumerate(_highest(figures)):
        what = "above the noise's level" if over else "below the noise's level"
        add(f"peak-{number}", what, period, amplitude)
    return found


def _highest(figures: Mapping[str, Any]) -> list[tuple[float, float, bool]]:
    """(period, amplitude, above the level) of the local peaks that stand highest over the null's mean."""
    shown = figures.get("periodogram")
    if not shown:
        return []
    period, amplitude, null, level = (shown[key] for key in ("period_steps", "amplitude", "null", "level"))
    tops = [
        i for i in range(len(amplitude))
        if amplitude[i] >= max(amplitude[max(0, i - 4) : i + 5]) and null[i] > 0
    ]  # fmt: skip
    tops.sort(key=lambda i: -amplitude[i] / null[i])
    span = math.log(max(period) / min(period)) or 1.0
    found: list[tuple[float, float, bool]] = []
    for i in tops:
        over = amplitude[i] > level[i]
        near = any(abs(math.log(period[i] / other)) < APART * span for other, _, _ in found)
        if not near and (over or sum(not above for _, _, above in found) < MOST_BELOW):
            found.append((period[i], amplitude[i], over))
    return found[:MOST]


def _height(figures: Mapping[str, Any], period: float) -> float:
    """The periodogram's largest value within a few hundredths of a period."""
    shown = figures.get("periodogram") or {"period_steps": [], "amplitude": []}
    pairs = zip(shown["period_steps"], shown["amplitude"], strict=True)
    return max((y for x, y in pairs if abs(math.log(x / period)) < NEAR / 2), default=0.0)


def _crest_of_line(report: Report) -> float | None:
    """The step at which the upper half of the fitted line begins: its phase 0 is where its stretch begins."""
    folded = report.figures.get("folded")
    if not folded or not folded.get("fit"):
        return None
    start = (report.between_steps or [report.signal["first_step"]])[0]
    wave = folded["fit"][:-1]
    angle = math.atan2(
        sum(v * math.sin(2 * math.pi * i / len(wave)) for i, v in enumerate(wave)),
        sum(v * math.cos(2 * math.pi * i / len(wave)) for i, v in enumerate(wave)),
    )
    return float(start + (angle / (2 * math.pi) - 0.25) * report.period_steps)


def _crest(figures: Mapping[str, Any], period: float) -> float:
    """The same for another period, from the residual's points as they are shown."""
    shown = figures.get("residual")
    if not shown or not shown["step"]:
        return 0.0
    turn = 2 * math.pi / period
    pairs = [(x, y) for x, y in zip(shown["step"], shown["value"], strict=True) if y is not None]
    angle = math.atan2(sum(y * math.sin(turn * x) for x, y in pairs), sum(y * math.cos(turn * x) for x, y in pairs))
    return (angle / (2 * math.pi) - 0.25) * period
