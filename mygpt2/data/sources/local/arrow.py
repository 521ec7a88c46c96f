"""Reading Arrow files block by block: record batches, several small ones together, rows of a large one.

The messages of a block are read and given to Arrow as a short stream of their own. Nothing is mapped into memory: a
file that is cut off while it is mapped ends the process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mygpt2.data.sources.filters import is_number
from mygpt2.data.sources.local.formats import LocalReader
from mygpt2.data.sources.local.ipc import END, Layout, check_unpacked, layout_of
from mygpt2.data.sources.local.unpack import ALWAYS_ALLOWED, Damaged
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.parquet import MOST_GROWTH, MOST_TEXT, column_texts

LAYOUTS = 256  # files whose layout is kept; one takes 24 bytes a record batch


class ArrowReader(LocalReader):
    """Record batches of Arrow streams and files, packed or not, with or without dictionaries."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._layout = lru_cache(LAYOUTS)(layout_of)

    def _documents(self, row: np.void) -> list[Any]:
        path, text, filters = self._path(row), self.manifest.text_column, self.manifest.filters
        beside = list(filters.columns.values()) if filters else []
        found = batches_of(path, self._layout(path), row, [text, *beside])
        texts = _values(found, text)
        return filters.applied(texts, {name: _values(found, name) for name in beside}) if filters else texts


def numbers_of(row: np.void, layout: Layout) -> range:
    """The record batches of a block: as many as hold its rows, or the one of which it has rows."""
    first = int(row["part"])
    if int(row["stop"]) >= 0:
        return range(first, first + 1)
    ends = np.cumsum(layout.batches[first:, 2])
    return range(first, first + 1 + int(np.searchsorted(ends, int(row["rows"]))))


def batches_of(path: str, layout: Layout, row: np.void, names: list[str]) -> list[pa.RecordBatch]:
    """The columns `names` of a block. Damaged, OSError or pa.ArrowException where it cannot be read."""
    numbers = numbers_of(row, layout)
    if not len(layout.batches) or numbers[-1] >= len(layout.batches):
        raise Damaged(f"it has {len(layout.batches)} record batches, and number {numbers[-1]} is to be read")
    parts = []
    with open(path, "rb") as f:
        for start, stop in layout.messages_for(numbers):
            f.seek(start)
            parts.append(f.read(stop - start))
            if len(parts[-1]) != stop - start:
                raise Damaged("it is shorter than it was")
            check_unpacked(parts[-1])
    fields = sorted({layout.schema.get_field_index(name) for name in names})
    options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    with pa.ipc.open_stream(b"".join([layout.head, *parts, END]), options=options) as stream:
        found = list(stream)
    for batch in found:
        batch.validate()
    if (stop := int(row["stop"])) < 0:
        return found
    return [batch.slice(int(row["start"]), stop - int(row["start"])) for batch in found]


def values_of(manifest: Manifest, block: int, wanted: Callable[[pa.DataType], bool]) -> dict[str, list[Any]]:
    """What the columns of a wanted type hold in a block of an Arrow file, by name; the text aside."""
    path = manifest.file_of(block).location
    layout = layout_of(path)
    names = [field.name for field in layout.schema if field.name != manifest.text_column and wanted(field.type)]
    found = batches_of(path, layout, manifest.blocks[block], names) if names else []
    return {name: _values(found, name) for name in names}


def _values(batches: list[pa.RecordBatch], name: str) -> list[Any]:
    """A column of numbers or of texts."""
    columns = [batch.column(name) for batch in batches]
    stored = sum(batch.get_total_buffer_size() for batch in batches)
    return [x for c in columns for x in (c.to_pylist() if is_number(c.type) else texts_of(c, stored))]


def texts_of(column: pa.Array, stored: int) -> list[Any]:
    """The strings of a column; None for nulls and for bytes that are not UTF-8. Damaged where they are no strings.

    What a dictionary's values, or overlapping views, come to is bounded by a multiple of the `stored` bytes.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        values = texts_of(column.dictionary, stored)
        column.indices.validate(full=True)
        places = column.indices.to_pylist()
        if any(place is not None and not 0 <= place < len(values) for place in places):
            raise Damaged("a dictionary has not the value that a row names")
        lengths = np.array([len(value or "") for value in values] or [0])
        _bounded(int(lengths[[place for place in places if place is not None]].sum()) if values else 0, stored)
        return [None if place is None else values[place] for place in places]
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column.validate(full=True)
        views = np.frombuffer(column.buffers()[1], "<i4").reshape(-1, 4)[column.offset : column.offset + len(column)]
        _bounded(int(views[:, 0].astype(np.int64).sum()), stored)  # each begins with its length
    if not pa.types.is_null(column.type):
        plain = column.cast(pa.large_binary())
        plain.validate(full=True)
        _bounded(pc.sum(pc.binary_length(plain)).as_py() or 0, stored)
    return column_texts(column)


def _bounded(size: int, stored: int) -> None:
    limit = min(MOST_TEXT, max(ALWAYS_ALLOWED, MOST_GROWTH * stored))
    if size > limit:
        raise Damaged(f"{stored:,} bytes in it become more than {limit >> 20} MB of text; write it again")
