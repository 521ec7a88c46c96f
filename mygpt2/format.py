"""Numbers for a person: bytes, seconds, counts."""

from __future__ import annotations


def file_size(count: float) -> str:
    """Bytes in decimal units, as disks are sold: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def clock(seconds: float | None) -> str:
    """`0:42`, `12:05`, `3:04:10`, or `?` while unknown."""
    if seconds is None:
        return "?"
    minutes, second = divmod(max(int(seconds + 0.5), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def duration(seconds: float) -> str:
    """What was measured, in two units at most: 3 d 4 h, 2 h 5 min, 47 s."""
    whole = round(seconds)
    if whole >= 1000 * 365 * 86400:
        return "for ever"
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole} s"


def estimate(seconds: float) -> str:
    """What is only expected, without digits that nobody knows: `42 s`, `12 min`, `3 days 5 h`, `3.1 years`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minute = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minute} min"
    days, hour = divmod(hours, 24)
    if days < 730:
        return f"{days} days {hour} h" if days < 10 else f"{round(hours / 24)} days"
    return f"{days / 365.25:,.1f} years"


def readable(value: float, unit: str) -> str:
    """A figure with its unit: B for bytes and s for an estimate are shown in larger ones."""
    if unit == "B":
        return file_size(value)
    if unit == "s":
        return estimate(value)
    if unit == "FLOP":
        return f"{value:.3g} FLOP".replace("e+0", "e").replace("e+", "e")
    shown = f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def short(value: float) -> str:
    """A number in few characters: 1500 -> 1.5k, 2e9 -> 2B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
