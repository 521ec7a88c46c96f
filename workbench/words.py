"""Numbers, times and events in a person's words. Everything that is not known is n/a, never 0."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mygpt2.format import duration, file_size
from mygpt2.records import number

NA = "n/a"
_HIDDEN = ("schema", "kind", "time", "attempt", "message", "token_sha256", "ids", "logprobs")
EVENT_TEXT = 300  # characters


def count(value: Any) -> str:
    """1234567 -> 1,234,567."""
    found = number(value)
    return NA if found is None else f"{found:,.0f}"


def brief(value: Any) -> str:
    """1234567 -> 1.235M."""
    found = number(value)
    if found is None:
        return NA
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(found) >= unit:
            return f"{found / unit:.4g}{letter}"
    return f"{found:.4g}"


def fixed(value: Any, digits: int = 4) -> str:
    found = number(value)
    if found is None:
        return NA
    return f"{found:,.{digits}f}" if abs(found) < 1e6 else f"{found:.3g}"  # what diverged would lie over its neighbours


def percent(value: Any, digits: int = 1) -> str:
    found = number(value)
    return NA if found is None else f"{100 * found:.{digits}f} %"


def seconds(value: Any) -> str:
    found = number(value)
    return NA if found is None else duration(max(0.0, found))


def bytes_of(value: Any) -> str:
    found = number(value)
    return NA if found is None else file_size(found)


def minute(value: Any) -> str:
    """A time in this machine's zone, without its seconds."""
    return moment(value, "%Y-%m-%d %H:%M")


def moment(value: Any, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time in this machine's zone."""
    found = number(value)
    try:
        return NA if found is None else time.strftime(form, time.localtime(found))
    except (OverflowError, ValueError, OSError):
        return NA


def event_text(event: Mapping[str, Any]) -> str:
    """What an event says besides its kind and time, short."""
    told = [str(event["message"])] if event.get("message") else []
    told += [f"{key} {_value(value)}" for key, value in event.items() if key not in _HIDDEN and value is not None]
    text = ", ".join(told)
    return text if len(text) <= EVENT_TEXT else f"{text[:EVENT_TEXT]} …"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
