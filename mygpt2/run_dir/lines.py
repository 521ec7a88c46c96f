"""Append-only files of JSON lines: the writer that never tears a line, and the readers that wait for whole ones.

`Follower` is for whoever stays, `news` for a reader who remembers only a cursor and may ask any process.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mygpt2.files import finite
from mygpt2.inside import append_inside, open_inside
from mygpt2.records import checked, tame

MAX_PENDING_BYTES = 8 << 20
MAX_LINE_BYTES = MAX_PENDING_BYTES  # no writer makes a longer one
PIECE_BYTES = 64 << 20
ANSWER_BYTES = 48 << 20  # of one answer of `news`: some 150,000 steps; the reader comes back for the rest
TAIL_BYTES = 8192  # of metrics.jsonl, where its last steps are asked for; one line has some 300
HEAD_BYTES = 4096  # a first line is known by at most this many of its bytes


class LineWriter:
    """Appends JSON objects, one write call each. A full disk does not raise: lines wait in memory for room.

    `problem` says what is wrong while lines wait; `dropped` counts those of all `lines` that had to be given up.
    Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = append_inside(path)
        self._pending = bytearray()
        self._lock = threading.Lock()
        self.problem: str | None = None
        self.dropped = 0
        self.lines = 0
        end = os.fstat(self._descriptor).st_size
        if end and os.pread(self._descriptor, 1, end - 1) != b"\n":
            self._pending += b"\n"  # an earlier process died in the middle of a line: it must not swallow ours

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line. Non-finite numbers become null and mark the line with "nonfinite": true."""
        line = _line(record)
        with self._lock:
            self.lines += 1
            if len(self._pending) + len(line) > MAX_PENDING_BYTES:
                self.dropped += 1
                return
            self._pending += line
            self._flush()

    def _flush(self) -> None:
        try:
            while self._pending:
                written = os.write(self._descriptor, self._pending)
                del self._pending[:written]
            self.problem = None
        except OSError as error:
            self.problem = os.strerror(error.errno or 0)

    def close(self) -> None:
        """Tries once more to write what waits."""
        with self._lock:
            if self._descriptor >= 0:
                self._flush()
                os.close(self._descriptor)
                self._descriptor = -1


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps({**finite(record), "nonfinite": True}, allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def append_durably(path: Path, record: Mapping[str, Any]) -> None:
    """A line more, on the disk when this returns; or OSError, and nothing of it is left. For files in which every line
    counts, also one that was torn by a full disk."""
    descriptor = append_inside(path)
    try:
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        left = b"\n" * bool(torn) + _line(record)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


class Follower:
    """Reads a growing file from a byte offset on and returns complete new lines only.

    The offset never passes an unfinished line, so `offset` is all a reader has to remember. A file that became
    shorter or was replaced is read from its start again, and `restarts` is counted up. A line longer than
    MAX_LINE_BYTES is returned empty. `problem` says why the file cannot be read, `root` is as for `open_inside`.
    """

    def __init__(self, path: Path, offset: int = 0, *, root: Path | None = None) -> None:
        self.path, self.offset, self.restarts = path, offset, 0
        self.size = 0  # of the file, when it was last read
        self.problem: str | None = None
        self._root = root
        self._searched = 0  # up to where no end of the line at `offset` was found
        self._identity: tuple[int, int] | None = None

    def read(self, max_bytes: int | None = None, until: int | None = None) -> list[bytes]:
        """New lines without their line ends; empty if there is nothing new, no file, or a problem with it.

        With `max_bytes` at most about that much at once; one longer line is still returned whole. With `until` the
        file counts as no longer than that.
        """
        lines: list[bytes] = []
        try:
            with open_inside(self.path, self._root) as file:
                info = os.fstat(file.fileno())
                self._notice_restart((info.st_dev, info.st_ino), info.st_size)
                self.size = info.st_size if until is None else min(info.st_size, until)
                while new := self._piece(file, self.size, PIECE_BYTES if max_bytes is None else max_bytes):
                    lines += new
                    if max_bytes is not None:
                        break
            self.problem = None
        except FileNotFoundError:
            self.problem = None
        except OSError as error:
            self.problem = error.strerror or str(error)
        return lines

    def _piece(self, file: BinaryIO, size: int, most: int) -> list[bytes]:
        """The complete lines among the next `most` bytes; at least one if there is one."""
        if size <= max(self.offset, self._searched):
            return []
        file.seek(self.offset)
        chunk = file.read(min(size - self.offset, most))
        if b"\n" not in chunk:
            chunk += file.readline(max(0, MAX_LINE_BYTES - len(chunk)))
            if b"\n" not in chunk and len(chunk) >= MAX_LINE_BYTES:
                return self._skip_line(file, size)
        end = chunk.rfind(b"\n") + 1
        self.offset += end
        return [line if len(line) <= MAX_LINE_BYTES else b"" for line in chunk[:end].split(b"\n")[:-1]]

    def _skip_line(self, file: BinaryIO, size: int) -> list[bytes]:
        """Passes a line that nobody wants to hold, once its end is there."""
        at = max(self.offset, self._searched)
        file.seek(at)
        while at < size and (chunk := file.read(min(PIECE_BYTES, size - at))):
            end = chunk.find(b"\n") + 1
            if end:
                self.offset = at + end
                return [b""]
            at += len(chunk)
        self._searched = at
        return []

    def _notice_restart(self, identity: tuple[int, int], size: int) -> None:
        replaced = self._identity is not None and identity != self._identity
        if replaced or size < self.offset:
            self.offset = self._searched = 0
            self.restarts += 1
        self._identity = identity


@dataclass(frozen=True)
class Cursor:
    """Up to where a file was read. `head` fingerprints its first line: a file put in its place has another."""

    head: str
    at: int

    @classmethod
    def of(cls, value: Any) -> Cursor | None:
        """A cursor that a browser sent back; None for anything else."""
        head, at = (value.get("head"), value.get("at")) if isinstance(value, dict) else (None, None)
        return cls(head, at) if isinstance(head, str) and type(at) is int and at >= 0 else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class News:
    """Complete lines. `cursor` is None while there is no complete line at all; `more` asks to come again."""

    lines: list[bytes]
    cursor: Cursor | None
    replaced: bool = False
    more: bool = False


def news(path: Path, cursor: Cursor | None, *, until: int | None = None, limit: int = ANSWER_BYTES) -> News:
    """What was appended since `cursor` (None: the start), at most up to byte `until`.

    Nothing is kept between calls. A file that was replaced or became shorter is read from its start, and `replaced`
    says so. OSError for a file that cannot be read; an absent one is empty.
    """
    try:
        with open_inside(path) as file:
            size, first = os.fstat(file.fileno()).st_size, file.readline(HEAD_BYTES)
    except FileNotFoundError:
        return News([], None, replaced=cursor is not None)
    if not first or (len(first) < HEAD_BYTES and not first.endswith(b"\n")):
        return News([], None, replaced=cursor is not None)
    head = hashlib.sha256(first).hexdigest()[:16]
    replaced = cursor is not None and (cursor.head != head or cursor.at > size)
    follower = Follower(path, 0 if cursor is None or replaced else cursor.at)
    start, lines = follower.offset, follower.read(limit, until)
    if follower.problem:
        raise OSError(follower.problem)
    return News(lines, Cursor(head, follower.offset), replaced, more=bool(lines) and follower.size - start > limit)


def portions(path: Path, limit: int = ANSWER_BYTES) -> Iterator[list[bytes]]:
    """All complete lines of a file, as much at a time as `news` gives; at least one portion, which may be empty."""
    found = news(path, None, limit=limit)
    yield found.lines
    while found.more:
        found = news(path, found.cursor, limit=limit)
        yield found.lines


def parse_lines(lines: list[bytes]) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects among lines, in order, and how many lines were something else."""
    try:  # one call for all is three times as quick as one per line
        values = json.loads(b"[" + b",".join(lines) + b"]")
        if len(values) != len(lines):
            raise ValueError
    except (ValueError, RecursionError):
        values = list(_each(lines))
    records = [value for value in values if isinstance(value, dict)]
    return records, len(lines) - len(records)


def _each(lines: list[bytes]) -> Iterator[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield None


def read_records(path: Path) -> list[dict[str, Any]]:
    """All complete records of a JSON lines file, as `checked` leaves them; lines that are none are left out."""
    return [checked(tame(record)) for record in parse_lines(Follower(path).read())[0]]


def tail_lines(path: Path, within: int) -> tuple[list[bytes], bool]:
    """The complete lines among the last `within` bytes of a file, and whether they are all. An unreadable file has
    none."""
    try:
        with open_inside(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - within))
            lines = file.read(within).split(b"\n")[:-1]
    except OSError:
        return [], True
    return lines[size > within :], size <= within


def first_record(path: Path, within: int = 1 << 16) -> dict[str, Any] | None:
    """The first line as a record, as `checked` leaves it; None where there is none, or it cannot be read."""
    try:
        with open_inside(path) as file:
            line = file.readline(within)
    except OSError:
        return None
    records = parse_lines([line])[0] if line.endswith(b"\n") else []
    return checked(tame(records[0])) if records else None


def last_record(path: Path, within: int = 1 << 16) -> dict[str, Any] | None:
    """The last complete record, as `checked` leaves it, reading the end of the file only."""
    for line in reversed(tail_lines(path, within)[0]):
        if line.startswith(b"{") and (records := parse_lines([line])[0]):
            return checked(tame(records[0]))
    return None
