"""How far long work is, told to whoever shows it: what is done, how much of it, of how much, in which unit."""

from __future__ import annotations

from collections.abc import Callable

Told = Callable[[str, int, int, str], None]


def silent(title: str, done: int, total: int, unit: str) -> None:
    """For those who only want the result."""
