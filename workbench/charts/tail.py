"""The new lines of an append-only file, for a reader who remembers only a place and may ask any server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.run_dir import open_inside

MAX_BYTES = 48 << 20  # of one answer: some 150,000 steps; the reader comes back for the rest
_FIRST_LINE = 4096  # a first line is known by at most this many of its bytes


@dataclass(frozen=True)
class Place:
    """Up to where a file was read. `head` fingerprints its first line: a file put in its place has another."""

    head: str
    at: int

    @classmethod
    def of(cls, value: Any) -> Place | None:
        """A place a browser sent back; None for anything else."""
        head, at = (value.get("head"), value.get("at")) if isinstance(value, dict) else (None, None)
        return cls(head, at) if isinstance(head, str) and type(at) is int and at >= 0 else None


@dataclass(frozen=True)
class News:
    """Complete lines as bytes. `place` is None while there is no complete line at all; `more` asks to come again."""

    data: bytes
    place: Place | None
    replaced: bool = False
    more: bool = False


def news(path: Path, place: Place | None, *, until: int | None = None, limit: int = MAX_BYTES) -> News:
    """What was appended since `place` (None: the start), at most up to byte `until`.

    Nothing is kept between calls. A file that was replaced or became shorter is read from its start, and `replaced`
    says so. OSError for a file that cannot be read; an absent one is empty.
    """
    try:
        with open_inside(path) as file:
            size = os.fstat(file.fileno()).st_size
            first = file.readline(_FIRST_LINE)
            if not first or (len(first) < _FIRST_LINE and not first.endswith(b"\n")):
                return News(b"", None, replaced=place is not None)
            head = hashlib.sha256(first).hexdigest()[:16]
            replaced = place is not None and (place.head != head or place.at > size)
            start = 0 if place is None or replaced else place.at
            end = size if until is None else min(size, until)
            file.seek(start)
            data = file.read(max(0, min(end - start, limit)))
            if data and b"\n" not in data and len(data) == limit:
                data += file.readline()
    except FileNotFoundError:
        return News(b"", None, replaced=place is not None)
    data = data[: data.rfind(b"\n") + 1]
    return News(data, Place(head, start + len(data)), replaced, more=bool(data) and end - start > limit)


def portions(path: Path) -> Iterator[bytes]:
    """All complete lines of a file, as much at a time as `news` gives."""
    found = news(path, None)
    yield found.data
    while found.more:
        found = news(path, found.place)
        yield found.data
