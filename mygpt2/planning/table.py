"""A plan as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mygpt2.planning.figures import SECTIONS, Plan

LABEL, VALUE, LEAST_BASIS = 38, 18, 40


def table(plan: Plan, width: int = 120) -> str:
    """Sections of `label  value  basis`, wrapped to `width` cells, and the notices below."""
    return "\n".join(_lines(plan, max(width, LABEL + VALUE + LEAST_BASIS)))


def _lines(plan: Plan, width: int) -> Iterator[str]:
    ranks = f"{plan.world_size} rank{'s' if plan.world_size > 1 else ''}"
    yield f"{ranks} on {plan.device}, {plan.precision}"
    for section, title in SECTIONS.items():
        yield f"\n{title}"
        for figure in plan.section(section):
            first, *more = textwrap.wrap(figure.basis, width - LABEL - VALUE) or [""]
            shown = f"  {figure.label:<{LABEL - 3}} {figure.text:<{VALUE - 1}} "
            # A value too long for its column has a line of its own.
            yield from (
                [shown.rstrip(), " " * (LABEL + VALUE) + first] if len(shown) > LABEL + VALUE else [shown + first]
            )
            yield from (" " * (LABEL + VALUE) + line for line in more)
    yield "\nLearning rate"
    yield from _rates(plan)
    if plan.notices:
        yield ""
    for notice in plan.notices:
        yield from textwrap.wrap(f"{notice.level}: {notice.text}", width, subsequent_indent="  ")


def _rates(plan: Plan) -> Iterator[str]:
    """The rate at the corners and quarters of the run."""
    rates, last = plan.rates, plan.rates.step[-1]
    peak = rates.lr.index(max(rates.lr))
    wanted = sorted({0, peak, len(rates.step) - 1, *(_nearest(rates.step, last * q // 4) for q in (1, 2, 3))})
    for i in wanted:
        muon = f"  Muon {rates.muon_lr[i]:.3g}" if rates.muon_lr else ""
        yield f"  step {rates.step[i] + 1:>12,}   {rates.lr[i]:.3g}{muon}"
    yield f"  {rates.basis}"


def _nearest(steps: tuple[int, ...], wanted: int) -> int:
    return min(range(len(steps)), key=lambda i: abs(steps[i] - wanted))
