"""Numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_P = 1e-4


def chance(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return "p n/a"
    if p < LEAST_P:
        return "p < 0.0001"
    return f"p = {p:.2g}" if p < 0.995 else "p > 0.99"


def amount(x: float | None) -> str:
    """Nats, to three digits."""
    return "n/a" if x is None else f"{x:.3g}"


def interval(low_high: Sequence[float] | None, digits: int = 3) -> str:
    return "" if not low_high else f"[{low_high[0]:.{digits}g}, {low_high[1]:.{digits}g}]"


def tokens(x: float | None) -> str:
    """Tokens with the unit that keeps the number short."""
    if x is None:
        return "n/a"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.4g} {unit}"
    return f"{x:.4g}"


def memory(x: float | None) -> str:
    """Bytes."""
    if x is None:
        return "n/a"
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(x) >= size:
            return f"{x / size:.3g} {unit}"
    return f"{x:.0f} B"


def steps(x: float | None) -> str:
    return "n/a" if x is None else f"{x:,.1f}" if abs(x) < 1000 else f"{x:,.0f}"
