"""Which documents are never trained on: a hash of their content decides, before any shuffle.

Training drops these documents in the tokenizing step and the validation set is made of nothing else, so the two are
disjoint by construction, copies of a text included.
"""

from __future__ import annotations

import numpy as np
import xxhash

_RANGE = 2.0**64


def held_out(text: str, fraction: float) -> bool:
    """True for about `fraction` of all texts, the same ones on every machine.

    XXH3 (64 bits) of the UTF-8 text: its definition is frozen, and at several GB/s it costs the fast encoder nothing.
    Raises UnicodeEncodeError for a string with lone surrogates, which is not text.
    """
    return xxhash.xxh3_64_intdigest(text.encode()) < fraction * _RANGE


def held_out_tokens(ids: np.ndarray, fraction: float) -> bool:
    """The same for a pre-tokenized document, by its ids as little-endian 32-bit numbers without end-of-text."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(ids, dtype="<u4").tobytes()) < fraction * _RANGE
