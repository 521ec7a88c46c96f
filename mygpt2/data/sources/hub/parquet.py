"""Parquet files on the hub: footers read once and kept, row groups read by one range request for the text alone."""

from __future__ import annotations

import io
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.checked import say_unwritable
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.filters import row_documents
from mygpt2.data.sources.hub.client import Changed, HubClient, Refused
from mygpt2.data.sources.local.unpack import Damaged
from mygpt2.data.sources.manifest import Manifest, SourceFile
from mygpt2.data.sources.parquet import check_text_column, chunk_range, text_chunk
from mygpt2.errors import TryAgain, UserError
from mygpt2.files import replace_file

FIRST_TAIL = 256 * 1024  # bytes: holds the footer of most files; FineWeb-Edu's are larger, which the first file teaches
LEAST_TAIL = 64 * 1024
KEPT_IN_MEMORY = 64  # parsed footers
FETCHES = 3  # of bytes that turn out to be no parquet
GAP = 64 << 10  # bytes between two columns that are fetched along, as another request would take longer


class Footers:
    """Footers by file: in memory, on disk under the content's identity, or by one request (two where it is large)."""

    def __init__(self, cache: Path, client: HubClient) -> None:
        self._cache_dir, self._folder, self._client = cache.parent, cache / "footers", client
        self._share = 0.0  # largest footer seen as a share of its file
        self.get = lru_cache(KEPT_IN_MEMORY)(self._get)  # safe among threads

    def _get(self, file: SourceFile) -> pq.FileMetaData:
        """Raises Outage, Refused and Changed as the client does, UserError for what is not parquet."""
        raw = self._load(file) or self._fetch(file)
        try:
            metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + raw))  # a file that is nothing but a footer
        except (pa.ArrowException, OSError) as error:
            raise Changed(f"the footer of {file.name} cannot be read") from error
        self._share = max(self._share, len(raw) / file.size)
        return metadata

    def _path(self, file: SourceFile) -> Path:
        return self._folder / file.identity[:2] / f"{file.identity}.footer"

    def _load(self, file: SourceFile) -> bytes | None:
        """The footer as kept on disk; None if it is not there or damaged (the compression has a checksum)."""
        try:
            raw = zlib.decompress(self._path(file).read_bytes())
        except (OSError, zlib.error):
            return None
        return raw if raw[-4:] == b"PAR1" and _footer_size(raw) == len(raw) else None

    def _fetch(self, file: SourceFile) -> bytes:
        guess = int(self._share * 1.15 * file.size) + 4096 if self._share else FIRST_TAIL
        tail = self._client.part(file, max(0, file.size - max(guess, LEAST_TAIL)), file.size)
        size = _footer_size(tail)
        if tail[-4:] != b"PAR1" or not 12 <= size <= file.size:
            raise UserError(f"{file.name} is named like parquet and is none; choose another source or configuration")
        if size > len(tail):
            tail = self._client.part(file, file.size - size, file.size - len(tail)) + tail
        path = self._path(file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, zlib.compress(tail[-size:], 1))
        except OSError as error:
            say_unwritable(self._cache_dir, error)
        return tail[-size:]


def _footer_size(tail: bytes) -> int:
    """Bytes of a footer with its length and magic, from a file's last eight bytes."""
    return int.from_bytes(tail[-8:-4], "little") + 8


class HubParquetReader:
    """Reads the texts of a row group by one range request, or two with the columns of filters. Thread-safe."""

    def __init__(self, manifest: Manifest, client: HubClient, footers: Footers) -> None:
        self._manifest, self._client, self._footers = manifest, client, footers

    def read(self, block: int) -> list[Any]:
        """The documents of a block. Raises Outage for what may pass, Unreadable for what will not."""
        file = self._manifest.file_of(block)
        problem = ""
        try:
            for _ in range(FETCHES):  # bytes that make no parquet are fetched again: the way may have damaged them
                try:
                    return self._read(file, block)
                except (pa.ArrowException, OSError) as error:
                    problem = " ".join(str(error).split())[:200]
        except (Changed, Damaged) as error:
            raise Unreadable(block, f"{file.name}: {error}") from error
        except Refused as error:
            if error.status in (401, 403):
                raise TryAgain(
                    f"the hub denies access to {file.name} of {self._manifest.source} ({error.status}); "
                    "check HF_TOKEN and the dataset's conditions, then start the same command again"
                ) from error
            raise Unreadable(block, f"{file.name}: {error}") from error
        raise Unreadable(block, f"{file.name}: no parquet, however often it is fetched ({problem})")

    def _read(self, file: SourceFile, block: int) -> list[Any]:
        row = self._manifest.blocks[block]
        group, column, filters = int(row["part"]), self._manifest.text_column, self._manifest.filters
        metadata = self._footers.get(file)
        schema = metadata.schema.to_arrow_schema()
        check_text_column(schema, column, file.name)
        if filters:
            filters.check(schema, file.name)
        columns = {column, *(filters.columns.values() if filters else ())}
        ranges = together([chunk_range(text_chunk(metadata, group, each)) for each in columns])
        parts = [(start, self._client.part(file, start, stop)) for start, stop in ranges]
        source = pa.PythonFile(Sparse(file.size, parts), mode="r")
        parquet = pq.ParquetFile(source, metadata=metadata, pre_buffer=False, page_checksum_verification=True)
        documents = row_documents(parquet, column, filters, group)
        if len(documents) != row["rows"]:
            raise OSError(f"{len(documents)} rows where the footer promises {row['rows']}")
        return documents

    def close(self) -> None:
        self._client.close()


def together(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Byte ranges in order, those less than GAP apart as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] < GAP:
            start, before = joined.pop()
            stop = max(before, stop)
        joined.append((start, stop))
    return joined


class Sparse(io.RawIOBase):
    """A file of which only some byte ranges are there; reading elsewhere is an error."""

    def __init__(self, size: int, parts: list[tuple[int, bytes]]) -> None:
        super().__init__()
        self._size, self._parts, self._at = size, parts, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._at + size)
        for start, part in self._parts:
            if start <= self._at and stop <= start + len(part):
                found = part[self._at - start : stop - start]
                self._at = stop
                return found
        raise OSError(f"bytes {self._at} to {stop} were not fetched")
