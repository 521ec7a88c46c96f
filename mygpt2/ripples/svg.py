"""Small charts as SVG text: no script, colours from the page's style sheet, so that they serve light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 40
TICKS = 6

Numbers = Sequence[float | None]


@dataclass
class Chart:
    """One chart with its axes. Series are drawn in the order in which they are added; None leaves a gap."""

    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_x: bool = False
    log_y: bool = False
    title: str = ""
    _marks: list[str] = field(default_factory=list)

    def line(self, x: Sequence[float], y: Numbers, style: str) -> None:
        """A curve of class `style`."""
        path, pen = [], "M"
        for a, b in zip(x, y, strict=True):
            if b is None or not math.isfinite(b):
                pen = "M"
                continue
            path.append(f"{pen}{self._x(a):.1f} {self._y(b):.1f}")
            pen = "L"
        self._marks.append(f'<path class="{style}" d="{"".join(path)}"/>')

    def points(self, x: Sequence[float], y: Numbers, error: Numbers, style: str) -> None:
        """Dots with bars of two standard errors."""
        for a, b, e in zip(x, y, error, strict=True):
            if b is None or e is None:
                continue
            low, high = self._y(b - 2 * e), self._y(b + 2 * e)
            self._marks.append(f'<path class="{style} bar" d="M{self._x(a):.1f} {low:.1f}V{high:.1f}"/>')
            self._marks.append(f'<circle class="{style}" cx="{self._x(a):.1f}" cy="{self._y(b):.1f}" r="2.5"/>')

    def vertical(self, x: float, label: str) -> None:
        """A marked place on the x axis, with its name."""
        at = self._x(x)
        if LEFT <= at <= WIDTH - RIGHT:
            self._marks.append(f'<path class="mark" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
            anchor = "end" if at > WIDTH * 0.7 else "start"
            shift = -4 if anchor == "end" else 4
            text = f'<text x="{at + shift:.1f}" y="{TOP + 11}" text-anchor="{anchor}">{escape(label)}</text>'
            self._marks.append(text)

    def cells(self, x: Sequence[tuple[float, float]], y: Sequence[float], values: Sequence[Sequence[float]]) -> None:
        """A picture: column i spans x[i], row j lies between y[j] and y[j + 1], ink grows with values[i][j]."""
        top = max((v for column in values for v in column), default=0.0) or 1.0
        for (left, right), column in zip(x, values, strict=True):
            for (low, high), value in zip(pairwise(y), column, strict=True):
                a, b, c, d = self._x(left), self._x(right), self._y(high), self._y(low)
                self._marks.append(
                    f'<rect class="cell" x="{a:.1f}" y="{c:.1f}" width="{max(0.5, b - a):.1f}" '
                    f'height="{max(0.5, d - c):.1f}" fill-opacity="{value / top:.3f}"/>'
                )

    def svg(self) -> str:
        """The whole chart."""
        grid, labels = [], []
        for value in ticks(*self.x_range, log=self.log_x):
            at = self._x(value)
            grid.append(f"M{at:.1f} {TOP}V{HEIGHT - BOTTOM}")
            labels.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{number(value)}</text>')
        for value in ticks(*self.y_range, log=self.log_y):
            at = self._y(value)
            grid.append(f"M{LEFT} {at:.1f}H{WIDTH - RIGHT}")
            labels.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number(value)}</text>')
        middle = (TOP + HEIGHT - BOTTOM) / 2
        x_label = f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        y_label = f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title, quote=True)}">'
            f'<path class="grid" d="{"".join(grid)}"/>{"".join(self._marks)}{"".join(labels)}'
            f"{x_label}{escape(self.x_label)}</text>{y_label}{escape(self.y_label)}</text></svg>"
        )

    def _x(self, value: float) -> float:
        return LEFT + _share(value, self.x_range, self.log_x) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        share = min(1.0, max(0.0, _share(value, self.y_range, self.log_y)))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _share(value: float, extent: tuple[float, float], log: bool) -> float:
    """Where a value lies in a range, 0 to 1."""
    low, high = extent
    if log:
        value, low, high = (math.log(max(v, 1e-300)) for v in (value, low, high))
    return (value - low) / (high - low) if high > low else 0.5


def ticks(low: float, high: float, log: bool = False) -> list[float]:
    """Round numbers within a range, some TICKS of them."""
    if not high > low:
        return [low]
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        many = [m * 10.0**p for p in powers for m in (1, 2, 5)]
        found = [v for v in many if low <= v <= high]
        return found if len(found) <= 2 * TICKS else [10.0**p for p in powers if low <= 10.0**p <= high]
    rough = (high - low) / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A short form: 1.5k, 20M."""
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def extent(*columns: Numbers, margin: float = 0.06) -> tuple[float, float]:
    """The range of some columns with a margin."""
    values = [v for column in columns for v in column if v is not None and math.isfinite(v)]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    pad = margin * (high - low) if high > low else 0.5 * abs(high) or 0.5
    return low - pad, high + pad
