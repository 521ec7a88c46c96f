"""What a plan consists of: figures that say where they come from, a preview of the rate, and what to look out for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

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


def readable(value: float, unit: str) -> str:
    """A number for a person: bytes and large counts in thousands of thousands, seconds as a clock."""
    if unit == "B":
        return _bytes(value)
    if unit == "s":
        return _seconds(value)
    if unit == "FLOP":
        return f"{value:.3g} FLOP".replace("e+0", "e").replace("e+", "e")
    shown = f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}" if n < 100 else f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def _seconds(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 4 min`, `12 days 5 h`, `3.1 years`: two units, as an estimate deserves no more."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minute = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minute} min"
    days, hour = divmod(hours, 24)
    return f"{days} days {hour} h" if days < 730 else f"{days / 365.25:,.1f} years"
