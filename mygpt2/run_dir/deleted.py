"""What was deleted lies in a folder under its name and the time of that: <name>-<YYYYMMDD-HHMMSS>, whole."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})-(?P<time>\d{8}-\d{6})")
_STAMP = "%Y%m%d-%H%M%S"


def free_place(trash: Path, name: str) -> tuple[Path, float]:
    """Where something that is deleted now can lie, and the time (seconds) that this says."""
    now = time.time()
    while os.path.lexists(place := trash / f"{name}-{time.strftime(_STAMP, time.localtime(now))}"):
        now += 1
    return place, now


def lying(trash: Path) -> Iterator[tuple[str, float, Path]]:
    """(name, time of its deletion in seconds, folder) of everything there, the latest first; links are passed over."""
    try:
        entries = os.listdir(trash) if not trash.is_symlink() else []
    except OSError:
        return
    found = [(_time(match["time"]), match) for match in map(ENTRY.fullmatch, entries) if match]
    for when, match in sorted(found, key=lambda each: (each[0], each[1].string), reverse=True):
        path = trash / match.string
        if path.is_dir() and not path.is_symlink():
            yield match["name"], when, path


def _time(stamp: str) -> float:
    try:
        return time.mktime(time.strptime(stamp, _STAMP))
    except (ValueError, OverflowError):
        return 0.0
