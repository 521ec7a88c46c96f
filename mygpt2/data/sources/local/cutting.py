"""Cutting files into blocks: row groups, record batches, runs of a tar's members, byte ranges or token ranges.

A block holds about as much text as a row group of FineWeb-Edu, and less in a small set, so that it has enough of them.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.filters import Filters
from mygpt2.data.sources.local.describe import ONE_DOCUMENT, read_whole
from mygpt2.data.sources.local.formats import read_record, tokens_layout
from mygpt2.data.sources.local.ipc import layout_of
from mygpt2.data.sources.local.tar import Contents, kept_contents
from mygpt2.data.sources.local.textfiles import LONGEST_LINE
from mygpt2.data.sources.local.unpack import compression_of
from mygpt2.data.sources.manifest import SourceFile
from mygpt2.data.sources.parquet import check_text_column, text_chunk
from mygpt2.errors import UserError, first_line, listed, shown

BLOCK_BYTES = 4 << 20  # of text: about a million tokens, what a row group of FineWeb-Edu holds
LEAST_BLOCK = ONE_DOCUMENT
SMALL_SET = 128  # blocks a small set is cut into, as far as they stay above LEAST_BLOCK
BLOCK_TOKENS = 1 << 20
MOST_ROWS = 100_000_000  # of a row group: ten times what any writer makes

Blocks = list[tuple[int, ...]]  # rows of the block table: five numbers each


def parquet_blocks(
    files: list[SourceFile], column: str, filters: Filters | None, pool: ThreadPoolExecutor
) -> tuple[Blocks, list[str]]:
    """A block for each row group; several for a large one."""
    groups = list(pool.map(lambda file: _row_groups(file, column, filters), files))
    blocks, divided = _row_blocks(groups)
    note = (
        f"{len(divided)} row groups are large for this set and are read in parts, each of which decodes its row group "
        "up to its place; files with row groups of about 1,000 documents are read faster"
    )
    return blocks, [note] if divided else []


def arrow_blocks(
    files: list[SourceFile], column: str, filters: Filters | None, pool: ThreadPoolExecutor
) -> tuple[Blocks, list[str]]:
    """Record batches: small ones together in a block, several blocks for a large one."""
    found = list(pool.map(lambda file: _record_batches(file, column, filters), files))
    blocks, divided = _row_blocks([batches for batches, _ in found], together=True)
    large = [size for size in divided if size > 4 * BLOCK_BYTES]  # others only are large for a small set
    slow = (
        f"{len(large)} record batches have up to {max(large, default=0) >> 20} MB and are read in parts, each of which "
        "reads its batch whole; files with batches of about 1,000 documents are read faster"
    )
    open_ended = [file.name for file, (_, ended) in zip(files, found, strict=True) if not ended]
    cut = (
        f"{len(open_ended):,} of {len(files):,} streams do not say where they end ({listed(open_ended)}): whether they "
        "were written to their end cannot be told"
    )
    return blocks, [slow] * bool(large) + [cut] * bool(open_ended)


def _row_blocks(files: list[list[tuple[int, int]]], together: bool = False) -> tuple[Blocks, list[int]]:
    """Blocks of groups of rows, each given by (rows, bytes), and the bytes of those groups that are divided.

    `together`: small groups that follow one another share a block, which is named by the first.
    """
    total = sum(size for groups in files for _, size in groups)
    part_bytes = max(LEAST_BLOCK * 4, min(2 * BLOCK_BYTES, total // (SMALL_SET // 2)))
    blocks: Blocks = []
    divided: list[int] = []
    for number, groups in enumerate(files):
        room = 0  # bytes that the last block may still take
        for part, (rows, size) in enumerate(groups):
            if rows == 0:
                continue
            if size > 2 * part_bytes and rows > 1:
                divided.append(size)
                step = -(-rows // -(-size // part_bytes))
                cuts = range(0, rows, step)
                blocks.extend((number, part, at, min(at + step, rows), min(step, rows - at)) for at in cuts)
                room = 0
            elif size <= room:
                *place, count = blocks.pop()
                blocks.append((*place, count + rows))
                room -= size
            else:
                blocks.append((number, part, 0, -1, rows))
                room = max(0, part_bytes - size) if together else 0
    return blocks, divided


def _record_batches(file: SourceFile, column: str, filters: Filters | None) -> tuple[list[tuple[int, int]], bool]:
    """((rows, bytes) of every record batch, whether the file says where it ends)."""
    where = shown(file.location)
    try:
        layout = layout_of(file.location)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{where} is not a readable Arrow file ({first_line(error)}); remove it, or write or fetch it again"
        ) from error
    check_text_column(layout.schema, column, where)
    if filters:
        filters.check(layout.schema, where)
    odd = next((rows for rows in layout.batches[:, 2].tolist() if not 0 <= rows <= MOST_ROWS), None)
    if odd is not None:
        raise UserError(
            f"{where} is not a usable Arrow file (a record batch promises {odd:,} rows; allowed: at most "
            f"{MOST_ROWS:,}); write it again with smaller batches"
        )
    _, stops, rows = layout.batches.T
    sizes = np.diff(stops, prepend=len(layout.head))  # with the dictionaries that stand before a batch
    return list(zip(rows.tolist(), sizes.tolist(), strict=True)), layout.ended


def _row_groups(file: SourceFile, column: str, filters: Filters | None) -> list[tuple[int, int]]:
    """(rows, uncompressed bytes of the text column) of every row group."""
    where = shown(file.location)
    try:
        metadata = pq.read_metadata(file.location)
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException, MemoryError) as error:
        raise UserError(
            f"{where} is not a readable parquet file ({first_line(error)}); remove it or fetch it again"
        ) from error
    check_text_column(schema, column, where)
    if filters:
        filters.check(schema, where)
    found = []
    for number in range(metadata.num_row_groups):
        rows, chunk = metadata.row_group(number).num_rows, text_chunk(metadata, number, column)
        values = chunk.num_values
        found.append((rows, chunk.total_uncompressed_size))
        if not 0 <= rows == values <= MOST_ROWS:
            raise UserError(
                f"{where} is not a usable parquet file (row group {number} promises {rows:,} rows and {values:,} "
                f"texts; allowed: as many of both, at most {MOST_ROWS:,}); write it again with smaller row groups"
            )
    return found


def byte_blocks(files: list[SourceFile], whole_small_files: bool) -> tuple[Blocks, list[str]]:
    """Byte ranges; small text files together in a block, a document each; a compressed file is one block."""
    size = sum(file.size for file in files)
    step = max(LEAST_BLOCK, min(BLOCK_BYTES, size // SMALL_SET))
    blocks: Blocks = []
    together = 0  # bytes of the small files in the last block, 0 when it is not one of small files
    for number, file in enumerate(files):
        small = whole_small_files and 0 < file.size <= LEAST_BLOCK and not compression_of(file.name)
        if small and together and together + file.size <= step:
            *place, count = blocks.pop()
            blocks.append((*place, count + 1))
            together += file.size
            continue
        together = file.size if small else 0
        if small:
            blocks.append((number, 0, 0, -1, 1))
        elif file.size and read_whole(file):
            blocks.append((number, 0, 0, -1, -1))
        else:
            cuts = range(0, file.size, step)
            blocks.extend((number, i, at, min(at + step, file.size), -1) for i, at in enumerate(cuts))
    alone = sum(stop < 0 and rows < 0 for *_, stop, rows in blocks)
    note = (
        f"{alone} files that are compressed or in UTF-16 are one block each: not random-access, held in memory whole "
        "while being read"
    )
    return blocks, [note] if alone else []


def tar_blocks(
    files: list[SourceFile], key: str, pool: ThreadPoolExecutor, cache_dir: Path | None
) -> tuple[Blocks, list[str]]:
    """Runs of documents, from the first one's head to the last one's end; a packed tar is one block."""
    found = list(pool.map(lambda file: _contents(file, cache_dir), files))
    total = sum(int(contents.samples[:, 2].sum()) for contents in found if contents)
    step = max(LEAST_BLOCK, min(BLOCK_BYTES, total // SMALL_SET))
    blocks: Blocks = []
    for number, contents in enumerate(found):
        if contents is None:
            blocks.append((number, 0, 0, -1, -1))
        elif len(contents.samples):
            starts, stops, sizes = contents.samples.T
            runs = (np.cumsum(sizes) - sizes) // step  # which run a document's text begins in
            first = np.flatnonzero(np.diff(runs, prepend=-1))
            ends = np.append(first[1:], len(starts))
            blocks += [(number, i, int(starts[a]), int(stops[b - 1]), int(b - a))
                       for i, (a, b) in enumerate(zip(first, ends, strict=True))]  # fmt: skip
    return blocks, [*_tar_notes(files, found), *_first_records(files, found, key)]


def _contents(file: SourceFile, cache_dir: Path | None) -> Contents | None:
    """What a tar holds; None for a packed one."""
    if compression_of(file.name):
        return None
    try:
        return kept_contents(file, cache_dir)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{shown(file.location)} is not a readable tar ({first_line(error)}); remove it, or write or fetch it again"
        ) from error


def _tar_notes(files: list[SourceFile], found: list[Contents | None]) -> list[str]:
    passed_over = sum((contents.passed_over for contents in found if contents), Counter())
    others = ", ".join(f"{count:,} {shown(what)}" for what, count in passed_over.most_common(6))
    read = sum(int((contents.samples[:, 2] > 0).sum()) for contents in found if contents)
    open_ended = [f.name for f, contents in zip(files, found, strict=True) if contents and not contents.ended]
    notes = []
    if alone := found.count(None):
        notes.append(
            f"{alone} tars that are compressed are one block each: not random-access, held in memory whole while being "
            "read; what else than text they hold is passed over"
        )
    if passed_over:
        notes.append(f"not read: {passed_over.total():,} members of tars beside {read:,} that are texts ({others})")
    if open_ended:
        notes.append(
            f"{len(open_ended):,} of {len(files):,} tars do not say where they end ({listed(open_ended)}): whether "
            "they were written to their end cannot be told"
        )
    return notes


def _first_records(files: list[SourceFile], found: list[Contents | None], key: str) -> list[str]:
    """What is told of tars whose first .json has no such key. UserError where that is the first of all."""
    firsts = [
        (file, contents.first) for file, contents in zip(files, found, strict=True) if contents and contents.first
    ]
    odd = []
    for file, member in firsts:
        with open(file.location, "rb") as f:
            f.seek(member.body)
            record = read_record(f.read(min(member.size, LONGEST_LINE)))
        if record is not None and key in record:
            continue
        odd.append(file.name)
        if len(odd) == 1 and file is firsts[0][0]:
            there = f"keys there: {listed(record, 20)}" if record is not None else "it is not an object of JSON"
            raise UserError(
                f"data.text_column={key} is not a key of {shown(member.name)} in {shown(file.location)}; {there}; set "
                "data.text_column to the one with the text"
            )
    note = (
        f"{len(odd):,} of {len(firsts):,} tars begin with a .json without the key {key} ({listed(odd)}); members "
        "without it are left out"
    )
    return [note] if odd else []


def token_blocks(files: list[SourceFile]) -> tuple[Blocks, list[str]]:
    counts = []
    for file in files:
        try:
            counts.append(tokens_layout(file.location).count)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{shown(file.location)} is not a pre-tokenized file ({error}); allowed: uint16 ids, bare or in the "
                "published layout with magic 20240520, uint32 ids with magic 20240801, or a .npy array of either; "
                "write it again"
            ) from error
    step = max(LEAST_BLOCK, min(BLOCK_TOKENS, sum(counts) // SMALL_SET))
    blocks: Blocks = [
        (number, i, at, min(at + step, count), -1)
        for number, count in enumerate(counts)
        for i, at in enumerate(range(0, count, step))
    ]
    return blocks, []
