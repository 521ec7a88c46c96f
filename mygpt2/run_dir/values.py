"""Values found in files that somebody else may have written: what is no sound value is None."""

from __future__ import annotations

import math
from typing import Any

LARGEST = 2**53  # a whole number beyond it is none of ours, and no number of a browser


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
    return value if type(value) is int and 0 <= value < LARGEST else None
