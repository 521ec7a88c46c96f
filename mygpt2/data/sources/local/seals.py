"""Checksums of local files, part by part, and the file that keeps them.

A part is a row group's text, a run of record batches, a byte range of a text file, or all the rest of the file: every
byte is in one part, and a change is told by its place.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mygpt2.data.sources.local.arrow import numbers_of
from mygpt2.data.sources.local.ipc import layout_of
from mygpt2.data.sources.manifest import ROWS, WORDS, Manifest, SourceFile
from mygpt2.data.sources.parquet import chunk_range, text_chunk

CHUNK = 4 << 20
REST, WHOLE_FILE = "outside the text", "the whole file"
Piece = tuple[int, int, str]  # first byte, last + 1, what it is


@dataclass(frozen=True)
class Seal:
    """One file. `stat`: times of change in ns and the inode, which a write changes. `parts`: none until it was read."""

    name: str
    size: int
    stat: tuple[int, ...]
    parts: Mapping[str, str]

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Seal:
        return cls(record["name"], record["size"], tuple(record["stat"]), record["parts"])

    @property
    def state(self) -> tuple[int, tuple[int, ...]]:
        """What can be had without reading the file."""
        return self.size, self.stat

    def differences(self, now: Seal) -> list[str]:
        """The parts that are others now; empty where one of the two was not read."""
        if not self.parts or not now.parts:
            return []
        if self.size != now.size:
            return [f"{self.size:,} bytes then, {now.size:,} now"]
        return [part for part in {**self.parts, **now.parts} if self.parts.get(part) != now.parts.get(part)]


def pieces_of(manifest: Manifest, number: int) -> list[Piece]:
    """The parts of a file that blocks are made of, in the order of their places."""
    file, rows = manifest.files[number], manifest.blocks[manifest.blocks["file"] == number]
    pieces: list[Piece] = []
    if manifest.kind in ROWS:
        try:
            pieces = _of_rows(manifest, file, rows)
        except (OSError, ValueError, pa.ArrowException):  # no part can be told: the file is one
            pieces = []
    elif len(rows) and (rows["stop"] >= 0).all():
        places = [_byte_range(manifest, number, row) for row in rows]
        pieces = [(start, stop, _bytes(start, stop)) for start, stop in places]
    pieces = sorted(piece for piece in pieces if 0 <= piece[0] < piece[1] <= file.size)
    return pieces or [(0, file.size, WHOLE_FILE)]


def _of_rows(manifest: Manifest, file: SourceFile, rows: np.ndarray) -> list[Piece]:
    """Where the text of row groups, and record batches with all that is in them, lie in a file."""
    word = WORDS[manifest.kind][0]
    if manifest.kind == "arrow":
        layout = layout_of(file.location)
        spans = {int(row["part"]): numbers_of(row, layout) for row in rows}
        places = {part: layout.batches[span.start : span.stop] for part, span in spans.items()}
        return [(int(p[0, 0]), int(p[-1, 1]), f"{word} {part}") for part, p in places.items() if len(p)]
    metadata, filters = pq.read_metadata(file.location), manifest.filters
    columns = {manifest.text_column, *(filters.columns.values() if filters else ())}
    groups = sorted({int(part) for part in rows["part"]})
    return [(*chunk_range(text_chunk(metadata, g, column)), f"{word} {g}") for g in groups for column in columns]


def label_of(manifest: Manifest, block: int) -> tuple[str, str]:
    """(file, part) of a block, as a seal names them."""
    row, number = manifest.blocks[block], int(manifest.blocks["file"][block])
    if manifest.kind in ROWS:
        part = f"{WORDS[manifest.kind][0]} {int(row['part'])}"
    else:
        part = WHOLE_FILE if row["stop"] < 0 else _bytes(*_byte_range(manifest, number, row))
    return manifest.files[number].name, part


def _bytes(start: int, stop: int) -> str:
    return f"bytes {start} to {stop - 1}"


def _byte_range(manifest: Manifest, number: int, row: np.void) -> tuple[int, int]:
    """First byte and last + 1 of a block that is a range of bytes or of ids; ids are the end of their file."""
    start, stop = int(row["start"]), int(row["stop"])
    if manifest.kind != "tokens":
        return start, stop
    size, count = manifest.files[number].size, int(manifest.blocks["stop"][manifest.blocks["file"] == number].max())
    width = 4 if count > 512 and size >= 4 * count else 2
    offset = max(0, size - width * count)
    return offset + width * start, offset + width * stop


def seal(manifest: Manifest, number: int, pause: Callable[[float], bool] = lambda _: False) -> Seal | None:
    """The checksums of a file as it is now; None when `pause(seconds a chunk took)` says to stop. Raises OSError."""
    file, pieces = manifest.files[number], pieces_of(manifest, number)
    size, stat = _traces(file)
    rest, parts, at = xxhash.xxh3_64(), dict[str, Any](), 0
    with open(file.location, "rb", buffering=0) as f:
        for start, stop, label in [*pieces, (size, size, REST)]:
            if start < at:  # the parts of a file never overlap, unless its footer is wrong
                continue
            own = rest if label == REST else parts.setdefault(label, xxhash.xxh3_64())
            for digest, until in ((rest, start), (own, stop)):
                while at < until:
                    began = time.perf_counter()
                    chunk = f.read(min(CHUNK, until - at))
                    if not chunk:
                        raise OSError(f"{file.location} became shorter while it was read")
                    digest.update(chunk)
                    at += len(chunk)
                    if pause(time.perf_counter() - began):
                        return None
    if at > sum(stop - start for start, stop, _ in pieces):
        parts[REST] = rest
    return Seal(file.name, size, stat, {label: digest.hexdigest() for label, digest in parts.items()})


def _traces(file: SourceFile) -> tuple[int, tuple[int, ...]]:
    """Size, and what a write changes. Raises OSError."""
    found = os.stat(file.location)
    return found.st_size, (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def unread(file: SourceFile) -> Seal | None:
    """A seal of a file that was not read yet; None where there is no such file."""
    try:
        return Seal(file.name, *_traces(file), {})
    except OSError:
        return None


class SealFile:
    """Seals by name: a line each, under its own checksum; of two of a name the later one counts.

    The run folder has one; the cache folder has one for each folder that data came from.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        """`content` stands in for what is in the file. Raises OSError."""
        self.path = path
        self.damaged = 0
        self.seals: dict[str, Seal] = {}
        if content is None:
            content = path.read_bytes() if path.exists() else b""
        self._torn = bool(content) and not content.endswith(b"\n")  # the last line was not written to its end
        for line in content.splitlines():
            digest, _, body = line.partition(b" ")
            if digest == xxhash.xxh3_64_hexdigest(body).encode():
                found = Seal.from_json(json.loads(body))
                self.seals[found.name] = found
            else:
                self.damaged += 1

    def add(self, new: Seal) -> None:
        """Keep a seal. Raises OSError."""
        if self.seals.get(new.name) == new:
            return
        body = json.dumps(asdict(new), separators=(",", ":")).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as f:
            f.write(b"\n" * self._torn + xxhash.xxh3_64_hexdigest(body).encode() + b" " + body + b"\n")
        self._torn = False
        self.seals[new.name] = new
