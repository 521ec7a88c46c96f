"""Which reader a look needs. A look that is damaged is None: then it is told so."""

from __future__ import annotations

from collections.abc import Callable

from workbench.tabs.experiments.answer import Answer, Look, judged
from workbench.tabs.experiments.laddered import laddered
from workbench.tabs.experiments.swept import swept

BROKEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError)
READERS: dict[str, Callable[[Look, Look], Answer]] = {
    "judge": lambda look, record: judged(look), "ladder": lambda look, record: laddered(look), "sweep": swept,
}  # fmt: skip


def answer(kind: str, look: Look, record: Look | None = None) -> Answer | None:
    """What a look of this kind of experiment says; None for one that cannot be read.

    `record`: all of verdict.json, where it is its last look that is read.
    """
    read = READERS.get(kind)
    try:
        return read(look, record or {}) if read else None
    except BROKEN:
        return None
