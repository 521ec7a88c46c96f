"""Which reader a look needs. A look that is damaged is None: then it is told so."""

from __future__ import annotations

from collections.abc import Callable

from workbench.tabs.experiments.answer import Answer, Look, judged
from workbench.tabs.experiments.laddered import laddered

BROKEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError)
READERS: dict[str, Callable[[Look], Answer]] = {"judge": judged, "ladder": laddered}


def answer(kind: str, look: Look) -> Answer | None:
    """What a look of this kind of experiment says; None for one that cannot be read."""
    read = READERS.get(kind)
    try:
        return read(look) if read else None
    except BROKEN:
        return None
