"""Resolving a local file or folder: which files, which blocks, and what identifies their content.

Content identity is cheap by design. Parquet: the footer (sizes, offsets and statistics of every column chunk) and
sampled pages. Other files: all bytes up to 64 MiB, above that 64 sampled stretches of 64 KiB with both ends. XXH3-128
throughout.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mygpt2.config.schema import DataConfig
from mygpt2.data.checked import keep_checked, load_checked
from mygpt2.data.formats import COMPRESSION, Damaged, tokens_layout
from mygpt2.data.manifest import Kind, Manifest, SourceFile, make_blocks
from mygpt2.errors import UserError

KINDS: dict[str, Kind] = {".parquet": "parquet", ".jsonl": "jsonl", ".txt": "txt", ".bin": "tokens"}
FORMATS = "parquet, jsonl, txt (jsonl and txt also .gz or .zst) or pre-tokenized .bin"

BLOCK_BYTES = 4 << 20  # of text: about a million tokens, what a row group of FineWeb-Edu holds
LEAST_BLOCK = 1 << 16
SMALL_SET = 128  # blocks a small set is cut into, as far as they stay above LEAST_BLOCK
BLOCK_TOKENS = 1 << 20
WHOLE = 64 << 20  # bytes that are hashed completely
READERS = 16

Blocks = list[tuple[int, int, int, int, int]]  # rows of the block table


def resolve_local(source: str, path: Path, data: DataConfig, cache_dir: Path) -> Manifest:
    """The manifest of a file or folder. UserError when it cannot be used."""
    root, paths = _find(path)
    kind = _one_kind(path, paths)
    with ThreadPoolExecutor(min(READERS, len(paths))) as pool:
        files = list(pool.map(lambda p: _describe(root, p, kind), paths))
        if kind == "parquet":
            blocks, notes = _parquet_blocks(files, data.text_column, cache_dir, pool)
        elif kind == "tokens":
            blocks, notes = _token_blocks(files)
        else:
            if kind == "jsonl":
                _check_key(files[0], data.text_column)
            blocks, notes = _byte_blocks(files, whole_small_files=kind == "txt")
    if not blocks:
        raise UserError(
            f"data.source={source} holds no data: its {len(files)} {kind} files are empty; give another folder"
        )
    table = make_blocks(*np.array(blocks, dtype=np.int64).T)
    return Manifest(source, kind, None, data.text_column, tuple(files), table, tuple(notes))


def _find(path: Path) -> tuple[Path, list[Path]]:
    """(root that names are relative to, files of known formats in order)."""
    if path.is_file():
        if _kind(path) is None:
            raise UserError(f"data.source={path} has no known format; allowed: {FORMATS}; rename or convert the file")
        return path.parent, [path]
    found = [p for p in path.rglob("*") if _kind(p) and p.is_file() and not _hidden(p.relative_to(path))]
    if not found:
        raise UserError(f"data.source={path} is a folder without {FORMATS} files; give the folder that holds them")
    return path, sorted(found, key=lambda p: p.relative_to(path).as_posix())


def _hidden(relative: Path) -> bool:
    return any(part.startswith((".", "_")) for part in relative.parts)


def _kind(path: Path) -> Kind | None:
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in COMPRESSION:
        kind = KINDS.get(suffixes[-2]) if len(suffixes) > 1 else None
        return kind if kind in ("jsonl", "txt") else None
    return KINDS.get(path.suffix)


def _one_kind(path: Path, paths: Iterable[Path]) -> Kind:
    kinds = Counter(kind for kind in map(_kind, paths) if kind is not None)
    if len(kinds) > 1:
        held = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        raise UserError(
            f"data.source={path} mixes formats ({held} files); allowed: one per source; give a folder with one"
        )
    return next(iter(kinds))


def _describe(root: Path, path: Path, kind: Kind) -> SourceFile:
    try:
        status = path.stat()
        with path.open("rb") as f:
            identity = _parquet_identity(f, status.st_size) if kind == "parquet" else _identity(f, status.st_size)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error
    except ValueError as error:
        raise UserError(f"{path} is not a readable parquet file ({error}); remove it or fetch it again") from error
    name = path.relative_to(root).as_posix()
    return SourceFile(name, status.st_size, identity, str(path.resolve()), status.st_mtime_ns)


def _identity(f: Any, size: int) -> str:
    digest = xxhash.xxh3_128(str(size).encode())
    if size <= WHOLE:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    else:
        _sample(f, size, 64, 1 << 16, digest)
    return digest.hexdigest()


def _sample(f: Any, size: int, count: int, length: int, digest: Any) -> None:
    for place in np.linspace(0, max(0, size - length), count).astype(int).tolist():
        f.seek(place)
        digest.update(f.read(length))


def _parquet_identity(f: Any, size: int) -> str:
    f.seek(max(0, size - 8))
    tail = f.read(8)
    footer = int.from_bytes(tail[:4], "little") + 8
    if tail[4:] != b"PAR1" or footer > size:
        raise ValueError("no parquet footer at its end")
    digest = xxhash.xxh3_128(str(size).encode())
    f.seek(size - footer)
    digest.update(f.read(footer))
    _sample(f, size - footer, 16, 4096, digest)
    return digest.hexdigest()


def _parquet_blocks(
    files: list[SourceFile], column: str, cache_dir: Path, pool: ThreadPoolExecutor
) -> tuple[Blocks, list[str]]:
    """A block for each row group; several for a large one."""
    index = FooterIndex(cache_dir)
    groups = list(pool.map(lambda file: index.row_groups(file, column), files))
    index.save()
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


class FooterIndex:
    """Rows and text bytes of row groups, kept by the file's content identity so that a footer is parsed once."""

    def __init__(self, cache_dir: Path) -> None:
        self._path, self._cache_dir = cache_dir / "footers.json", cache_dir
        self._known: dict[str, list[list[int]]] = load_checked(self._path) or {}
        self._new = False

    def row_groups(self, file: SourceFile, column: str) -> list[list[int]]:
        """[rows, uncompressed bytes of the text column] of every row group."""
        key = f"{file.identity}/{column}"
        if key not in self._known:
            self._known[key] = _row_groups(file, column)
            self._new = True
        return self._known[key]

    def save(self) -> None:
        if self._new:
            keep_checked(self._path, self._known, self._cache_dir)


def _row_groups(file: SourceFile, column: str) -> list[list[int]]:
    try:
        metadata = pq.read_metadata(file.location)
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{file.location} is not a readable parquet file ({reason}); remove it or fetch it again"
        ) from error
    if column not in schema.names:
        raise UserError(
            f"data.text_column={column} is not in {file.location}; columns there: {', '.join(schema.names)}; "
            "set data.text_column to the one with the text"
        )
    if not is_text(schema.field(column).type):
        texts = [name for name in schema.names if is_text(schema.field(name).type)]
        raise UserError(
            f"data.text_column={column} of {file.location} holds {schema.field(column).type}, not text; columns with "
            f"text: {', '.join(texts) or 'none'}; set data.text_column to one of them"
        )
    place = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return [[group.num_rows, group.column(place).total_uncompressed_size] for group in groups]


def is_text(kind: pa.DataType) -> bool:
    """An Arrow type whose values are strings."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _byte_blocks(files: list[SourceFile], whole_small_files: bool) -> tuple[Blocks, list[str]]:
    """Byte ranges; small text files together in a block, a document each; a compressed file is one block."""
    size = sum(file.size for file in files)
    step = max(LEAST_BLOCK, min(BLOCK_BYTES, size // SMALL_SET))
    blocks: Blocks = []
    together = 0  # bytes of the small files in the last block, 0 when it is not one of small files
    for number, file in enumerate(files):
        if file.size == 0:
            together = 0
        elif Path(file.name).suffix in COMPRESSION:
            blocks.append((number, 0, 0, -1, -1))
            together = 0
        elif whole_small_files and file.size <= LEAST_BLOCK:
            if together and together + file.size <= step:
                first, *rest, count = blocks.pop()
                blocks.append((first, rest[0], rest[1], rest[2], count + 1))
            else:
                blocks.append((number, 0, 0, -1, 1))
                together = 0
            together += file.size
        else:
            cuts = range(0, file.size, step)
            blocks.extend((number, i, at, min(at + step, file.size), -1) for i, at in enumerate(cuts))
            together = 0
    compressed = sum(Path(file.name).suffix in COMPRESSION for file in files)
    note = f"{compressed} compressed files are one block each: not random-access, held in memory whole while being read"
    return blocks, [note] if compressed else []


def _token_blocks(files: list[SourceFile]) -> tuple[Blocks, list[str]]:
    counts = []
    for file in files:
        try:
            counts.append(tokens_layout(file.location)[1])
        except (OSError, Damaged) as error:
            raise UserError(
                f"{file.location} is no pre-tokenized file ({error}); allowed: uint16 ids, bare or in the published "
                "layout with magic 20240520; write it again"
            ) from error
    step = max(LEAST_BLOCK, min(BLOCK_TOKENS, sum(counts) // SMALL_SET))
    blocks = [
        (number, i, at, min(at + step, count), -1)
        for number, count in enumerate(counts)
        for i, at in enumerate(range(0, count, step))
    ]
    return blocks, []


def _check_key(file: SourceFile, key: str) -> None:
    """UserError unless the first line of the first file is an object with the key."""
    try:
        with pa.input_stream(file.location) as f:  # decompresses by the file's ending
            first = f.read(1 << 22).lstrip().split(b"\n", 1)[0]
        record = json.loads(first) if first else {key: ""}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{file.location} does not begin with a line of JSON ({error}); check the file") from error
    if not isinstance(record, dict) or key not in record:
        keys = ", ".join(record) if isinstance(record, dict) else "none, the line is no object"
        raise UserError(
            f"data.text_column={key} is not a key of the first line of {file.location}; keys there: {keys}; "
            "set data.text_column to the one with the text"
        )
