"""What stands beside a document's text in its file: an address, a title, a score, as far as its row has them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.parquet import Footers, Sparse
from mygpt2.data.sources.local.arrow import values_of
from mygpt2.data.sources.local.textfiles import line_range
from mygpt2.data.sources.local.unpack import compression_of
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.parquet import chunk_range

MOST_FIELDS = 8
MOST_VALUE = 200  # characters
MOST_BYTES = 4 << 20  # of a remote row group's columns
FIRST = ("url", "uri", "link", "title", "name", "path", "id")  # what tells a person most about where a text is from

log = logging.getLogger("mygpt2")


class Opened(Protocol):
    """A source; one on the hub with its client and the footers of its files."""

    @property
    def manifest(self) -> Manifest: ...

    def at(self, block: int, /) -> tuple[Opened, int]: ...

    @property
    def client(self) -> HubClient | None: ...

    @property
    def footers(self) -> Footers | None: ...


def fields_of(opened: Opened, block: int, document: int) -> list[tuple[str, str]]:
    """(name, value) of the other columns or keys of a document; empty where there are none or they cannot be read."""
    opened, block = opened.at(block)
    try:
        if opened.manifest.kind == "parquet":
            found = _of_parquet(opened, block, document)
        elif opened.manifest.kind == "jsonl":
            found = _of_jsonl(opened, block, document)
        elif opened.manifest.kind == "arrow":
            found = {name: values[document] for name, values in values_of(opened.manifest, block, _is_plain).items()}
        else:
            found = {}
    except Exception as error:  # whatever is wrong beside the text, the text can be shown
        log.info("what stands beside a document cannot be read: %s", error)
        return []
    fields = [(str(name), text) for name, value in found.items() if (text := _text(value))]
    return sorted(fields, key=_place)[:MOST_FIELDS]


def fields_of_row(opened: Opened, record: Mapping[str, Any], most: int = 12) -> list[list[tuple[str, str]]]:
    """What stands beside each of the first documents of a traced row, see `fields_of`. `record`: of the trace."""
    pairs = list(zip(record["block"], record["document"], strict=True))[:most]
    return [fields_of(opened, block, document) for block, document in pairs]


def _place(field: tuple[str, str]) -> int:
    name = field[0].lower()
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]} …"


def _of_parquet(opened: Opened, block: int, document: int) -> dict[str, Any]:
    manifest = opened.manifest
    row, file, group = manifest.blocks[block], manifest.file_of(block), int(manifest.blocks[block]["part"])
    if opened.footers is not None and opened.client is not None:
        metadata = opened.footers.get(file)
        names = _plain(metadata.schema.to_arrow_schema(), manifest.text_column)
        chunks = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)
                  if metadata.schema.column(i).path in names]  # fmt: skip
        ranges = [chunk_range(chunk) for chunk in chunks]
        if sum(stop - start for start, stop in ranges) > MOST_BYTES:
            return {}
        parts = [(start, opened.client.part(file, start, stop)) for start, stop in ranges]
        source = pq.ParquetFile(pa.PythonFile(Sparse(file.size, parts), mode="r"), metadata=metadata, pre_buffer=False)
        return _row(source, group, names, document)
    with pq.ParquetFile(file.location) as source:
        first = int(row["start"]) if row["stop"] >= 0 else 0
        return _row(source, group, _plain(source.schema_arrow, manifest.text_column), first + document)


def _plain(schema: pa.Schema, text: str) -> list[str]:
    return [field.name for field in schema if field.name != text and _is_plain(field.type)]


def _is_plain(kind: pa.DataType) -> bool:
    t = pa.types
    return any(is_kind(kind) for is_kind in (t.is_integer, t.is_floating, t.is_string, t.is_large_string))


def _row(source: pq.ParquetFile, group: int, names: list[str], number: int) -> dict[str, Any]:
    if not names:
        return {}
    rows = source.read_row_group(group, columns=names, use_threads=False).slice(number, 1).to_pylist()
    return rows[0] if rows else {}


def _of_jsonl(opened: Opened, block: int, document: int) -> dict[str, Any]:
    row, file = opened.manifest.blocks[block], opened.manifest.file_of(block)
    if compression_of(file.name):
        return {}
    with open(file.location, "rb") as content:
        lines = line_range(content, int(row["start"]), int(row["stop"])).split(b"\n")
    found = json.loads([line for line in lines if line and not line.isspace()][document])
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if key != opened.manifest.text_column}
