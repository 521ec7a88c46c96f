"""What a source consists of: files, and blocks of them that can be read in any order.

The fingerprint identifies the data, not the place: relative file names, sizes, content identities, block layout and
the text column enter it; absolute paths, URLs, times, and the revision's name do not (a commit that only edits a
README leaves the data what it was).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from mygpt2.data.sources.filters import Filters
from mygpt2.errors import UserError, shown

EARLIER = "in quarantine since an earlier attempt"

Kind = Literal["parquet", "jsonl", "arrow", "tar", "txt", "tokens", "mixture"]
COLUMNS: tuple[Kind, ...] = ("parquet", "jsonl", "arrow")  # kinds whose documents are a column of several, or a key
NAMED: tuple[Kind, ...] = (*COLUMNS, "tar")  # kinds that the name of the text's column matters to
# What a part of a file is called, and what the blocks are. Parts of parquet and Arrow are groups of rows.
WORDS: dict[Kind, tuple[str, str]] = {
    "parquet": ("row group", "row groups"), "arrow": ("record batch", "groups of rows"),
    "jsonl": ("part", "byte ranges"), "txt": ("part", "byte ranges"), "tar": ("part", "runs of members"),
    "tokens": ("part", "token ranges"), "mixture": ("part", "blocks"),
}  # fmt: skip
ROWS: tuple[Kind, ...] = ("parquet", "arrow")

# One block. `part`: the row group of a parquet file, the (first) record batch of an Arrow file, else the running number
# of the block in its file. `start`, `stop`: rows within that group (parquet, arrow), bytes (jsonl, txt, tar), tokens
# (tokens); stop = -1: to the end.
# `rows`: documents in the block, -1 where only reading tells.
BLOCK = np.dtype([("file", "<i4"), ("part", "<i4"), ("start", "<i8"), ("stop", "<i8"), ("rows", "<i8")])


@dataclass(frozen=True)
class SourceFile:
    """One file. `identity` changes when its content does: an etag or object id of the hub, a content hash here."""

    name: str  # relative to the source's root, with forward slashes
    size: int  # bytes
    identity: str
    location: str = ""  # absolute path or URL; not part of the fingerprint
    mtime_ns: int = 0  # of a local file when it was resolved, to notice a change while running; not in the fingerprint


@dataclass(frozen=True)
class Manifest:
    """A resolved source. `blocks` is a read-only structured array of dtype BLOCK, ordered by file and place.

    `notes` say where a weaker mode is in force (a compressed file that is one block, very large row groups).
    """

    source: str
    kind: Kind
    revision: str | None
    text_column: str
    files: tuple[SourceFile, ...]
    blocks: np.ndarray = field(compare=False)
    notes: tuple[str, ...] = ()
    share: float | None = None  # of the documents, held out of a small source in place of data.validation_fraction
    pieces: int = 0  # that each document of a source of one is cut into; 0: documents are whole
    filters: Filters | None = None  # what is asked of a document's other columns

    def __post_init__(self) -> None:
        blocks = np.ascontiguousarray(self.blocks, dtype=BLOCK)
        blocks.flags.writeable = False
        object.__setattr__(self, "blocks", blocks)
        object.__setattr__(self, "files", tuple(self.files))
        object.__setattr__(self, "notes", tuple(self.notes))

    def __len__(self) -> int:
        return len(self.blocks)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what identifies the data."""
        content: dict[str, Any] = {
            "kind": self.kind,
            "text_column": self.text_column if self.kind in NAMED else "",
            "files": [[f.name, f.size, f.identity] for f in self.files],
            "blocks": hashlib.sha256(self.blocks.tobytes()).hexdigest(),
        }
        if self.pieces:
            content["pieces"] = self.pieces
        if self.filters:
            content["filters"] = self.filters.identity
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def documents(self) -> int | None:
        """Documents in the whole source, or None where only reading tells."""
        rows = self.blocks["rows"]
        return None if self.pieces or (rows < 0).any() else int(rows.sum())

    @property
    def size(self) -> int:
        """Bytes of all files as stored."""
        return sum(f.size for f in self.files)

    def at(self, block: int) -> tuple[Manifest, int]:
        """The manifest of the one source that a block is of, and the block's number there."""
        return self, block

    def file_of(self, block: int) -> SourceFile:
        return self.files[int(self.blocks["file"][block])]

    def files_of(self, block: int) -> tuple[SourceFile, ...]:
        """The file of a block; for small text files, which share a block, all of them, a document each."""
        row = self.blocks[block]
        together = int(row["rows"]) if self.kind == "txt" and row["stop"] < 0 and row["rows"] > 0 else 1
        return self.files[int(row["file"]) : int(row["file"]) + together]

    def block_identity(self, block: int) -> list[Any]:
        """What a block's content depends on, JSON-ready: a key for caches."""
        row = self.blocks[block]
        column = self.text_column if self.kind in NAMED else ""
        files = [[f.size, f.identity] for f in self.files_of(block)]
        more = [each for each in (self.pieces, self.filters and self.filters.identity) if each]
        more += [int(row["rows"])] if self.kind == "arrow" else []  # how many record batches it is
        return [self.kind, column, files, int(row["part"]), int(row["start"]), int(row["stop"]), *more]

    def describe(self, block: int) -> str:
        """Where a block is, for a person: file name and part."""
        row = self.blocks[block]
        return f"{shown(self.file_of(block).name)}, {WORDS[self.kind][0]} {int(row['part'])}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal manifest back."""
        return {
            "schema": 1,
            "source": self.source,
            "kind": self.kind,
            "revision": self.revision,
            "text_column": self.text_column,
            "fingerprint": self.fingerprint,
            "files": [[f.name, f.size, f.identity, f.location, f.mtime_ns] for f in self.files],
            "blocks": {name: self.blocks[name].tolist() for name in BLOCK.names or ()},
            "notes": list(self.notes),
            **({"share": self.share, "pieces": self.pieces} if self.share is not None or self.pieces else {}),
            **({"filters": self.filters.identity} if self.filters else {}),
        }

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Manifest:
        return cls(
            source=d["source"],
            kind=d["kind"],
            revision=d["revision"],
            text_column=d["text_column"],
            files=tuple(SourceFile(*row) for row in d["files"]),
            blocks=make_blocks(**d["blocks"]),
            notes=tuple(d["notes"]),
            share=d.get("share"),
            pieces=d.get("pieces", 0),
            filters=Filters(**found) if (found := d.get("filters")) else None,
        )


def make_blocks(file: Any, part: Any, start: Any, stop: Any, rows: Any) -> np.ndarray:
    """The block table from its columns, each a sequence of equal length or one number for all."""
    columns = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(c, dtype=np.int64)) for c in (file, part, start, stop, rows))
    )
    blocks = np.empty(len(columns[0]), dtype=BLOCK)
    for name, column in zip(BLOCK.names or (), columns, strict=True):
        blocks[name] = column
    return blocks


def check_quarantine(manifest: Manifest, allowed_share: float, reasons: Mapping[int, str]) -> None:
    """UserError when the unreadable blocks, each with its reason, are more than a run may leave out: of a mixture, of
    any of its sources."""
    for part in getattr(manifest, "parts", ()):
        numbers = range(part.first, part.first + len(part.manifest))
        own = {block - part.first: why for block, why in reasons.items() if block in numbers}
        check_quarantine(part.manifest, allowed_share, own)
    allowed = int(allowed_share * len(manifest))
    if len(reasons) > allowed:
        block = max(reasons, key=lambda b: (not reasons[b].startswith(EARLIER), b))
        raise UserError(
            f"{len(reasons)} of {len(manifest)} blocks of {manifest.source} are unreadable "
            f"({manifest.describe(block)}: {reasons[block]}); data.max_quarantine={allowed_share:g} allows {allowed}; "
            "repair the files or raise data.max_quarantine"
        )
