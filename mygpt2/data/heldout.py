"""Which documents are never trained on: a hash of their content decides, before any shuffle.

Training drops these documents in the tokenizing step and the validation set is made of nothing else, so the two are
disjoint by construction, copies of a text included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from mygpt2.config.schema import DataConfig

RANGE = 2.0**64


def content_hash(document: str | np.ndarray) -> int:
    """XXH3 (64 bits) of a text in UTF-8, or of ids as little-endian 32-bit numbers without end-of-text.

    Its definition is frozen, and at several GB/s it costs the fast encoder nothing. Raises UnicodeEncodeError for a
    string with lone surrogates, which is not text.
    """
    if isinstance(document, np.ndarray):
        return xxhash.xxh3_64_intdigest(np.ascontiguousarray(document, dtype="<u4").tobytes())
    return xxhash.xxh3_64_intdigest(document.encode())


def held_out(text: str, fraction: float) -> bool:
    """True for about `fraction` of all texts, the same ones on every machine."""
    return content_hash(text) < fraction * RANGE


def held_out_tokens(ids: np.ndarray, fraction: float) -> bool:
    """The same for a pre-tokenized document."""
    return content_hash(ids) < fraction * RANGE


def hashes_of(documents: Sequence[Any]) -> list[int | None]:
    """The hash of each document of a block; None for what is not text."""
    hashes: list[int | None] = []
    for document in documents:
        try:
            hashes.append(content_hash(document) if isinstance(document, str | np.ndarray) else None)
        except UnicodeEncodeError:  # lone surrogates, from an escaped JSON string
            hashes.append(None)
    return hashes


def reason_against(document: Any, data: DataConfig, known: int | None = None) -> str | None:
    """Why training leaves a document out: it is not text, empty, too long or held out; None where it does not.

    `known`: its hash, where that was taken before.
    """
    if isinstance(document, np.ndarray):
        if not len(document):
            return "empty"
        hashed = content_hash(document) if known is None else known
        return "held_out" if hashed < data.validation_fraction * RANGE else None
    if not isinstance(document, str):
        return "not_text"
    if not document or document.isspace():
        return "empty"
    if len(document) > data.max_document_chars:
        return "too_long"
    try:
        hashed = content_hash(document) if known is None else known
        return "held_out" if hashed < data.validation_fraction * RANGE else None
    except UnicodeEncodeError:  # lone surrogates, from an escaped JSON string
        return "not_text"
