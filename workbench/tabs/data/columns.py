"""Numbers about the documents of a block: lengths, the numeric columns that stand beside the text, their histograms.

A histogram is inline SVG: no script, colours of the stylesheet, and its figures in words for who cannot see it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.hub.parquet import Sparse
from mygpt2.data.sources.local.arrow import values_of
from mygpt2.data.sources.local.textfiles import line_range
from mygpt2.data.sources.local.unpack import compression_of
from mygpt2.data.sources.parquet import chunk_range
from workbench import html
from workbench.corpus.library import Opened

MOST_COLUMNS = 6
BINS = 24
WIDTH, HEIGHT, BASE = 300, 96, 78  # of a histogram, and where its bars stand


def figures_of(opened: Opened, block: int) -> dict[str, np.ndarray]:
    """Name to one float per document (NaN: none): characters or tokens first, then the numeric columns."""
    documents = opened.read(block)
    if opened.manifest.kind == "tokens":
        return {"tokens": np.array([len(ids) for ids in documents], float)}
    lengths = np.array([len(text) if isinstance(text, str) else np.nan for text in documents], float)
    columns = {"characters": lengths}
    try:
        beside = _beside(opened, block)
    except Exception:  # whatever is wrong with these columns, the text beside them can be shown
        beside = {}
    columns.update({name: values for name, values in beside.items() if len(values) == len(documents)})
    return columns


def _beside(opened: Opened, block: int) -> dict[str, np.ndarray]:
    manifest = opened.manifest
    if manifest.kind == "jsonl":
        return _json_numbers(opened, block)
    if manifest.kind == "arrow":
        found = list(values_of(manifest, block, _is_numeric).items())[:MOST_COLUMNS]
        return {name: _as_floats(values) for name, values in found}
    if manifest.kind != "parquet":
        return {}
    row, file = manifest.blocks[block], manifest.file_of(block)
    group = int(row["part"])
    if opened.footers is not None and opened.client is not None:
        metadata = opened.footers.get(file)
        names = _numeric(metadata.schema.to_arrow_schema())
        wanted = [i for i in range(metadata.num_columns) if metadata.schema.column(i).path in names]
        ranges = [chunk_range(metadata.row_group(group).column(i)) for i in wanted]
        parts = [(start, opened.client.part(file, start, stop)) for start, stop in ranges]
        source = pq.ParquetFile(pa.PythonFile(Sparse(file.size, parts), mode="r"), metadata=metadata, pre_buffer=False)
        return _floats(source, group, names, 0, -1)
    with pq.ParquetFile(file.location) as source:
        return _floats(source, group, _numeric(source.schema_arrow), int(row["start"]), int(row["stop"]))


def _numeric(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _is_numeric(field.type)][:MOST_COLUMNS]


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _as_floats(values: Iterable[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])


def _floats(source: pq.ParquetFile, group: int, names: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
    if not names:
        return {}
    table = source.read_row_group(group, columns=names, use_threads=False)
    if stop >= 0:
        table = table.slice(start, stop - start)
    return {name: _as_floats(table.column(name).to_pylist()) for name in names}


def _json_numbers(opened: Opened, block: int) -> dict[str, np.ndarray]:
    """Numbers that the lines of a jsonl block have beside their text; a key counts when half of the lines have it."""
    row, file = opened.manifest.blocks[block], opened.manifest.file_of(block)
    if compression_of(file.name):
        return {}
    with open(file.location, "rb") as f:
        content = line_range(f, int(row["start"]), int(row["stop"]))
    records = [_record(line) for line in content.split(b"\n") if line and not line.isspace()]
    seen: dict[str, int] = {}
    for record in records:
        for key in record:
            seen[key] = seen.get(key, 0) + 1
    names = [key for key, count in seen.items() if 2 * count >= len(records)][:MOST_COLUMNS]
    return {name: np.array([record.get(name, np.nan) for record in records], float) for name in names}


def _record(line: bytes) -> dict[str, float]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """(counts, edges, whether the edges are logarithmic). Whole numbers of few values get a bar each."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.empty(0, int), np.empty(0), False
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([len(values)]), np.array([low - 0.5, high + 0.5]), False
    if high - low < BINS and np.all(values == np.round(values)):
        edges = np.arange(low - 0.5, high + 1)
        return np.histogram(values, edges)[0], edges, False
    logarithmic = low > 0 and high / low > 50
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace may miss them by a rounding
    return np.histogram(values, edges)[0], edges, logarithmic


def drawn(name: str, values: np.ndarray) -> html.Markup:
    """One histogram with its smallest, middle and largest value."""
    counts, edges, logarithmic = binned(np.asarray(values, float))
    if not len(counts):
        return html.Markup("")
    finite = values[np.isfinite(values)]
    low, middle, high = (figure(x) for x in (finite.min(), np.median(finite), finite.max()))
    words = f"{name}: {len(finite):,} documents, from {low} to {high}, half of them up to {middle}"
    step = WIDTH / len(counts)
    bars = "".join(
        f'<rect x="{n * step:.1f}" y="{BASE - tall:.1f}" width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}">'
        f"<title>{html.escape(f'{figure(edges[n])} to {figure(edges[n + 1])}: {int(count):,}')}</title></rect>"
        for n, count in enumerate(counts)
        if (tall := (BASE - 4) * count / counts.max())
    )
    scale = " (log scale)" if logarithmic else ""
    return html.Markup(
        f'<figure class="wb-hist"><figcaption>{html.escape(name + scale)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(words)}">'
        f'<line x1="0" y1="{BASE}" x2="{WIDTH}" y2="{BASE}"/>{bars}'
        f'<text x="0" y="{HEIGHT - 4}">{html.escape(low)}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(f"median {middle}")}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{html.escape(high)}</text></svg></figure>'
    )


def figure(value: float) -> str:
    """A number as short as it is still exact enough to read."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"
