"""Long lists a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Page:
    """Which part of a list is shown; `page` counts from 1 and is always one that exists."""

    page: int
    pages: int
    start: int
    stop: int


def page_of(count: int, page: Any, size: int) -> Page:
    """The page nearest to the one asked for, whatever was typed. `count`, `size`: entries of the list and of a page."""
    pages = max(1, -(-count // size))
    try:
        number = int(page)
    except (TypeError, ValueError, OverflowError):
        number = 1
    number = max(1, min(number, pages))
    return Page(number, pages, (number - 1) * size, min(count, number * size))
