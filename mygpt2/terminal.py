"""Long work on a terminal: Ctrl-C and SIGTERM, no character that moves its cursor, two texts side by side."""

from __future__ import annotations

import signal
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, by a KeyboardInterrupt: what is half made can be taken away or kept."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def printable(text: str) -> str:
    """The text without control characters, which could move a cursor or change a title, and without half surrogates."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)


def side_by_side(left: str, right: str, width: int) -> str:
    """Two texts in columns of a terminal `width` cells wide, wrapped anywhere: tokens matter here, not words."""
    half = max(10, (width - 3) // 2)
    lines = zip_longest(_wrapped(left, half), _wrapped(right, half), fillvalue="")
    return "\n".join(f"{a}{' ' * (half - _cells(a))} | {b}".rstrip() for a, b in lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells; a tab is four spaces."""
    lines = []
    for paragraph in printable(text).replace("\t", "    ").split("\n"):
        line, used = "", 0
        for c in paragraph:
            if used + _cells(c) > width:
                lines.append(line)
                line, used = "", 0
            line, used = line + c, used + _cells(c)
        lines.append(line)
    return lines


def _cells(text: str) -> int:
    """Columns a text takes: wide characters two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@contextmanager
def stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets instead of ending the program; a second Ctrl-C ends it. Main thread only."""
    event = threading.Event()

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
