"""Which documents are never trained on: a hash of their content decides, before any shuffle.

Training drops these documents in the tokenizing step and the validation set is made of nothing else, so the two are
disjoint by construction, copies of a text included.
"""

from __future__ import annotations

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


def reason_against(document: Any, data: DataConfig) -> str | None:
    """Why training leaves a document out: it is not text, empty, too long or held out; None where it does not."""
    if isinstance(document, np.ndarray):
        if not len(document):
            return "empty"
        return "held_out" if held_out_tokens(document, data.validation_fraction) else None
    if not isinstance(document, str):
        return "not_text"
    if not document or document.isspace():
        return "empty"
    if len(document) > data.max_document_chars:
        return "too_long"
    try:
        return "held_out" if held_out(document, data.validation_fraction) else None
    except UnicodeEncodeError:  # lone surrogates, from an escaped JSON string
        return "not_text"
