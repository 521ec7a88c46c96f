"""`data fetch`: the files of a hub dataset in a local folder, checked against the hub's own checksums.

A file grows beside its place and is moved there when its SHA-256 is right; an interrupted download
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.parquet import Footers, HubParquetReader, chunk_range, text_column
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.errors import UserError, shown

Progress = Callable[[int], None]
"""Called with the number of bytes that are newly there."""

Patiently = Callable[[Callable[[], Any]], Any]
"""Asks until the hub answers; what it refuses comes as UserError."""

CHUNK = 16 << 20  # bytes of one request
AT_ONCE = 4  # requests


def fetch_file(file: SourceFile, out: Path, client: HubClient, patiently: Patiently, progress: Progress) -> Path:
    """One file as it is on the hub. Raises UserError when its bytes do not have the listed checksum, twice."""
    path = place_of(file, out)
    if path.is_file() and path.stat().st_size == file.size:
        progress(file.size)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    for _ in range(2):
        _download(file, part, client, patiently, progress)
        if _identity_of(part, file) == file.identity:
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


def _download(file: SourceFile, part: Path, client: HubClient, patiently: Patiently, progress: Progress) -> None:
    """Append what is missing, some requests at once, in order."""
    with open(part, "ab") as f, ThreadPoolExecutor(AT_ONCE) as pool:
        if f.tell() > file.size:
            f.truncate(0)
        there = f.tell()
        progress(there)

        def one(start: int) -> bytes:
            stop = min(start + CHUNK, file.size)
            return patiently(lambda: client.range(file.location, start, stop, size=file.size, identity=file.identity))

        for first in range(there, file.size, AT_ONCE * CHUNK):
            for raw in pool.map(one, range(first, min(first + AT_ONCE * CHUNK, file.size), CHUNK)):
                f.write(raw)
                progress(len(raw))
        f.flush()
        os.fsync(f.fileno())


def _identity_of(path: Path, file: SourceFile) -> str:
    """SHA-256 of the content as for Git LFS, or git's SHA-1 of a blob, whichever the hub listed."""
    digest = hashlib.sha256() if len(file.identity) == 64 else hashlib.sha1(b"blob %d\0" % file.size)
    with open(path, "rb") as f:
        while chunk := f.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def fetch_text(
    file: SourceFile,
    manifest: Manifest,
    out: Path,
    client: HubClient,
    footers: Footers,
    patiently: Patiently,
    progress: Progress,
) -> Path:
    """The text column of a parquet file, with the same row groups and with page checksums."""
    path = place_of(file, out)
    metadata = patiently(lambda: footers.get(file))
    column = text_column(metadata, manifest.text_column, file.name)
    sizes = [stop - start for start, stop in (chunk_range(metadata, g, column) for g in range(metadata.num_row_groups))]
    if path.is_file() and pq.read_metadata(path).num_rows == metadata.num_rows:
        progress(sum(sizes))
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
    alone = Manifest(
        manifest.source, "parquet", manifest.revision, manifest.text_column, (file,),
        make_blocks(0, range(len(rows)), 0, -1, rows),
    )  # fmt: skip
    reader = HubParquetReader(alone, client, footers)
    schema = pa.schema([(manifest.text_column, pa.string())])
    with (
        pq.ParquetWriter(part, schema, compression="zstd", write_page_checksum=True) as writer,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        for start in range(0, len(rows), AT_ONCE):
            groups = range(start, min(start + AT_ONCE, len(rows)))
            for g, texts in zip(groups, pool.map(lambda g: patiently(lambda: reader.read(g)), groups), strict=True):
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
