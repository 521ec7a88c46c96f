"""Looking into a file at the opening of a source: what identifies its content, and whether it is what it should be.

Content identity is cheap by design. Parquet: the footer (sizes, offsets and statistics of every column chunk) and
sampled pages. Other files: all bytes up to 64 MiB, above that 64 sampled stretches of 64 KiB with both ends. XXH3-128
throughout. The same bytes are judged as text. An encoding that a byte order mark tells becomes part of the identity,
as it decides how the bytes are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import xxhash

from mygpt2.data.sources.local.encoding import HEAD, TextCheck, as_utf8, foreign, mark_of
from mygpt2.data.sources.local.ipc import MAGIC, MARK
from mygpt2.data.sources.local.textfiles import LONGEST_LINE
from mygpt2.data.sources.local.unpack import CHUNK, Damaged, chunks, compression_of, whole
from mygpt2.data.sources.manifest import Kind, SourceFile
from mygpt2.errors import UserError, first_line, shown

WHOLE = 64 << 20  # bytes that are hashed completely
ONE_DOCUMENT = 1 << 16  # bytes up to which a text file is a document by itself

_OWN: dict[Kind, tuple[bytes, ...]] = {"parquet": (b"PAR1",), "arrow": (MAGIC, MARK)}  # begin files of a kind

Feed = Callable[[bytes, int, bool], None]


@dataclass(frozen=True)
class Described:
    """A file, and what is to be told of it.

    `first`: the first record of a jsonl, or as a string why there is none, None where it is empty. `trouble`: why not
    even its beginning can be read.
    """

    file: SourceFile
    check: TextCheck
    first: Any = None
    trouble: str = ""

    @property
    def complaint(self) -> str:
        """What is wrong with the file and what to do; "" where nothing is."""
        return self.trouble or (f"is {self.check.complaint}" if self.check.bad else "")

    @property
    def lost(self) -> bool:
        """Hardly anything of it can be used."""
        return bool(self.trouble) or self.check.lost


def describe(root: Path, path: Path, kind: Kind) -> Described:
    """A file of a source. UserError when it is not a file of that kind, or cannot be opened."""
    try:
        with path.open("rb") as f:
            return _described(f, root, path, kind)
    except Damaged as error:
        raise UserError(f"{shown(path)} {error}") from error
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be read ({error.strerror or error}); check the file and its permissions"
        ) from error


def _described(f: BinaryIO, root: Path, path: Path, kind: Kind) -> Described:
    status = os.fstat(f.fileno())
    head = f.read(HEAD)
    packed = compression_of(path)
    what = None if head.startswith(_OWN.get(kind, ())) else foreign(head, kind)
    if what and not (packed and what.startswith(packed)):
        raise Damaged(f"is {what}")
    check, mark, first, trouble = TextCheck(by_line=kind == "jsonl"), "", None, ""
    if kind == "parquet":
        identity = _parquet_identity(f, status.st_size)
    else:
        judged = kind in ("jsonl", "txt") and not packed
        mark = mark_of(head) if judged else ""
        identity = _identity(f, status.st_size, check.add if judged and mark in ("", "utf-8-sig") else None)
    try:
        content = next(chunks(path), b"") if packed else b""
        if content and kind in ("jsonl", "txt"):
            mark = mark_of(content)
            if mark in ("", "utf-8-sig"):
                check.add(content, 0, len(content) < CHUNK)
        if kind == "jsonl":
            first = _first_record(path, mark)
    except (OSError, pa.ArrowException, Damaged) as error:
        trouble = _trouble(error)
    if check.hopeless:
        raise Damaged(f"is {check.hopeless}")
    if mark and not (mark == "utf-8-sig" and kind == "jsonl"):
        identity += f"+{mark}"
    if kind == "txt" and check.bad and status.st_size <= ONE_DOCUMENT and not packed:
        check.units = check.bad = 1
    name = path.relative_to(root).as_posix()
    file = SourceFile(name, status.st_size, identity, str(path.resolve()), status.st_mtime_ns)
    return Described(file, check, first, trouble)


def _trouble(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        raise error
    reason = first_line(error)
    if isinstance(error, Damaged):
        return reason if reason.startswith("begins") else f"cannot be read: {reason}"
    return f"cannot be unpacked ({reason}); fetch it again, or rename it if it is not packed"


def read_whole(file: SourceFile) -> bool:
    """Whether a text file can only be read from its beginning to its end: packed, or not of a byte's characters."""
    return bool(compression_of(file.name)) or file.identity.partition("+")[2] in ("utf-16", "utf-32", "gb18030")


def _identity(f: BinaryIO, size: int, judge: Feed | None = None) -> str:
    digest = xxhash.xxh3_128(str(size).encode())
    for stretch, at in _stretches(f, size):
        digest.update(stretch)
        if judge:
            judge(stretch, at, at + len(stretch) >= size)
    return digest.hexdigest()


def _stretches(f: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """(bytes, their place): all of a file, or samples of a large one."""
    f.seek(0)
    if size > WHOLE:
        yield from _samples(f, size, 64, 1 << 16)
        return
    at = 0
    while chunk := f.read(CHUNK):
        yield chunk, at
        at += len(chunk)


def _samples(f: BinaryIO, size: int, count: int, length: int) -> Iterator[tuple[bytes, int]]:
    for place in np.linspace(0, max(0, size - length), count).astype(int).tolist():
        f.seek(place)
        yield f.read(length), place


def _parquet_identity(f: BinaryIO, size: int) -> str:
    f.seek(max(0, size - 8))
    tail = f.read(8)
    footer = int.from_bytes(tail[:4], "little") + 8
    if tail[4:] == b"PARE":
        raise Damaged("is an encrypted parquet file; write it without encryption")
    if tail[4:] != b"PAR1" or footer > size:
        raise Damaged("is not a readable parquet file (no parquet footer at its end); remove it or fetch it again")
    digest = xxhash.xxh3_128(str(size).encode())
    f.seek(size - footer)
    digest.update(f.read(footer))
    for stretch, _ in _samples(f, size - footer, 16, 4096):
        digest.update(stretch)
    return digest.hexdigest()


def _first_record(path: Path, mark: str) -> Any:
    """The first line of a jsonl as an object; as a string why it is none; None for a file of blank lines."""
    content = as_utf8(whole(path)) if mark not in ("", "utf-8-sig") else _first_line(path)
    line = as_utf8(content).lstrip().split(b"\n", 1)[0]
    if not line:
        return None
    if b"\r" in line.strip():
        return "its lines end in a carriage return alone; convert them, with `tr '\\r' '\\n'` for instance"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        if line.strip() in (b"[", b"{") or line.startswith(b"["):
            return "it holds one JSON value over several lines; write an object a line, with `jq -c '.[]'` for instance"
        return f"{' '.join(str(error).split())[:200]}; check the file"
    if isinstance(record, list):
        return "the line is an array; write an object a line, with `jq -c '.[]'` for instance"
    return record if isinstance(record, dict) else "the line is not an object; write an object a line"


def _first_line(path: Path) -> bytes:
    """The bytes of a file up to the end of its first line that is not blank."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks(path):
        chunk = chunk if parts else chunk.lstrip()
        parts += [chunk] if chunk else []
        size += len(chunk)
        if b"\n" in chunk:
            break
        if size > LONGEST_LINE:
            raise Damaged(f"begins with a line of more than {LONGEST_LINE >> 20} MB; write an object a line")
    return b"".join(parts)
