"""Resolving a local file or folder: which files, which blocks, and what cannot be used.

Blocks are row groups, byte ranges or token ranges. What is wrong with the files is said here, at the opening, with
their names: as an error where hardly anything could be read, as a note of the manifest where the rest can.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.filters import Filters
from mygpt2.data.sources.local.cutting import arrow_blocks, byte_blocks, parquet_blocks, tar_blocks, token_blocks
from mygpt2.data.sources.local.describe import Described, describe
from mygpt2.data.sources.local.find import PREPARED, find
from mygpt2.data.sources.manifest import COLUMNS, Kind, Manifest, make_blocks
from mygpt2.errors import UserError, listed, shown, word
from mygpt2.files import read_json
from mygpt2.records import whole
from mygpt2.tokenizer import load_tokenizer

READERS = 16


def resolve_local(
    source: str, path: Path, data: DataConfig, only: Kind | None = None, cache_dir: Path | None = None
) -> Manifest:
    """The manifest of a file or folder, or of its files of one kind. UserError when it cannot be used.

    `cache_dir`: where what takes long to find is kept.
    """
    found = find(path, only)
    kind, filters = found.kind, Filters.of(data)
    if filters and kind not in COLUMNS:
        raise UserError(
            f"{filters} cannot be asked of data.source={shown(source)}: its {kind} files have no columns; allowed: "
            f"sources of {', '.join(COLUMNS)}; unset it (in a mixture, set it for the sources that have columns), or "
            "give one of these"
        )
    with ThreadPoolExecutor(min(READERS, len(found.paths))) as pool:
        described = list(pool.map(lambda p: describe(found.root, p, kind), found.paths))
        files = [d.file for d in described]
        if kind == "parquet":
            blocks, notes = parquet_blocks(files, data.text_column, filters, pool)
        elif kind == "arrow":
            blocks, notes = arrow_blocks(files, data.text_column, filters, pool)
        elif kind == "tar":
            blocks, notes = tar_blocks(files, data.text_column, pool, cache_dir)
            notes += _encoding_notes(described)
        elif kind == "tokens":
            blocks, notes = token_blocks(files)
            notes += _prepared(source, found.root, data, all_of_it=path.is_dir())
        else:
            notes = _encoding_notes(described)
            if kind == "jsonl":
                notes += _key_notes(described, data.text_column, filters)
            blocks, more = byte_blocks(files, whole_small_files=kind == "txt")
            notes += more
    if not blocks:
        raise UserError(
            f"data.source={shown(source)} holds no data: its {len(files)} {kind} files are empty; give another folder"
        )
    table = make_blocks(*np.array(blocks, dtype=np.int64).T)
    notes = [*found.notes, *notes]
    return Manifest(source, kind, None, data.text_column, tuple(files), table, tuple(notes), filters=filters)


def _prepared(source: str, folder: Path, data: DataConfig, all_of_it: bool) -> list[str]:
    """What is told of a folder that `data prepare` did not finish. UserError for another tokenizer than it was made
    with, whose ids would be read as other text."""
    found = read_json(folder / PREPARED) or {}
    identity, shards = found.get("identity"), found.get("shards")
    if not isinstance(identity, dict):
        return []
    made_with = identity.get("tokenizer")
    if made_with != data.tokenizer and load_tokenizer(data.tokenizer).fingerprint != identity.get(
        "tokenizer_fingerprint"
    ):
        raise UserError(
            f"data.source={shown(source)} was prepared with data.tokenizer={shown(made_with)}, and "
            f"{shown(data.tokenizer)} would read other text out of it; give --data.tokenizer {word(made_with)}, or "
            "prepare the text again"
        )
    last = shards[-1] if isinstance(shards, list) and shards else None
    done, blocks = whole(last.get("next_block")) if isinstance(last, dict) else 0, whole(identity.get("blocks"))
    if all_of_it and done is not None and blocks and done < blocks:
        return [f"data prepare was not finished: {done:,} of {blocks:,} blocks are there; the same command goes on"]
    return []


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
