"""Files, blocks and documents of an opened source, a page at a time: never more than one block is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.heldout import reason_against, settled
from mygpt2.data.inspect import shortened
from mygpt2.data.sources.filters import Filtered
from mygpt2.data.sources.local.unpack import compression_of
from mygpt2.data.sources.manifest import ROWS, WORDS, Manifest
from mygpt2.data.sources.mixture import Mixture, Part
from mygpt2.errors import UserError
from mygpt2.format import file_size
from workbench.corpus.library import Opened
from workbench.corpus.pages import Page, page_of

PAGE = 20
MOST_TEXT = 200_000  # characters of a document that are shown


@dataclass(frozen=True)
class FileLine:
    """A file of a source. `documents` is None where only reading tells."""

    number: int
    name: str
    size: int
    blocks: int
    documents: int | None


@dataclass(frozen=True)
class DocumentLine:
    """A document of a block. `number` counts within the block. `use`: training, validation, or why it is left out."""

    number: int
    chars: int
    bytes: int
    use: str
    preview: str


def files_page(manifest: Manifest, page: Any) -> tuple[Page, list[FileLine]]:
    """A page of the files with their blocks and documents."""
    shown = page_of(len(manifest.files), page, PAGE)
    lines = []
    for number in range(shown.start, shown.stop):
        blocks = blocks_of_file(manifest, number)
        rows = manifest.blocks["rows"][blocks]
        together = len(blocks) == 1 and len(manifest.files_of(int(blocks[0]))) > 1
        documents = 1 if together else None if (rows < 0).any() else int(rows.sum())
        lines.append(FileLine(number, manifest.files[number].name, manifest.files[number].size, len(blocks), documents))
    return shown, lines


def blocks_of_file(manifest: Manifest, file: int) -> np.ndarray:
    """Indices of the blocks that hold something of a file."""
    if not 0 <= file < len(manifest.files):
        raise UserError(f"file {file} is outside 0 .. {len(manifest.files) - 1} of {manifest.source}")
    if isinstance(manifest, Mixture):
        part, within = _part_of_file(manifest, file)
        return part.first + blocks_of_file(part.manifest, within)
    found = np.flatnonzero(manifest.blocks["file"] == file)
    if len(found) or manifest.kind != "txt":
        return found
    before = np.flatnonzero(manifest.blocks["file"] < file)  # small text files lie in the block of an earlier one
    last = before[-1:]
    return (
        last
        if len(last) and file < int(manifest.blocks["file"][last[0]]) + len(manifest.files_of(int(last[0])))
        else found
    )


def _part_of_file(mixture: Mixture, file: int) -> tuple[Part, int]:
    """The source that a file of a mixture is of, and the file's number there."""
    for part in mixture.parts:
        if file < len(part.manifest.files):
            break
        file -= len(part.manifest.files)
    return part, file


def block_label(manifest: Manifest, block: int) -> str:
    """A block for a person: which part of its file, and how much it holds."""
    manifest, block = manifest.at(block)
    row = manifest.blocks[block]
    word = WORDS[manifest.kind][0]
    held = f"{int(row['rows']):,} documents" if row["rows"] >= 0 else ""
    span = ""
    if row["stop"] >= 0:
        unit = "rows" if manifest.kind in ROWS else "tokens" if manifest.kind == "tokens" else "bytes"
        span = f"{unit} {int(row['start']):,} to {int(row['stop']) - 1:,}"
    elif compression_of(manifest.file_of(block).name):
        span = "the whole file, unpacked"
    return ", ".join(x for x in (f"{word} {int(row['part'])}", span, held) if x)


def documents_page(opened: Opened, block: int, page: Any, data: DataConfig) -> tuple[Page, list[DocumentLine]]:
    """A page of the documents of a block, with the beginning of each."""
    if not 0 <= block < len(opened.manifest):
        raise UserError(f"block {block} is outside 0 .. {len(opened.manifest) - 1} of {opened.manifest.source}")
    found = opened.read(block)
    shown = page_of(len(found), page, PAGE)
    data = settled(data, opened.manifest.at(block)[0])
    return shown, [line_of(opened, n, found[n], data) for n in range(shown.start, shown.stop)]


def line_of(opened: Opened, number: int, document: Any, data: DataConfig) -> DocumentLine:
    text = opened.as_text(document)
    if text is None:
        return DocumentLine(number, 0, 0, use_of(document, data), _no_text(document))
    return DocumentLine(
        number, len(text), len(text.encode(errors="replace")), use_of(document, data), shortened(text) or "(empty)"
    )


def _no_text(document: Any) -> str:
    return "(left out by a filter)" if isinstance(document, Filtered) else "(not text)"


def use_of(document: Any, data: DataConfig) -> str:
    """What training does with a document, by its own rules."""
    reason = reason_against(document, data)
    return {None: "training", "held_out": "validation"}.get(reason, f"left out: {str(reason).replace('_', ' ')}")


def whole_document(opened: Opened, block: int, number: Any) -> tuple[str, str]:
    """(where it is, its text, cut after MOST_TEXT characters). UserError for a number that is not there."""
    found = opened.read(block)
    if not isinstance(number, int) or not 0 <= number < len(found):
        raise UserError(f"document {number!r} is outside 0 .. {len(found) - 1} of this part")
    text = opened.as_text(found[number])
    where = f"{opened.manifest.describe(block)}, document {number}"
    if text is None:
        return where, _no_text(found[number])
    cut = f"\n\n... {len(text) - MOST_TEXT:,} further characters" if len(text) > MOST_TEXT else ""
    return where, text[:MOST_TEXT] + cut


def facts(opened: Opened) -> list[tuple[str, str]]:
    """(label, value) lines on a source as a whole; nothing is read for them."""
    manifest = opened.manifest
    known = manifest.documents
    return [
        ("format", manifest.kind),
        *([("commit", manifest.revision)] if manifest.revision else []),
        ("files", f"{len(manifest.files):,}, {file_size(manifest.size)}"),
        ("blocks", f"{len(manifest):,} {WORDS[manifest.kind][1]}"),
        ("documents", f"{known:,}" if known is not None else "only reading tells"),
        ("fingerprint", manifest.fingerprint[:16]),
        *(("note", note) for note in manifest.notes),
    ]
