"""Reading the blocks of local files: parquet row groups, byte ranges of jsonl and txt, token ranges of .bin files.

Every reader's `read(block)` is thread-safe and gives the documents of one block, in file order; what is not text
comes as None. A file that is not what the manifest describes any more is Unreadable, not silently something else.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.filters import Filters, row_documents
from mygpt2.data.sources.local.encoding import as_utf8, text_of
from mygpt2.data.sources.local.textfiles import line_range, split_text, text_range
from mygpt2.data.sources.local.unpack import Changed, Damaged, whole
from mygpt2.data.sources.manifest import Manifest
from mygpt2.errors import first_line

OPEN_FILES = 8  # per thread; blocks come from all over the set, and every open file holds its footer
# The machine or the file server is in trouble, not the file.
_TRANSIENT = frozenset(
    {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN}
)

TOKENS_MAGIC, TOKENS_VERSION, TOKENS_HEADER = 20240520, 1, 1024  # the published layout: 256 int32, then uint16
WIDE_MAGIC, WIDE_VERSION = 20240801, 7  # llm.c's for Llama 3: uint32
_PUBLISHED = {TOKENS_MAGIC: (TOKENS_VERSION, "<u2"), WIDE_MAGIC: (WIDE_VERSION, "<u4")}


class LocalReader:
    """What the readers of local files share: the check that the file is still the same, and the naming of faults."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def read(self, block: int) -> list[Any]:
        """The documents of a block. Unreadable when the file is damaged or changed, Outage when the system fails."""
        try:
            for file in self.manifest.files_of(block):
                status = os.stat(file.location)
                if status.st_size != file.size or (file.mtime_ns and status.st_mtime_ns != file.mtime_ns):
                    raise Changed(f"{file.name} was changed since the run began")
            row = self.manifest.blocks[block]
            documents = self._documents(row)
            if row["rows"] >= 0 and len(documents) != row["rows"]:
                raise Damaged(f"{len(documents)} documents where {int(row['rows'])} were promised")
            return documents
        except OSError as error:
            if error.errno in _TRANSIENT:
                raise Outage(f"{error.strerror}: {error.filename}") from error
            raise Unreadable(block, first_line(error)) from error
        except MemoryError as error:
            raise Unreadable(block, "it does not fit into memory; write it with smaller parts") from error
        except (
            pa.ArrowException,
            ValueError,
            OverflowError,
        ) as error:  # Damaged, and what torn files make of lengths
            raise Unreadable(block, first_line(error)) from error

    def close(self) -> None:
        """Let go of open files."""

    def _documents(self, row: np.void) -> list[Any]:
        raise NotImplementedError

    def _path(self, row: np.void) -> str:
        return self.manifest.files[int(row["file"])].location

    def _text(self, row: np.void, cut: Callable[[BinaryIO, int, int], bytes]) -> bytes:
        """The bytes of a block in UTF-8: of the whole file, or what `cut` takes of it."""
        if int(row["stop"]) < 0:
            return as_utf8(whole(self._path(row)))
        with open(self._path(row), "rb") as f:
            content = cut(f, int(row["start"]), int(row["stop"]))
        return as_utf8(content) if row["start"] == 0 else content


class ParquetReader(LocalReader):
    """Row groups, or rows of a large one. Page checksums are verified where the file has them."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._local = threading.local()  # an open parquet file is not safe to share between threads

    def _documents(self, row: np.void) -> list[Any]:
        if not hasattr(self._local, "open"):
            self._local.open = lru_cache(OPEN_FILES)(partial(pq.ParquetFile, page_checksum_verification=True))
        source = self._local.open(self._path(row))
        place = int(row["part"]), int(row["start"]), int(row["stop"])
        return row_documents(source, self.manifest.text_column, self.manifest.filters, *place)


class JsonlReader(LocalReader):
    """Lines of JSON objects. A line belongs to the block where it starts; what is not an object counts as not text."""

    def _documents(self, row: np.void) -> list[Any]:
        key, filters = self.manifest.text_column, self.manifest.filters
        lines = self._text(row, line_range).split(b"\n")
        return [json_text(line, key, filters) for line in lines if line and not line.isspace()]


def json_text(line: bytes, key: str, filters: Filters | None = None) -> Any:
    """The value of `key` in a line of JSON as the filters have it, or None."""
    record = read_record(line)
    if record is None:
        return None
    return record.get(key) if filters is None else filters.of_record(record.get(key), record)


def read_record(content: bytes) -> dict[str, Any] | None:
    """An object of JSON; None for what is none."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: brackets in brackets without end
        return None
    return record if isinstance(record, dict) else None


class TextReader(LocalReader):
    """Small files are a document each; larger ones are cut at blank lines, see `textfiles`."""

    def _documents(self, row: np.void) -> list[Any]:
        if int(row["stop"]) >= 0 or int(row["rows"]) < 0:
            return split_text(self._text(row, text_range))
        first = int(row["file"])
        files = self.manifest.files[first : first + int(row["rows"])]
        return [text_of(as_utf8(whole(file.location))) for file in files]


class TokensReader(LocalReader):
    """Token ranges of pre-tokenized files, cut into documents at end-of-text, which may stand before or after.

    A document belongs to the block where it starts. One that runs on to the next end-of-text in the following block is
    read to there; if the following block has none, it is cut at the border, so that memory stays bounded.
    """

    def __init__(self, manifest: Manifest, eot_id: int) -> None:
        super().__init__(manifest)
        self._eot = eot_id

    def _documents(self, row: np.void) -> list[Any]:
        start, stop = int(row["start"]), int(row["stop"])
        file = tokens_layout(self._path(row))
        before = file.read(start - 1, start) if start else np.empty(0, file.dtype)
        own = file.read(start, stop)
        ends = np.flatnonzero(own == self._eot)
        if start and before[0] != self._eot and len(ends):
            own = own[ends[0] + 1 :]  # the beginning belongs to the block before
        if len(own) and own[-1] != self._eot and stop < file.count:
            own = np.concatenate([own, self._continued(file, stop, min(file.count, 2 * stop - start))])
        cuts = np.flatnonzero(own == self._eot)
        pieces = np.split(own, cuts)
        return [piece for piece in (p[1:] if len(p) and p[0] == self._eot else p for p in pieces) if len(piece)]

    def _continued(self, file: TokenFile, start: int, stop: int) -> np.ndarray:
        """The tokens up to the first end-of-text of the next block; none where that block has none."""
        following = file.read(start, stop)
        ends = np.flatnonzero(following == self._eot)
        return following[: ends[0]] if len(ends) else following[:0]


@dataclass(frozen=True)
class TokenFile:
    """Where the ids lie in a pre-tokenized file: `count` of `dtype` behind `offset` bytes."""

    path: str
    offset: int
    count: int
    dtype: str = "<u2"

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids [start, stop). Damaged when they are not there."""
        size = np.dtype(self.dtype).itemsize
        tokens = np.fromfile(self.path, self.dtype, stop - start, offset=self.offset + size * start)
        if len(tokens) != stop - start:
            raise Changed("the file is shorter than it was")
        return tokens


def tokens_layout(path: str) -> TokenFile:
    """The layout of a file: llm.c's with its header, a numpy array, or bare uint16. Damaged where that cannot be."""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        head = f.read(TOKENS_HEADER)
        if head.startswith(b"\x93NUMPY"):
            return _numpy_layout(f, path, size)
    found = published(head, size)
    return TokenFile(path, TOKENS_HEADER, *found) if found else _bare_layout(path, size)


def published(head: bytes, size: int) -> tuple[int, str] | None:
    """(tokens, their dtype) by a header of 256 int32, None without one. Damaged when the file's size does not fit it.

    Source of the headers: dev/data/data_common.py of karpathy/llm.c.
    """
    if len(head) < TOKENS_HEADER:
        return None
    magic, version, count = struct.unpack("<3i", head[:12])
    if magic not in _PUBLISHED:
        return None
    known, dtype = _PUBLISHED[magic]
    if version != known:
        raise Damaged(f"layout version {version}; only version {known} is known")
    width = np.dtype(dtype).itemsize
    if TOKENS_HEADER + width * count != size:
        raise Damaged(f"the header promises {count} tokens, the file has {(size - TOKENS_HEADER) / width:g}")
    return count, dtype


def _bare_layout(path: str, size: int) -> TokenFile:
    if size % 2:
        raise Damaged(f"{size} bytes are not a whole number of uint16 tokens")
    first = np.fromfile(path, "<u2", 4096)
    if len(first) >= 32 and not first.any():
        raise Damaged("it begins with zeros alone, as a file that was not written to its end")
    high = first[1::2]
    if len(high) >= 32 and high.max() <= 3 and first[::2].max() > 3:  # ids below 262,144
        raise Damaged("every second number is nearly 0, as in ids of 32 bits without a header")
    return TokenFile(path, 0, size // 2)


def _numpy_layout(f: BinaryIO, path: str, size: int) -> TokenFile:
    """A .npy file of ids. No object arrays, which are pickles."""
    f.seek(0)
    version = np.lib.format.read_magic(f)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(f)
    if dtype not in (np.dtype("<u2"), np.dtype("<u4")) or len(shape) != 1:
        raise Damaged(f"it is a numpy array of {dtype} and shape {shape}; ids are one row of uint16 or uint32")
    if f.tell() + shape[0] * dtype.itemsize != size:
        raise Damaged(f"its header promises {shape[0]} tokens, the file has {(size - f.tell()) / dtype.itemsize:g}")
    return TokenFile(path, f.tell(), shape[0], dtype.str)
