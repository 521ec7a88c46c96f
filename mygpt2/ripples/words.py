"""Numbers of a report as a person reads them, and text from a log made fit to be shown."""

from __future__ import annotations

from collections.abc import Sequence

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
LEAST_P = 1e-4


def chance(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return "p n/a"
    return "p < 0.0001" if p < LEAST_P else f"p = {p:.2g}"


def size(tokens: float) -> str:
    """Tokens in words."""
    for limit, name in ((1e9, "billion"), (1e6, "million")):
        if tokens >= 0.9995 * limit:
            return f"{tokens / limit:.4g} {name} tokens"
    return f"{tokens:,.0f} tokens"


def tokens(x: float | None) -> str:
    """Tokens with the unit that keeps the number short."""
    if x is None:
        return "n/a"
    return next((f"{x / size:.4g} {unit}" for size, unit in UNITS if abs(x) >= size), f"{x:.4g}")


def steps(x: float | None) -> str:
    return "n/a" if x is None else f"{x:,.1f}" if abs(x) < 1000 else f"{x:,.0f}"


def amount(x: float | None) -> str:
    """Nats, to three digits."""
    return "n/a" if x is None else f"{x:.3g}"


def interval(low_high: Sequence[float] | None) -> str:
    return f"[{low_high[0]:.3g}, {low_high[1]:.3g}]" if low_high else ""


def memory(x: float | None) -> str:
    """Bytes with their unit."""
    if x is None:
        return "n/a"
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    return next((f"{x / size:.3g} {unit}" for size, unit in units if abs(x) >= size), f"{x:.0f} B")


def megabytes(count: float | None) -> str:
    """Bytes as a number of MB; empty for None."""
    if count is None:
        return ""
    return f"{count / 1e6:,.0f}" if count >= 1e7 or count == 0 else f"{count / 1e6:.2g}"


def one_line(text: str) -> str:
    """Text from a log, on one line and without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
