"""Values of a run folder and of other files that somebody else may have written: what is no sound value is left out.

A run folder may be damaged, or written by somebody else: a step that is text, a time beyond the calendar, a number
without end. Readers count with these values and print them; here is the one place that says which of them they get.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

DEEPEST = 32  # levels of lists and objects; a trainer writes five
LARGEST = 2**63
MOST_EXACT = 2**53  # a whole number beyond it is none of ours, and no number of a browser
LAST_MOMENT = 253402300799  # the end of the year 9999, in seconds since 1970


def tame(value: Any, depth: int = 0) -> Any:
    """A JSON value with null for numbers that are not finite or need more than 64 bits, and for what is nested deeper
    than DEEPEST. Half surrogates, which cannot be printed, become question marks."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -LARGEST <= value < LARGEST else None
    if isinstance(value, float):
        return value if value - value == 0 else None
    if depth >= DEEPEST:
        return None
    if isinstance(value, dict):
        return {tame(key): tame(item, depth + 1) for key, item in value.items()}
    return [tame(item, depth + 1) for item in value]


def is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def is_moment(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= LAST_MOMENT


def is_text(value: Any) -> bool:
    return isinstance(value, str)


KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("attempt", "step", "steps", "tokens", "rank", "world_size"), is_whole),
    **dict.fromkeys(("time", "heartbeat", "progress", "started"), is_moment),
    **dict.fromkeys(
        ("epoch", "loss", "lr", "grad_norm", "tokens_per_second", "step_ms", "data_wait_ms", "mfu", "memory_bytes",
         "eta", "seconds", "code"), is_number),
    **dict.fromkeys(("state", "phase", "message", "reason", "kind", "prompt", "text", "device", "level"), is_text),
}  # fmt: skip


def checked(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the entries that are not what their name promises: as if nobody had written them."""
    return {
        key: value
        for key, value in record.items()
        if value is None or key not in KINDS or (KINDS[key](value) and value == value)
    }


def number(value: Any) -> float | None:
    """A finite number; None for text, booleans, NaN, infinities and whole numbers that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A whole number from 0 on that a browser can hold as well: a step, a count of tokens."""
    return value if type(value) is int and 0 <= value < MOST_EXACT else None
