"""`data fetch`: the files of a hub dataset in a local folder, checked against the hub's own checksums.

A file grows beside its place and is moved there when its SHA-256 is right; an interrupted download
goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.hub.dataset import HubSource
from mygpt2.data.sources.hub.parquet import HubParquetReader
from mygpt2.data.sources.manifest import SourceFile
from mygpt2.data.sources.parquet import check_text_column, text_chunk
from mygpt2.errors import UserError, shown
from mygpt2.files import hub_checksum

Progress = Callable[[int], None]
"""Called with the number of bytes that are newly there."""

CHUNK = 16 << 20  # bytes of one request
AT_ONCE = 4  # requests


def fetch_file(file: SourceFile, path: Path, hub: HubSource, progress: Progress) -> Path:
    """One file as it is on the hub. Raises UserError when its bytes do not have the listed checksum, twice."""
    if path.is_file() and path.stat().st_size == file.size:
        progress(file.size)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    for _ in range(2):
        _download(file, part, hub, progress)
        if hub_checksum(part, file.identity) == file.identity:
            os.replace(part, path)
            return path
        part.unlink()
        progress(-file.size)
    raise UserError(
        f"{file.name} does not have the hub's checksum, also when fetched again; try later or another revision"
    )


def place_of(file: SourceFile, out: Path) -> Path:
    """Where a file goes. UserError for a name that leads out of the folder, whoever lists it."""
    parts = file.name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in file.name or "\0" in file.name:
        raise UserError(
            f"the hub lists a file {shown(file.name)}, which has no place in --out {out}; check HF_ENDPOINT"
        )
    return out.joinpath(*parts)


def _download(file: SourceFile, part: Path, hub: HubSource, progress: Progress) -> None:
    """Append what is missing, some requests at once, in order."""
    with open(part, "ab") as f, ThreadPoolExecutor(AT_ONCE) as pool:
        if f.tell() > file.size:
            f.truncate(0)
        there = f.tell()
        progress(there)
        for first in range(there, file.size, AT_ONCE * CHUNK):
            starts = range(first, min(first + AT_ONCE * CHUNK, file.size), CHUNK)
            for raw in pool.map(lambda start: hub.part(file, start, min(start + CHUNK, file.size)), starts):
                f.write(raw)
                progress(len(raw))
        f.flush()
        os.fsync(f.fileno())


def fetch_text(file: SourceFile, path: Path, hub: HubSource, progress: Progress) -> Path:
    """The text column of a parquet file, with the same row groups and with page checksums."""
    column, metadata = hub.data.text_column, hub.footer(file)
    check_text_column(metadata.schema.to_arrow_schema(), column, file.name)
    sizes = [text_chunk(metadata, g, column).total_compressed_size for g in range(metadata.num_row_groups)]
    if path.is_file() and pq.read_metadata(path).num_rows == metadata.num_rows:
        progress(sum(sizes))
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    reader = HubParquetReader(hub.one_file(file), hub.client, hub.footers)
    schema = pa.schema([(column, pa.string())])
    with (
        pq.ParquetWriter(part, schema, compression="zstd", write_page_checksum=True) as writer,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        for start in range(0, len(sizes), AT_ONCE):
            groups = range(start, min(start + AT_ONCE, len(sizes)))
            for g, texts in zip(groups, pool.map(lambda g: hub.patiently(lambda: reader.read(g)), groups), strict=True):
                writer.write_table(pa.table([pa.array(texts, pa.string())], schema=schema))
                progress(sizes[g])
    os.replace(part, path)
    return path


def check_space(out: Path, needed: int) -> None:
    """UserError when the disk has less room than what is still to come."""
    folder = out
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"--out {out} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are to come; "
            "give another disk, fewer --files, or --text-only"
        )
