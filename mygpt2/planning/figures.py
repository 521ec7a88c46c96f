"""What a plan consists of: figures that say where they come from, a preview of the rate, notices; and its table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mygpt2.config.schema import RunConfig
from mygpt2.format import readable
from mygpt2.schedule import decay_begins, lr_scale

SECTIONS = {
    "parameters": "Model",
    "batch": "Batch",
    "length": "Length",
    "flops": "Arithmetic",
    "memory": "Memory",
    "disk": "Disk",
    "time": "Time",
}
UNKNOWN = "n/a"
CONVERTED = ("B", "s", "FLOP")  # shown in larger units, which may differ within a range


@dataclass(frozen=True)
class Figure:
    """One figure: `key` is section.name, `basis` says how it was come by (derived, measured, from run X, quoted).

    `value` is None where it is unknown, never 0. `low` and `high` are a range where one is given. `unit` is B for
    bytes, s for seconds, empty for counts and ratios.
    """

    key: str
    label: str
    value: float | None
    unit: str
    basis: str
    low: float | None = None
    high: float | None = None

    @property
    def section(self) -> str:
        return self.key.partition(".")[0]

    @property
    def text(self) -> str:
        """The value for a person, with its range."""
        if self.value is None:
            return UNKNOWN
        shown = readable(self.value, self.unit)
        if self.low is None or self.high is None:
            return shown
        low, high = readable(self.low, self.unit), readable(self.high, self.unit)
        if self.unit not in CONVERTED:
            low, high = low.removesuffix(f" {self.unit}"), high.removesuffix(f" {self.unit}")
        return f"{shown} ({low} to {high})"


@dataclass(frozen=True)
class Notice:
    """Something to look out for. `warning`: the run may fail or disappoint; `note`: good to know."""

    level: Literal["warning", "note"]
    key: str  # of the figure it is about
    text: str


@dataclass(frozen=True)
class Rates:
    """The learning rate over the run: `lr` (AdamW's) and `muon_lr` (None without Muon) at `step`, counted from 0."""

    step: tuple[int, ...]
    lr: tuple[float, ...]
    muon_lr: tuple[float, ...] | None
    basis: str


@dataclass(frozen=True)
class Plan:
    """All figures of a run in the order they are shown; `plan["memory.peak"]` is one of them."""

    world_size: int
    device: str
    precision: str
    figures: tuple[Figure, ...]
    rates: Rates
    notices: tuple[Notice, ...]

    def __getitem__(self, key: str) -> Figure:
        for figure in self.figures:
            if figure.key == key:
                return figure
        raise KeyError(key)

    def section(self, name: str) -> tuple[Figure, ...]:
        return tuple(figure for figure in self.figures if figure.section == name)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: figures by key, each with its text, the arrays of the rate, and the notices."""
        return {
            "schema": 1,
            "world_size": self.world_size,
            "device": self.device,
            "precision": self.precision,
            "figures": {f.key: {**asdict(f), "text": f.text} for f in self.figures},
            "rates": asdict(self.rates),
            "notices": [asdict(notice) for notice in self.notices],
        }


POINTS = 240


def preview(config: RunConfig) -> Rates:
    """At most about `POINTS` steps, evenly spread, with the corners of the schedule among them."""
    s, steps = config.schedule, config.train.steps
    stride = max(1, -(-steps // POINTS))
    decay = decay_begins(s, steps)  # where wsd and trapezoid begin to fall
    corners = {0, s.warmup_steps - 1, s.warmup_steps, decay, steps - 1}
    at = tuple(sorted({*range(0, steps, stride), *(c for c in corners if 0 <= c < steps)}))
    shares = [lr_scale(s, step, steps) for step in at]
    muon = tuple(config.optimizer.muon_lr * x for x in shares) if config.optimizer.name == "muon" else None
    basis = f"derived: schedule {s.name}"
    if s.name == "plateau":
        basis += "; it falls by what the loss does, which only the run will tell"
    return Rates(at, tuple(config.optimizer.lr * x for x in shares), muon, basis)


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
