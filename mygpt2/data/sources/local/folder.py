"""Resolving a local file or folder: which files, which blocks, and what cannot be used.

Blocks are row groups, byte ranges or token ranges. What is wrong with the files is said here, at the opening, with
their names: as an error where hardly anything could be read, as a note of the manifest where the rest can.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.filters import Filters
from mygpt2.data.sources.local.describe import ONE_DOCUMENT, Described, describe, read_whole
from mygpt2.data.sources.local.find import find
from mygpt2.data.sources.local.formats import tokens_layout
from mygpt2.data.sources.local.unpack import compression_of
from mygpt2.data.sources.manifest import COLUMNS, Kind, Manifest, SourceFile, make_blocks
from mygpt2.data.sources.parquet import check_text_column, text_chunk
from mygpt2.errors import UserError, first_line, listed, shown

BLOCK_BYTES = 4 << 20  # of text: about a million tokens, what a row group of FineWeb-Edu holds
LEAST_BLOCK = ONE_DOCUMENT
SMALL_SET = 128  # blocks a small set is cut into, as far as they stay above LEAST_BLOCK
BLOCK_TOKENS = 1 << 20
MOST_ROWS = 100_000_000  # of a row group: ten times what any writer makes
READERS = 16

Blocks = list[tuple[int, ...]]  # rows of the block table: five numbers each


def resolve_local(source: str, path: Path, data: DataConfig, only: Kind | None = None) -> Manifest:
    """The manifest of a file or folder, or of its files of one kind. UserError when it cannot be used."""
    found = find(path, only)
    kind, filters = found.kind, Filters.of(data)
    if filters and kind not in COLUMNS:
        raise UserError(
            f"{filters} cannot be asked of data.source={shown(source)}: its {kind} files have no columns; allowed: "
            f"sources of {', '.join(COLUMNS)}; unset it, or give one of these"
        )
    with ThreadPoolExecutor(min(READERS, len(found.paths))) as pool:
        described = list(pool.map(lambda p: describe(found.root, p, kind), found.paths))
        files = [d.file for d in described]
        if kind == "parquet":
            blocks, notes = _parquet_blocks(files, data.text_column, filters, pool)
        elif kind == "tokens":
            blocks, notes = _token_blocks(files)
        else:
            notes = _encoding_notes(described)
            if kind == "jsonl":
                notes += _key_notes(described, data.text_column, filters)
            blocks, more = _byte_blocks(files, whole_small_files=kind == "txt")
            notes += more
    if not blocks:
        raise UserError(
            f"data.source={shown(source)} holds no data: its {len(files)} {kind} files are empty; give another folder"
        )
    table = make_blocks(*np.array(blocks, dtype=np.int64).T)
    notes = [*found.notes, *notes]
    return Manifest(source, kind, None, data.text_column, tuple(files), table, tuple(notes), filters=filters)


def _encoding_notes(described: list[Described]) -> list[str]:
    """What is told of files that are damaged or not UTF-8 everywhere. UserError where that is most of them."""
    odd = [d for d in described if d.complaint]
    if not odd:
        return []
    lost = [d for d in odd if d.lost]
    if 2 * len(lost) >= sum(d.file.size > 0 for d in described):
        more = f" (so are {len(lost) - 1:,} other files)" if len(lost) > 1 else ""
        raise UserError(f"{shown(lost[0].file.location)} {lost[0].complaint}{more}")
    return [
        f"{len(odd):,} of {len(described):,} files are damaged or not UTF-8 throughout "
        f"({listed([d.file.name for d in odd])}) and what cannot be read is left out: {shown(odd[0].file.name)} "
        f"{odd[0].complaint}"
    ]


def _parquet_blocks(
    files: list[SourceFile], column: str, filters: Filters | None, pool: ThreadPoolExecutor
) -> tuple[Blocks, list[str]]:
    """A block for each row group; several for a large one."""
    groups = list(pool.map(lambda file: _row_groups(file, column, filters), files))
    total = sum(size for group in groups for _, size in group)
    part_bytes = max(LEAST_BLOCK * 4, min(2 * BLOCK_BYTES, total // (SMALL_SET // 2)))
    blocks: Blocks = []
    divided = 0
    for number, row_groups in enumerate(groups):
        for part, (rows, size) in enumerate(row_groups):
            if rows == 0:
                continue
            if size <= 2 * part_bytes or rows == 1:
                blocks.append((number, part, 0, -1, rows))
                continue
            divided += 1
            step = -(-rows // -(-size // part_bytes))
            blocks.extend((number, part, at, min(at + step, rows), min(step, rows - at)) for at in range(0, rows, step))
    note = (
        f"{divided} row groups are large for this set and are read in parts, each of which decodes its row group up to "
        "its place; files with row groups of about 1,000 documents are read faster"
    )
    return blocks, [note] if divided else []


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


def _byte_blocks(files: list[SourceFile], whole_small_files: bool) -> tuple[Blocks, list[str]]:
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


def _token_blocks(files: list[SourceFile]) -> tuple[Blocks, list[str]]:
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


def _key_notes(described: list[Described], key: str, filters: Filters | None) -> list[str]:
    """What is told of jsonl files that begin without the keys. UserError where the first file does."""
    held = [d for d in described if d.first is not None]
    notes = _without_key(held, key)
    if held and filters:
        filters.check_names(list(held[0].first), f"the first line of {shown(held[0].file.location)}")
        notes += [note for column in filters.columns.values() for note in _without_key(held, column)]
    return notes


def _without_key(held: list[Described], key: str) -> list[str]:
    odd = [d for d in held if not isinstance(d.first, dict) or key not in d.first]
    if not odd:
        return []
    first = odd[0]
    where = shown(first.file.location)
    if first is held[0]:
        if not isinstance(first.first, dict):
            raise UserError(f"{where} does not begin with a line of JSON: {first.first}")
        raise UserError(
            f"data.text_column={key} is not a key of the first line of {where}; keys there: "
            f"{listed(first.first, 20)}; set data.text_column to the one with the text"
        )
    there = f"keys there: {listed(first.first, 20)}" if isinstance(first.first, dict) else f"no JSON: {first.first}"
    return [
        f"{len(odd):,} of {len(held):,} files begin without the key {key} ({listed([d.file.name for d in odd])}; "
        f"{there}); lines without it are left out"
    ]
