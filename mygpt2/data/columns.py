"""A column of the documents of a whole block, read at once: what `beside` shows of one document, for all of them.

Parquet and Arrow files give one column of a row group, jsonl the value of a key of every line. What a file does not
have is None; what cannot be read is an Unreadable, and a hub that does not answer an Outage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.hub.client import Changed, HubClient, Refused
from mygpt2.data.sources.hub.dataset import hub_cache
from mygpt2.data.sources.hub.parquet import Footers, Sparse
from mygpt2.data.sources.local.arrow import batches_of
from mygpt2.data.sources.local.encoding import as_utf8
from mygpt2.data.sources.local.ipc import layout_of
from mygpt2.data.sources.local.textfiles import line_range
from mygpt2.data.sources.local.unpack import Damaged, whole
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture
from mygpt2.data.sources.parquet import chunk_range
from mygpt2.errors import UserError, first_line

MOST_BYTES = 64 << 20  # of a column of a row group on the hub
PATIENCE_S = 30.0  # for a hub that does not answer, by somebody who waits
MOST_LINES = 1000  # of a jsonl block whose keys are told
BROKEN = (OSError, ValueError, OverflowError, MemoryError, UserError, Changed, Refused, pa.ArrowException)
Values = list[Any]
T = TypeVar("T")


class Columns:
    """The columns beside the text of a source, or of each source of a mixture. One thread at a time."""

    def __init__(self, manifest: Manifest, cache_dir: Path, client: HubClient | None = None) -> None:
        """`client`: of the hub; made when it is first needed."""
        self.manifest, self._cache_dir, self._client = manifest, Path(cache_dir), client
        several = manifest.parts if isinstance(manifest, Mixture) else ()
        self._parts = [Columns(part.manifest, cache_dir, client) for part in several]
        self._opened: tuple[str, pq.ParquetFile | None] = ("", None)  # the last parquet file
        self._footers: Footers | None = None
        self._layout = lru_cache(8)(layout_of)

    def names(self, block: int) -> list[str]:
        """The columns or keys that the file of a block has beside the text. Raises as `values`."""
        if self._parts:
            own, within = self._own(block)
            return own.names(within)
        return self._guarded(block, lambda: [name for name in self._names(block) if name != self.manifest.text_column])

    def values(self, block: int, name: str) -> Values | None:
        """The value of a column for every document of a block, None where a document has none; None without the column.

        Raises Unreadable for a file that is gone, damaged or another one, Outage where the hub does not answer.
        """
        if self._parts:
            own, within = self._own(block)
            return own.values(within, name)
        found = self._guarded(block, lambda: self._values(block, name))
        pieces = self.manifest.pieces
        return found if found is None or not pieces else [value for value in found for _ in range(pieces)]

    def close(self) -> None:
        for part in self._parts:
            part.close()
        if self._opened[1] is not None:
            self._opened[1].close()
        if self._client is not None:
            self._client.close()

    def _own(self, block: int) -> tuple[Columns, int]:
        assert isinstance(self.manifest, Mixture)
        number = self.manifest.part_of(block)
        return self._parts[number], block - self.manifest.parts[number].first

    def _guarded(self, block: int, ask: Callable[[], T]) -> T:
        try:
            if self.manifest.revision is None:
                for file in self.manifest.files_of(block):
                    if os.stat(file.location).st_size != file.size:
                        raise Damaged(f"{file.name} is another file now")
            return ask()
        except Outage:
            raise
        except BROKEN as error:
            raise Unreadable(block, f"{self.manifest.file_of(block).name}: {first_line(error)}") from error

    def _names(self, block: int) -> list[str]:
        kind = self.manifest.kind
        if kind == "parquet":
            return list(self._parquet(block)[1].names)
        if kind == "arrow":
            return list(self._layout(self.manifest.file_of(block).location).schema.names)
        if kind == "jsonl":
            return list(dict.fromkeys(key for record in self._records(block)[:MOST_LINES] for key in record))
        return []

    def _values(self, block: int, name: str) -> Values | None:
        row, kind = self.manifest.blocks[block], self.manifest.kind
        if kind == "jsonl":
            found = [record.get(name) for record in self._records(block)]
            return self._whole(block, found)
        if kind == "arrow":
            path = self.manifest.file_of(block).location
            layout = self._layout(path)
            if layout.schema.names.count(name) != 1:
                return None
            batches = batches_of(path, layout, row, [name])
            return self._whole(block, [value for batch in batches for value in batch.column(name).to_pylist()])
        if kind != "parquet":
            return None
        source, schema = self._parquet(block, name)
        if schema.names.count(name) != 1:
            return None
        column = source.read_row_group(int(row["part"]), columns=[name], use_threads=False).column(0)
        if row["stop"] >= 0:
            column = column.slice(int(row["start"]), int(row["stop"] - row["start"]))
        return self._whole(block, column.to_pylist())

    def _whole(self, block: int, found: Values) -> Values:
        rows = int(self.manifest.blocks["rows"][block])
        if 0 <= rows != len(found):
            raise Damaged(f"{len(found)} documents where {rows} were read in training")
        return found

    def _records(self, block: int) -> list[dict[str, Any]]:
        """The objects of the lines of a block, as the reader numbers them: one for each line that is not blank."""
        row, path = self.manifest.blocks[block], self.manifest.file_of(block).location
        if row["stop"] < 0:
            content = as_utf8(whole(path))
        else:
            with open(path, "rb") as file:
                content = line_range(file, int(row["start"]), int(row["stop"]))
            content = as_utf8(content) if row["start"] == 0 else content
        return [_record(line) for line in content.split(b"\n") if line and not line.isspace()]

    def _parquet(self, block: int, name: str | None = None) -> tuple[pq.ParquetFile, pa.Schema]:
        """The opened file of a block and its schema. Of a file on the hub only the column is there, if one is named."""
        file = self.manifest.file_of(block)
        if self.manifest.revision is None:
            if self._opened[0] != file.location or self._opened[1] is None:
                if self._opened[1] is not None:
                    self._opened[1].close()
                self._opened = file.location, pq.ParquetFile(file.location)
            source = self._opened[1]
            assert source is not None
            return source, source.schema_arrow
        self._client = self._client or HubClient(budget_s=PATIENCE_S)
        self._footers = self._footers or Footers(hub_cache(self._cache_dir), self._client)
        metadata = self._footers.get(file)
        group = metadata.row_group(int(self.manifest.blocks["part"][block]))
        chunks = [group.column(i) for i in range(metadata.num_columns)
                  if name is not None and metadata.schema.column(i).path.partition(".")[0] == name]  # fmt: skip
        ranges = [chunk_range(chunk) for chunk in chunks]
        if (size := sum(stop - start for start, stop in ranges)) > MOST_BYTES:
            raise Damaged(f"{size >> 20} MB of the column belong together; allowed: {MOST_BYTES >> 20}")
        parts = [(start, self._client.part(file, start, stop)) for start, stop in ranges]
        opened = pa.PythonFile(Sparse(file.size, parts), mode="r")
        return pq.ParquetFile(opened, metadata=metadata, pre_buffer=False), metadata.schema.to_arrow_schema()


def _record(line: bytes) -> dict[str, Any]:
    """The object of a line; one without keys for what is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
