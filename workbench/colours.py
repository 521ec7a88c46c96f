"""One set of colours for everybody: a run keeps its colour in the list, the chart, every browser and every server.

The colours are numbers, 1 to COLOURS, which the page's --wb-run-N variables turn into colours. A new run takes the one
after the last that was given, so that runs started one after the other differ. What was given is kept in
runs/.workbench/colours.json; a renamed folder is known by its inode, and by holding something older than its colour.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mygpt2.files import read_json, replace_json
from mygpt2.records import whole
from mygpt2.run_dir.paths import NAME

COLOURS = 12
KEPT = 5000  # runs; of more, those that are gone are forgotten
MOST_BYTES = 1 << 20
Given = dict[str, tuple[int, int, int]]  # name -> colour, inode of the folder, when it was given (s)


class RunColours:
    """The colours of one folder's runs. Usable from any thread; several servers may share the folder."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._file = runs / ".workbench" / "colours.json"
        self._stamp: tuple[int, int] | None = None
        self._given: Given = {}
        self._last = 0  # the colour that was given last
        self._lock = threading.Lock()

    def of(self, names: Collection[str], *, read_only: bool = False) -> dict[str, int]:
        """The colour of every run named that is a folder here. New ones are given theirs, on disk unless `read_only`.

        A folder that cannot be written has its colours for as long as the server lives.
        """
        with self._lock:
            self._read()
            if missing := [name for name in names if name not in self._given and NAME.fullmatch(name)]:
                with self._held(read_only) as writable:
                    self._read()
                    changed = self._give([name for name in missing if name not in self._given])
                    if changed and writable:
                        self._write()
            return {name: self._given[name][0] for name in names if name in self._given}

    def _give(self, names: list[str]) -> bool:
        """Colours for new names, in the order in which their runs began."""
        found = sorted((began, name) for name in names if (began := self._began(name)))
        for (_, inode), name in found:
            before = self._renamed(name, inode)
            if before is None:
                self._last = self._last % COLOURS + 1
            self._given[name] = (self._given.pop(before)[0] if before else self._last, inode, int(time.time()))
        if len(self._given) > KEPT:
            self._given = {name: kept for name, kept in self._given.items() if not self._gone(name)}
        return bool(found)

    def _renamed(self, name: str, inode: int) -> str | None:
        """The name under which this folder had a colour. A deleted folder's inode may be a new one's."""
        old = [old for old, (_, known, _) in self._given.items() if known == inode and self._gone(old)]
        return old[0] if old and self._oldest(name) <= self._given[old[0]][2] else None

    def _oldest(self, name: str) -> float:
        try:
            with os.scandir(self._runs / name) as entries:
                return min((entry.stat(follow_symlinks=False).st_mtime for entry in entries), default=math.inf)
        except OSError:
            return math.inf

    def _began(self, name: str) -> tuple[float, int] | None:
        """When a run's settings were written, and the folder's inode; None for what is no folder."""
        folder = self._runs / name
        try:
            inode = os.stat(folder, follow_symlinks=False).st_ino
            if not folder.is_dir():
                return None
        except OSError:
            return None
        for file in (folder / "config.toml", folder):
            with contextlib.suppress(OSError):
                return os.stat(file).st_mtime, inode
        return None

    def _gone(self, name: str) -> bool:
        return not (self._runs / name).exists()

    def _read(self) -> None:
        try:
            found = os.stat(self._file)
        except OSError:
            return
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return
        record = read_json(self._file, self._runs, most=MOST_BYTES) or {}
        given: Given = {}
        for name, value in (known if isinstance(known := record.get("runs"), dict) else {}).items():
            numbers = [whole(part) or 0 for part in value] if isinstance(value, list) else []
            if NAME.fullmatch(name) and len(numbers) == 3 and 1 <= numbers[0] <= COLOURS:
                given[name] = (numbers[0], numbers[1], numbers[2])
        self._last = min(whole(record.get("last")) or self._last, COLOURS)
        # what this server gave and could not write stays, as far as nobody else gave it another
        self._given = {**{name: kept for name, kept in self._given.items() if name not in given}, **given}
        self._stamp = stamp

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the colours hold for as long as this server lives
            runs = {name: list(kept) for name, kept in self._given.items()}
            replace_json(self._file, {"schema": 1, "last": self._last, "runs": runs})
            found = os.stat(self._file)
            self._stamp = (found.st_mtime_ns, found.st_size)

    @contextmanager
    def _held(self, read_only: bool) -> Iterator[bool]:
        """No other server gives colours meanwhile; whether the file may be written."""
        descriptor = None
        if not read_only:
            with contextlib.suppress(OSError):
                self._file.parent.mkdir(mode=0o700, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                descriptor = os.open(self._file.with_suffix(".lock"), flags, 0o600)
        try:
            if descriptor is not None:
                with contextlib.suppress(OSError):  # a file system without flock: one server has to be enough there
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)


@cache
def colours_of(runs: Path) -> RunColours:
    """The one keeper of a folder's colours in this process."""
    return RunColours(runs)
