"""A figure as markup: curves in an SVG that stretches with its box, words beside it that do not.

No script; every figure has a title and a description in words. Whoever shows one gives STYLE its colours, for light
and dark: --fig-1, --fig-2, --fig-3 (curves), --fig-ink, --fig-dim, --fig-rule, --fig-edge, --fig-paper, --fig-good and
--fig-accent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from mygpt2.format import short

WIDTH, HEIGHT = 1000.0, 400.0
Pairs = Sequence[tuple[float, float]]
STYLE = Path(__file__).with_name("figures.css")


@dataclass(frozen=True)
class Axis:
    """From data to 0 ... 1. `log` takes logarithms; bounds are data."""

    low: float
    high: float
    log: bool = False
    label: str = ""

    def at(self, x: float) -> float:
        low, high, x = (math.log10(max(v, 1e-300)) if self.log else v for v in (self.low, self.high, x))
        return min(2.0, max(-1.0, (x - low) / (high - low))) if high > low else 0.5

    def ticks(self) -> list[float]:
        return _decades(self.low, self.high) if self.log else _round(self.low, self.high)


def axis_of(
    values: Sequence[float], label: str = "", *, log: bool = False, zero: bool = False, pad: float = 0.0
) -> Axis:
    """An axis that holds all the values, and zero if asked for."""
    good = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(good), max(good)) if good else (1.0, 10.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high <= low:
        low, high = (low / 2, low * 2) if log else (low - (abs(low) or 1) * 0.1, low + (abs(low) or 1) * 0.1)
    extra = 0.0 if log else pad * (high - low)
    return Axis(low if zero and low == 0 else low - extra, high + extra, log, label)


@dataclass
class Plot:
    """Curves in order of drawing; `figure` makes the markup."""

    x: Axis
    y: Axis
    shapes: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def place(self, x: float, y: float) -> str:
        return f"{WIDTH * self.x.at(x):.1f} {HEIGHT * (1 - self.y.at(y)):.1f}"

    def line(self, xs: Sequence[float], ys: Sequence[float | None], look: str, name: str = "") -> None:
        """A curve, broken where a value is missing."""
        words, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if x is None or y is None:
                pen = "M"
                continue
            words.append(f"{pen}{self.place(x, y)}")
            pen = "L"
        self.shapes.append(f'<path class="fig-curve fig-is-{look}" d="{"".join(words)}"/>')
        self._named(look, name)

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], look: str, name: str = "") -> None:
        """The area between two curves."""
        there = [self.place(x, y) for x, y in zip(xs, high, strict=True)]
        back = [self.place(x, y) for x, y in zip(reversed(xs), reversed(low), strict=True)]
        self.shapes.append(f'<path class="fig-band fig-is-{look}" d="M{"L".join([*there, *back])}Z"/>')
        self._named(look, name)

    def vertical(self, x: float, look: str, name: str = "") -> None:
        self.line([x, x], [self.y.low, self.y.high], look, name)

    def horizontal(self, y: float, look: str, name: str = "") -> None:
        self.line([self.x.low, self.x.high], [y, y], look, name)

    def stripes(self, spans: Pairs, look: str) -> None:
        """Bands over the whole height."""
        parts = []
        for a, b in spans:
            left, right = (WIDTH * min(1.0, max(0.0, self.x.at(v))) for v in (a, b))
            if right > left:
                parts.append(f"M{left:.1f} 0H{right:.1f}V{HEIGHT:.0f}H{left:.1f}Z")
        self.shapes.append(f'<path class="fig-band fig-is-{look}" d="{"".join(parts)}"/>')

    def cells(self, xs: Pairs, ys: Pairs, rows: Sequence[Sequence[float]]) -> None:
        """A picture: rows[i][j] is the value of column span xs[i], row span ys[j]; the largest is the darkest."""
        most = max((v for row in rows for v in row), default=0.0)
        levels: dict[int, list[str]] = {}
        for (a, b), row in zip(xs, rows, strict=True):
            for (c, d), value in zip(ys, row, strict=True):
                level = round(10 * value / most) if most > 0 else 0
                if level:
                    x0, x1 = (WIDTH * self.x.at(v) for v in (a, b))
                    y0, y1 = (HEIGHT * (1 - self.y.at(v)) for v in (d, c))
                    levels.setdefault(level, []).append(f"M{x0:.0f} {y0:.1f}H{x1:.0f}V{y1:.1f}H{x0:.0f}Z")
        self.shapes += [
            f'<path class="fig-cell" fill-opacity="{level / 10:.1f}" d="{"".join(words)}"/>'
            for level, words in sorted(levels.items())
        ]

    def dot(self, x: float, y: float, label: str, *, look: str = "main", peak: str | None = None) -> None:
        """A point with words; with `peak`, a button that the tab listens to."""
        left, top = 100 * self.x.at(x), 100 * (1 - self.y.at(y))
        if not (0 <= left <= 100 and 0 <= top <= 100):
            return
        style = f'style="left:{left:.2f}%;top:{top:.2f}%"'
        if peak is None:
            self.over.append(f'<i class="fig-dot fig-is-{look}" {style} title="{escape(label)}"></i>')
        else:
            self.over.append(
                f'<button type="button" class="fig-dot fig-peak" {style} data-peak="{escape(peak)}" '
                f'aria-label="{escape(label)}" title="{escape(label)}"></button>'
            )

    def _named(self, look: str, name: str) -> None:
        if name and (look, name) not in self.legend:
            self.legend.append((look, name))

    def figure(self, title: str, desc: str, note: str = "", *, wide: bool = False) -> str:
        """The whole figure."""
        keys = "".join(
            f'<li><svg viewBox="0 0 20 6" aria-hidden="true"><path class="fig-curve fig-is-{look}" d="M0 3H20"/></svg>'
            f"{escape(name)}</li>"
            for look, name in self.legend
        )
        legend = f'<ul class="fig-keys">{keys}</ul>' if keys else ""
        below = f'<p class="fig-note">{escape(note)}</p>' if note else ""
        svg = (
            f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(title)}: {escape(desc)}"><title>{escape(title)}</title><desc>{escape(desc)}</desc>'
            f"{self._grid()}{''.join(self.shapes)}</svg>"
        )
        return (
            f'<figure class="fig{" fig-wide" if wide else ""}"><figcaption>{escape(title)}</figcaption>{legend}'
            f'<span class="fig-y">{escape(self.y.label)}</span>'
            f'<div class="fig-box">{svg}{"".join(self.over)}{self._ticks()}</div>'
            f'<span class="fig-x">{escape(self.x.label)}</span>{below}</figure>'
        )

    def _grid(self) -> str:
        across = "".join(f"M0 {HEIGHT * (1 - self.y.at(v)):.1f}H{WIDTH:.0f}" for v in self.y.ticks())
        up = "".join(f"M{WIDTH * self.x.at(v):.1f} 0V{HEIGHT:.0f}" for v in self.x.ticks())
        return f'<path class="fig-grid" d="{across}{up}"/>'

    def _ticks(self) -> str:
        places = [("x", f"left:{100 * self.x.at(v):.2f}%", v) for v in self.x.ticks()]
        places += [("y", f"top:{100 * (1 - self.y.at(v)):.2f}%", v) for v in self.y.ticks()]
        return "".join(
            f'<span class="fig-tick fig-tick-{axis}" aria-hidden="true" style="{at}">{short(v)}</span>'
            for axis, at, v in places
        )


def _round(low: float, high: float, most: int = 5) -> list[float]:
    """At most so many round numbers between the bounds."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / most))
    step = next(step * k for k in (1, 2, 5, 10, 20) if span / (step * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [0.0 if abs(k * step) < step / 1e6 else k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten; with 2 and 5 between them where there are few."""
    low, high = max(low, 1e-300), max(high, 1e-300)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [k * 10.0**e for e in exponents for k in factors if low * 0.9999 <= k * 10.0**e <= high * 1.0001]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]
