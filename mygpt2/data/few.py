"""Small sources: a hash of each document decides what is held out, and of few documents it may choose none, or all.

Then the share is moved to where the document with the lowest hash falls into it and no other does, so that training
and validation both have something. A source of one document is cut into pieces first. All of it follows from the
documents alone, and sources of which the share chooses some documents, and leaves some, stay as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.schema import DataConfig
from mygpt2.data.checked import keep_checked, load_checked
from mygpt2.data.heldout import RANGE, content_hash, reason_against
from mygpt2.data.scan import Dependable, Reader, scan, spread
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.errors import UserError, shown

PLENTY = 50  # held-out documents to be expected, from where on nobody has to look: e^-50 is the chance of none
LARGEST = 1 << 20  # bytes of a document, to guess how many there are at least
LEAST = 100  # characters or ids: a step takes many passes over so little
PIECE, PIECE_TOKENS = 2048, 512  # characters and ids of a piece at least, where the document is long enough


def settle(manifest: Manifest, reader: Reader, data: DataConfig, cache_dir: Path) -> Manifest:
    """The manifest with the share that is held out, and the pieces, where the source is small.

    Reads until it has met a document of either kind. UserError when there is no document with text at all, TryAgain
    when the source cannot be read at present.
    """
    fraction = data.validation_fraction
    count = manifest.documents if manifest.documents is not None else manifest.size / LARGEST
    if fraction <= 0 or count * fraction >= PLENTY:
        return manifest
    what = (
        manifest.fingerprint,
        fraction,
        data.max_document_chars,
        data.tokenizer if manifest.kind == "tokens" else "",
    )
    path = Path(cache_dir) / "shares" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:24]}.json"
    known = load_checked(path)
    if known is None:
        *known, lasting = _look(manifest, reader, data)
        if lasting:
            keep_checked(path, known, Path(cache_dir))
    share, pieces = known
    if share is None and not pieces:
        return manifest
    note = (
        f"too few documents for a share of {fraction:g} of them: "
        + (f"each is cut into {pieces} pieces, and " if pieces else "")
        + "the one whose hash is lowest is held out"
    )
    return replace(manifest, share=share, pieces=pieces, notes=(*manifest.notes, note))


def settled(data: DataConfig, manifest: Manifest) -> DataConfig:
    """The settings with the share that the manifest says."""
    return data if manifest.share is None else data.model_copy(update={"validation_fraction": manifest.share})


class InPieces:
    """A reader of a source whose documents are cut into `count` pieces each."""

    def __init__(self, reader: Any, count: int) -> None:
        self._reader, self._count = reader, count

    def read(self, block: int) -> list[Any]:
        return [piece for document in self._reader.read(block) for piece in cut(document, self._count)]

    def close(self) -> None:
        self._reader.close()


def cut(document: Any, count: int) -> list[Any]:
    """A document in `count` pieces of about the same size, together the whole; a text is cut between words."""
    if isinstance(document, np.ndarray):
        return np.array_split(document, count)
    if not isinstance(document, str):
        return [document]
    size = len(document) / count
    places = [0]
    for number in range(1, count):
        at = round(number * size)
        gap = next((i for i in range(at, min(len(document), at + round(size / 2))) if document[i].isspace()), None)
        places.append(max(places[-1], at if gap is None else gap + 1))
    return [document[a:b] for a, b in zip(places, [*places[1:], len(document)], strict=True)]


def _look(manifest: Manifest, reader: Reader, data: DataConfig) -> tuple[float | None, int, bool]:
    """(the share where the given one does not do, the pieces, whether that took long and may be kept)."""
    kinds: set[bool] = set()
    hashes: set[int] = set()  # the two lowest
    one: Any = None
    reasons: Counter[str] = Counter()
    blocks = unreadable = size = 0
    for _, found in _documents(manifest, reader, data):
        blocks += 1
        if isinstance(found, Unreadable):
            reasons[f"part unreadable ({found.reason})"] += 1
            unreadable += 1
            continue
        for document in found:
            reason = reason_against(document, data)
            if reason not in (None, "held_out"):
                reasons[reason] += 1
                continue
            one = document
            size += len(document)
            kinds.add(reason is None)
            hashes = set(sorted({*hashes, content_hash(document)})[:2])
        if len(kinds) == 2:
            return None, 0, blocks > 3 and not unreadable
    if not hashes:
        raise no_text(manifest, reasons)
    if size < LEAST:
        raise UserError(
            f"data.source={shown(manifest.source)} holds {size:,} "
            f"{'ids' if manifest.kind == 'tokens' else 'characters of text'}; that is too little to train on; give at "
            f"least {LEAST}"
        )
    if len(hashes) > 1:
        return _above(min(hashes)), 0, not unreadable
    each = PIECE_TOKENS if isinstance(one, np.ndarray) else PIECE
    pieces = max(2, min(round(1 / data.validation_fraction), len(one) // each))
    parts = [part for part in cut(one, pieces) if len(part) and reason_against(part, data) in (None, "held_out")]
    hashes = set(map(content_hash, parts))
    return (_above(min(hashes)), pieces, not unreadable) if len(hashes) > 1 else (None, 0, False)


def _documents(manifest: Manifest, reader: Reader, data: DataConfig) -> Any:
    take: Callable[[int, list[Any]], list[Any]] = lambda _, documents: documents  # noqa: E731
    return scan(
        Dependable(reader, manifest), spread(len(manifest)), take, source=manifest.source,
        outage_minutes=data.outage_minutes, threads=1,
    )  # fmt: skip


def no_text(manifest: Manifest, reasons: Counter[str]) -> UserError:
    """What to say of a source in which nothing can be used."""
    why = (
        ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.most_common(4)) or "it is empty"
    )
    column = f" data.text_column={manifest.text_column} or" if manifest.kind in ("parquet", "jsonl") else ""
    return UserError(
        f"data.source={shown(manifest.source)} holds no text to learn from ({why}); check{column} the files, or give "
        "another source"
    )


def _above(value: int) -> float:
    """The lowest share into which a hash falls."""
    share = value / RANGE
    while not value < share * RANGE:
        share = math.nextafter(share, 1.0)
    return share
