"""Which documents are trained on, and which are held out: a hash of their content decides, before any shuffle.

Training drops held-out documents in the tokenizing step and the validation set is made of nothing else, so the two are
disjoint by construction, copies of a text included.

Of few documents the hash may choose none, or all. Then the share is moved to where the document with the lowest hash
falls into it and no other does, so that training and validation both have something. A source of one document is cut
into pieces first. All of it follows from the documents alone, and sources of which the share chooses some documents,
and leaves some, stay as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mygpt2.config.data import DataConfig
from mygpt2.data.checked import keep_checked, load_checked
from mygpt2.data.scan import BlockReader, Dependable, scan, spread
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.filters import Filtered
from mygpt2.data.sources.manifest import NAMED, Manifest
from mygpt2.errors import UserError, shown

RANGE = 2.0**64
PLENTY = 50  # held-out documents to be expected, from where on nobody has to look: e^-50 is the chance of none
LARGEST = 1 << 20  # bytes of a document, to guess how many there are at least
LEAST_KEPT = 0.01  # of the documents, from where on nobody has to look whether the filters leave enough
LEAST = 100  # characters or ids: a step takes many passes over so little
PIECE, PIECE_TOKENS = 2048, 512  # characters and ids of a piece at least, where the document is long enough


def content_hash(document: str | np.ndarray) -> int:
    """XXH3 (64 bits) of a text in UTF-8, or of ids as little-endian 32-bit numbers without end-of-text.

    Its definition is frozen, and at several GB/s it costs the fast encoder nothing. Raises UnicodeEncodeError for a
    string with lone surrogates, which is not text.
    """
    if isinstance(document, np.ndarray):
        return xxhash.xxh3_64_intdigest(np.ascontiguousarray(document, dtype="<u4").tobytes())
    return xxhash.xxh3_64_intdigest(document.encode())


def held_out(document: str | np.ndarray, fraction: float) -> bool:
    """True for about `fraction` of all documents, the same ones on every machine."""
    return content_hash(document) < fraction * RANGE


def hashes_of(documents: Sequence[Any]) -> list[int | None]:
    """The hash of each document of a block; None for what is not text."""
    hashes: list[int | None] = []
    for document in documents:
        try:
            hashes.append(content_hash(document) if isinstance(document, str | np.ndarray) else None)
        except UnicodeEncodeError:  # lone surrogates, from an escaped JSON string
            hashes.append(None)
    return hashes


def reason_against(
    document: Any, data: DataConfig, known: int | None = None, elsewhere: Sequence[float] = ()
) -> str | None:
    """Why training leaves a document out: it is filtered, not text, empty, too long or held out; None for none.

    `known`: its hash, where that was taken before. `elsewhere`: the shares of small sources beside its own, each of
    which holds out the one document whose hash is next below it; a copy of that is not trained on.
    """
    if isinstance(document, Filtered):
        return document.reason
    if not isinstance(document, str | np.ndarray):
        return "not_text"
    if not len(document) or (isinstance(document, str) and document.isspace()):
        return "empty"
    if isinstance(document, str) and len(document) > data.max_document_chars:
        return "too_long"
    hashed = hashes_of([document])[0] if known is None else known
    if hashed is None:
        return "not_text"
    copy = any(math.nextafter(share, 0.0) * RANGE <= hashed < share * RANGE for share in elsewhere)
    return "held_out" if copy or hashed < data.validation_fraction * RANGE else None


def chosen(
    documents: Sequence[Any], data: DataConfig, hashes: Sequence[int | None] | None = None, held_out: bool = False,
    elsewhere: Sequence[float] = (),
) -> tuple[list[int], Counter[str]]:  # fmt: skip
    """(numbers of the documents that training takes, how many others by reason); or of the held-out ones instead."""
    kept: list[int] = []
    left_out: Counter[str] = Counter()
    for number, (document, known) in enumerate(zip(documents, hashes or [None] * len(documents), strict=True)):
        reason = reason_against(document, data, known, elsewhere)
        if held_out:
            reason = {"held_out": None, None: "not_held_out"}.get(reason, reason)
        if reason is None:
            kept.append(number)
        else:
            left_out[reason] += 1
    return kept, left_out


def settle(manifest: Manifest, reader: BlockReader, data: DataConfig, cache_dir: Path) -> Manifest:
    """The manifest with the share that is held out, and the pieces, where the source is small.

    Reads until it has met a document of either kind. UserError when there is no document with text at all, TryAgain
    when the source cannot be read at present.
    """
    fraction = data.validation_fraction
    count = manifest.documents if manifest.documents is not None else manifest.size / LARGEST
    count *= LEAST_KEPT if manifest.filters else 1
    if fraction <= 0 or count * fraction >= PLENTY:
        return manifest
    tokenizer = data.tokenizer if manifest.kind == "tokens" else ""
    what = (manifest.fingerprint, fraction, data.max_document_chars, tokenizer)
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
        self._reader, self._count, self.close = reader, count, reader.close

    def read(self, block: int) -> list[Any]:
        return [piece for document in self._reader.read(block) for piece in cut(document, self._count)]


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


def _look(manifest: Manifest, reader: BlockReader, data: DataConfig) -> tuple[float | None, int, bool]:
    """(the share where the given one does not do, the pieces, whether that took long and may be kept)."""
    kinds: set[bool] = set()
    hashes: set[int] = set()  # the two lowest
    one: Any = None
    reasons: Counter[str] = Counter()
    blocks = unreadable = size = 0
    for _, found in scan(Dependable(reader, manifest), manifest, spread(len(manifest)), data, threads=1):
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


def _above(value: int) -> float:
    """The lowest share into which a hash falls."""
    share = value / RANGE
    while not value < share * RANGE:
        share = math.nextafter(share, 1.0)
    return share


def no_text(manifest: Manifest, reasons: Counter[str]) -> UserError:
    """What to say of a source in which nothing can be used."""
    counts = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.most_common(4)]
    column = f" data.text_column={manifest.text_column} or" if manifest.kind in NAMED else ""
    if manifest.filters:
        column = f" {manifest.filters},{column}"
    return UserError(
        f"data.source={shown(manifest.source)} holds no text to learn from ({', '.join(counts) or 'it is empty'}); "
        f"check{column} the files, or give another source"
    )
