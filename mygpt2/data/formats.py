"""Reading the blocks of local files: parquet row groups, byte ranges of jsonl and txt, token ranges of .bin files.

Every reader's `read(block)` is thread-safe and gives the documents of one block, in file order; what is not text
comes as None. A file that is not what the manifest describes any more is Unreadable, not silently something else.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.faults import Outage, Unreadable
from mygpt2.data.manifest import Manifest, SourceFile
from mygpt2.data.textfiles import LineRange, split_text, text_range

OPEN_FILES = 8  # per thread; blocks come from all over the set, and every open file holds its footer
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
# The machine or the file server is in trouble, not the file.
_TRANSIENT = frozenset(
    {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN}
)

TOKENS_MAGIC, TOKENS_VERSION, TOKENS_HEADER = 20240520, 1, 1024  # the published layout: 256 int32, then uint16


class Damaged(ValueError):
    """A file that is not what it should be."""


class LocalReader:
    """What the readers of local files share: the check that the file is still the same, and the naming of faults."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def read(self, block: int) -> list[Any]:
        """The documents of a block. Unreadable when the file is damaged or changed, Outage when the system fails."""
        with _faults(block):
            for file in self.manifest.files_of(block):
                _check_unchanged(file)
            row = self.manifest.blocks[block]
            documents = self._documents(row)
            if row["rows"] >= 0 and len(documents) != row["rows"]:
                raise Damaged(f"{len(documents)} documents where {int(row['rows'])} were promised")
            return documents

    def close(self) -> None:
        """Let go of open files."""

    def _documents(self, row: np.void) -> list[Any]:
        raise NotImplementedError

    def _path(self, row: np.void) -> str:
        return self.manifest.files[int(row["file"])].location


@contextmanager
def _faults(block: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _TRANSIENT:
            raise Outage(f"{error.strerror}: {error.filename}") from error
        raise Unreadable(block, _first_line(error)) from error
    except (pa.ArrowException, Damaged) as error:
        raise Unreadable(block, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_unchanged(file: SourceFile) -> None:
    status = os.stat(file.location)
    if status.st_size != file.size or (file.mtime_ns and status.st_mtime_ns != file.mtime_ns):
        raise Damaged(f"{file.name} was changed since the run began")


class ParquetReader(LocalReader):
    """Row groups, or rows of a large one. Page checksums are verified where the file has them."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._local = threading.local()  # an open parquet file is not safe to share between threads

    def _documents(self, row: np.void) -> list[Any]:
        source, group = self._open(self._path(row)), int(row["part"])
        columns = [self.manifest.text_column]
        if int(row["stop"]) < 0:
            return column_texts(source.read_row_group(group, columns=columns, use_threads=False).column(0))
        return row_range(source, group, columns, int(row["start"]), int(row["stop"]))

    def _open(self, path: str) -> pq.ParquetFile:
        files: OrderedDict[str, pq.ParquetFile] = self._local.__dict__.setdefault("files", OrderedDict())
        if path not in files:
            files[path] = pq.ParquetFile(path, page_checksum_verification=True)
            if len(files) > OPEN_FILES:
                files.popitem(last=False)[1].close()
        files.move_to_end(path)
        return files[path]


def row_range(source: pq.ParquetFile, group: int, columns: list[str], start: int, stop: int) -> list[Any]:
    """Rows [start, stop) of a row group. What lies before them is decoded too: parquet has no way round it."""
    texts: list[Any] = []
    at = 0
    for batch in source.iter_batches(batch_size=stop - start, row_groups=[group], columns=columns, use_threads=False):
        low, high = max(start - at, 0), min(stop - at, len(batch))
        if low < high:
            texts.extend(column_texts(batch.column(0).slice(low, high - low)))
        at += len(batch)
        if at >= stop:
            break
    return texts


def column_texts(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The strings of an Arrow column; None for nulls and for bytes that are not UTF-8."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(value) for value in column.cast(pa.binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


class JsonlReader(LocalReader):
    """Lines of JSON objects. A line belongs to the block where it starts; one that is no object counts as not text."""

    def _documents(self, row: np.void) -> list[Any]:
        path = self._path(row)
        if _is_compressed(path):
            content = _decompressed(path)
        else:
            with open(path, "rb") as f:
                content = LineRange(f).read(int(row["start"]), int(row["stop"]))
        key = self.manifest.text_column
        return [json_text(line, key) for line in content.split(b"\n") if line and not line.isspace()]


def json_text(line: bytes, key: str) -> Any:
    """The value of `key` in a line of JSON, or None."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record.get(key) if isinstance(record, dict) else None


class TextReader(LocalReader):
    """Small files are a document each; larger ones are cut at blank lines, see `textfiles`."""

    def _documents(self, row: np.void) -> list[Any]:
        first, path = int(row["file"]), self._path(row)
        if int(row["stop"]) >= 0:
            with open(path, "rb") as f:
                return split_text(text_range(f, int(row["start"]), int(row["stop"])))
        if _is_compressed(path):
            return split_text(_decompressed(path))
        files = self.manifest.files[first : first + int(row["rows"])]
        return [_decoded(Path(file.location).read_bytes()) for file in files]


def _is_compressed(path: str) -> bool:
    return Path(path).suffix in COMPRESSION


def _decompressed(path: str) -> bytes:
    with pa.OSFile(path) as raw, pa.CompressedInputStream(raw, COMPRESSION[Path(path).suffix]) as stream:
        return stream.read()


class TokensReader(LocalReader):
    """Token ranges of pre-tokenized uint16 files, cut into documents at end-of-text, which may stand before or after.

    A document belongs to the block where it starts. One that runs on to the next end-of-text in the following block is
    read to there; if the following block has none, it is cut at the border, so that memory stays bounded.
    """

    def __init__(self, manifest: Manifest, eot_id: int) -> None:
        super().__init__(manifest)
        self._eot = eot_id

    def _documents(self, row: np.void) -> list[Any]:
        start, stop = int(row["start"]), int(row["stop"])
        path = self._path(row)
        offset, count = tokens_layout(path)
        before = _tokens(path, offset, start - 1, start) if start else np.empty(0, np.uint16)
        own = _tokens(path, offset, start, stop)
        ends = np.flatnonzero(own == self._eot)
        if start and before[0] != self._eot and len(ends):
            own = own[ends[0] + 1 :]  # the beginning belongs to the block before
        if len(own) and own[-1] != self._eot and stop < count:
            own = np.concatenate([own, self._continued(path, offset, stop, min(count, 2 * stop - start))])
        cuts = np.flatnonzero(own == self._eot)
        pieces = np.split(own, cuts)
        return [piece for piece in (p[1:] if len(p) and p[0] == self._eot else p for p in pieces) if len(piece)]

    def _continued(self, path: str, offset: int, start: int, stop: int) -> np.ndarray:
        """The tokens up to the first end-of-text of the next block; none where that block has none."""
        following = _tokens(path, offset, start, stop)
        ends = np.flatnonzero(following == self._eot)
        return following[: ends[0]] if len(ends) else following[:0]


def tokens_layout(path: str) -> tuple[int, int]:
    """(bytes before the first token, tokens) of a file: the published layout with its header, or bare uint16.

    Damaged when the size does not fit.
    """
    size = os.path.getsize(path)
    header = np.fromfile(path, "<i4", 3) if size >= TOKENS_HEADER else np.zeros(3, np.int32)
    if header[0] != TOKENS_MAGIC:
        if size % 2:
            raise Damaged(f"{size} bytes are no whole number of uint16 tokens")
        return 0, size // 2
    if header[1] != TOKENS_VERSION:
        raise Damaged(f"layout version {header[1]}; only version {TOKENS_VERSION} is known")
    if TOKENS_HEADER + 2 * int(header[2]) != size:
        raise Damaged(f"the header promises {header[2]} tokens, the file has {(size - TOKENS_HEADER) / 2:g}")
    return TOKENS_HEADER, int(header[2])


def _tokens(path: str, offset: int, start: int, stop: int) -> np.ndarray:
    tokens = np.fromfile(path, "<u2", stop - start, offset=offset + 2 * start)
    if len(tokens) != stop - start:
        raise Damaged("the file is shorter than it was")
    return tokens
