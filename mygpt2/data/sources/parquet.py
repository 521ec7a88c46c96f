"""The text in a parquet file: which column holds it, where its bytes are, and its rows without filling the memory."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.local.encoding import text_of
from mygpt2.data.sources.local.unpack import ALWAYS_ALLOWED, MOST_RATIO, Damaged
from mygpt2.errors import UserError, listed

# What a dictionary may make of a row group: far above what repeated texts come to, far below what memory holds.
MOST_GROWTH, MOST_TEXT = 32, 1 << 30
AT_ONCE = 16 << 20  # bytes that rows decoded together may come to


def check_text_column(schema: pa.Schema, column: str, where: str) -> None:
    """UserError unless the file has one column of the name and it holds text, or nothing."""
    texts = [field.name for field in schema if is_text(field.type) and not pa.types.is_null(field.type)]
    if column not in schema.names:
        raise UserError(
            f"data.text_column={column} is not in {where}; columns there: {listed(schema.names, 20)}; columns with "
            f"text: {listed(texts, 20)}; set data.text_column to the one with the text"
        )
    if schema.names.count(column) > 1:
        raise UserError(
            f"{where} has {schema.names.count(column)} columns named {column}, and which one is meant cannot be told; "
            "write it with different names"
        )
    if not is_text(schema.field(column).type):
        advice = f"columns with text: {listed(texts, 20)}; set data.text_column to one of them"
        raise UserError(
            f"data.text_column={column} of {where} holds {str(schema.field(column).type)[:100]}, not text; "
            f"{advice if texts else 'no column holds text; give another file'}"
        )


def is_text(kind: pa.DataType) -> bool:
    """An Arrow type whose values are strings, bytes that may be UTF-8, or nothing at all, as in a shard of nulls."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return is_text(kind.storage_type)
    t = pa.types
    kinds = (
        t.is_string, t.is_large_string, t.is_string_view, t.is_binary, t.is_large_binary, t.is_binary_view, t.is_null
    )  # fmt: skip
    return any(is_kind(kind) for is_kind in kinds)


def text_chunk(metadata: pq.FileMetaData, group: int, column: str) -> pq.ColumnChunkMetaData:
    """What the footer says of a column in a row group. ValueError where there is no such column."""
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return metadata.row_group(group).column(names.index(column))


def chunk_range(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """First and last + 1 byte of a column in a row group."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size


def row_texts(source: pq.ParquetFile, group: int, column: str, start: int = 0, stop: int = -1) -> list[Any]:
    """The texts of rows [start, stop) of a row group, of all of it where stop is -1.

    What lies before them is decoded too: parquet has no way round it. What pages may unpack to is bounded; where one
    stored text may stand for many rows, few are decoded at once and what they come to is bounded as well. So a few
    hundred bytes cannot fill the memory.
    """
    rows = source.metadata.row_group(group).num_rows
    chunk = text_chunk(source.metadata, group, column)
    stored, packed = int(chunk.total_uncompressed_size), int(chunk.total_compressed_size)
    if stored > (limit := max(ALWAYS_ALLOWED, MOST_RATIO * packed)):
        raise Damaged(_too_much(packed, limit))
    # Whether the row group is stored so that a text may appear in more rows than it is written.
    repeats = stored * rows > ALWAYS_ALLOWED and any(
        "DICTIONARY" in name or name == "DELTA_BYTE_ARRAY" for name in chunk.encodings
    )
    if stop < 0 and not repeats:
        return column_texts(source.read_row_group(group, columns=[column], use_threads=False).column(0))
    stop = rows if stop < 0 else stop
    at_once = max(1, min(stop - start, AT_ONCE // max(1, stored))) if repeats else stop - start
    limit = min(MOST_TEXT, max(ALWAYS_ALLOWED, MOST_GROWTH * stored))
    texts: list[Any] = []
    at = size = 0
    for batch in source.iter_batches(batch_size=at_once, row_groups=[group], columns=[column], use_threads=False):
        low, high = max(start - at, 0), min(stop - at, len(batch))
        if low < high:
            part = batch.column(0).slice(low, high - low)
            part = part.dictionary_decode() if isinstance(part, pa.DictionaryArray) else part
            size += part.nbytes
            if repeats and size > limit:
                raise Damaged(_too_much(stored, limit))
            texts.extend(column_texts(part))
        at += len(batch)
        if at >= stop:
            break
    return texts


def row_numbers(source: pq.ParquetFile, group: int, column: str, start: int = 0, stop: int = -1) -> list[Any]:
    """The numbers of rows [start, stop) of a row group, of all of it where stop is -1; None for nulls."""
    numbers = source.read_row_group(group, columns=[column], use_threads=False).column(0)
    return list((numbers if stop < 0 else numbers.slice(start, stop - start)).to_pylist())


def _too_much(size: int, limit: int) -> str:
    return f"{size:,} bytes in it become more than {limit >> 20} MB of text; write it again"


def column_texts(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The strings of an Arrow column; None for nulls and for bytes that are not UTF-8."""
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    return [text_of(value) if isinstance(value, bytes) else value for value in values]
