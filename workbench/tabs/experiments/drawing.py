"""Drawings of the tab: intervals about zero as lines of a chart, and the arms' losses as small multiples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench import html
from workbench.html import Markup, escape
from workbench.tabs.experiments.answer import Interval

EDGE = 20.0  # per cent of the axis: on a side that is narrower nobody can be


def intervals(title: str, lines: Sequence[Interval], sides: tuple[str, str], legend: str) -> Markup:
    """Points with whiskers on a common axis that holds zero; a thin line is the wider interval that decided."""
    good = [line for line in lines if all(map(math.isfinite, (line.mean, line.low, line.high)))]
    if not good:
        return Markup("")
    ends = [0.0, *(end for line in good for end in (line.low, line.high, *(line.wide or ())))]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or 1e-4
    low, high = low - room, high + room

    def at(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - low) / (high - low)))

    rows = html.join(_line(line, at) for line in good)
    ticks = [low + (high - low) * part / 4 for part in range(5)]
    axis = html.join(Markup(f"<span>{escape(f'{tick:+.3g}')}</span>") for tick in ticks)
    said = "; ".join(f"{line.label} {line.mean:+.4f}, {line.low:+.4f} to {line.high:+.4f}" for line in good)
    left = f'<b class="wb-exp-left">← {escape(sides[0])}</b>' if at(0.0) > EDGE else ""
    right = f'<b class="wb-exp-right">{escape(sides[1])} →</b>' if at(0.0) < 100 - EDGE else ""
    if any(line.wide for line in good):
        legend += "; thin: the one that decides, at this question's share of the budget"
    return Markup(
        f'<figure class="wb-exp-chart" role="img" aria-label="{escape(title)}: {escape(said)}">'
        f"<figcaption>{escape(title)}</figcaption>"
        f'<div class="wb-exp-line wb-exp-sides" aria-hidden="true"><span></span><span class="wb-exp-track" '
        f'style="--zero:{at(0.0):.2f}%">{left}{right}</span><span></span>'
        f"</div>"
        f'{rows}<div class="wb-exp-line wb-exp-axis" aria-hidden="true"><span></span><span class="wb-exp-ticks">{axis}'
        f'</span><span></span></div><p class="wb-muted">nats per token; {escape(legend)}; dashed: no difference</p>'
        f"</figure>"
    )


def _line(line: Interval, at: object) -> Markup:
    assert callable(at)

    def bar(kind: str, low: float, high: float) -> str:
        return f'<i class="{kind}" style="left:{at(low):.2f}%;width:{at(high) - at(low):.2f}%"></i>'

    wide = bar("wb-exp-wide", *line.wide) if line.wide else ""
    note = f"<small>{escape(line.note)}</small>" if line.note else ""
    return Markup(
        f'<div class="wb-exp-line{" wb-exp-main" if line.main else ""}"><span class="wb-exp-who">{escape(line.label)}'
        f'{note}</span><span class="wb-exp-track"><i class="wb-exp-zero" style="left:{at(0.0):.2f}%"></i>{wide}'
        f'{bar("wb-exp-whisker", line.low, line.high)}<i class="wb-exp-dot" style="left:{at(line.mean):.2f}%"></i>'
        f'</span><span class="wb-exp-value">{line.mean:+.4f}</span></div>'
    )
