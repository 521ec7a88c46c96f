"""An optional encoder many times as fast, used only where it has shown that it gives the same ids.

gigatoken reads the same tables but is another program; it is compared with the reference on the run's own text before
a single token of it is believed. It knows another version of Unicode: a text with a character that is a letter in one
version and nothing in another goes to the reference.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from mygpt2.tokenizer.base import Tokenizer, whole_characters

PACKAGE = "gigatoken"
# Where encoders have differed before: contractions, runs of spaces, numerals and letters of other scripts, marks,
# characters outside the basic plane, control characters, special strings, halves of surrogate pairs.
PROBES = (
    "",
    " ",
    "  two  spaces\n\n\n\tand tabs \r\n end ",
    "It's we'll they'VE I'd 'tis don''t 12345 3.14 \u00bd \u0663\u0664 \u2167",
    "na\u00efve caf\u00e9 \u4f60\u597d \u3053\u3093 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600\U0001f1e6 \u200b\u00a0\u2028\x00\x1f\x7f",
    "<|endoftext|> </s> <s> [PAD]<|endoftext|>",
    "lone \ud800 surrogate \udfff",
    "a" * 600 + " " * 600 + "!" * 600,
    "\U00030000's \U0003134f'll \U00010942't \u0cdc'd \U0001e900're \U00016d40'm\U0002ebf0've",  # of new letters
)
# Where Unicode has added letters and numbers since version 11 (2018), apart from what Python does not know at all.
RECENT = ((0x0860, 0x08FF), (0x0C5C, 0x0C5D), (0x0CDC, 0x0CF3), (0x1C80, 0x1C8F), (0x31A0, 0x31BF), (0x4DB6, 0x4DBF),
          (0x9FEB, 0x9FFF), (0xA7A0, 0xA7FF), (0xAB60, 0xAB6F))  # fmt: skip
# Of the other planes the parts to which nothing is added, or signs only: mathematical letters, emoji, CJK extension B.
SETTLED = ((0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF), (0x20000, 0x2A6D6))


@cache
def _unsettled() -> tuple[np.ndarray, np.ndarray]:
    """By code point, whether its class may depend on the version of Unicode; the same by UTF-16 unit."""
    table = np.zeros(0x110000, dtype=bool)
    table[0x10000:] = True
    table[:0x10000] = [unicodedata.category(chr(c)) == "Cn" for c in range(0x10000)]
    for first, last in RECENT:
        table[first : last + 1] = True
    for first, last in SETTLED:
        table[first : last + 1] = False
    units = table[:0x10000].copy()
    units[0xD800:0xE000] = True
    return table, units


def is_settled(text: str) -> bool:
    """Whether every version of Unicode that an encoder may know cuts this text alike."""
    if text.isascii():
        return True
    table, units = _unsettled()
    if not units[np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")].any():
        return True
    return not table[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")].any()


class FastEncoder:
    """gigatoken behind the one method that data preparation needs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        import gigatoken

        self.dtype = tokenizer.dtype
        self._reference = tokenizer
        self._encoder: Any = gigatoken.Tokenizer.from_json(tokenizer.hf_json())

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, as `Tokenizer.encode_batch`; on the calling thread, with the interpreter lock released."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        if not is_settled(text):
            return self._reference.encode_array(text)
        try:
            ids = self._encoder.encode(text)
        except TypeError:  # its word for a string that has no UTF-8
            ids = self._encoder.encode(whole_characters(text))
        return ids.astype(self.dtype)


def probe_fast_encoder(tokenizer: Tokenizer, sample_texts: Sequence[str]) -> tuple[FastEncoder | None, str]:
    """The fast encoder if it may stand in for `tokenizer`, and in one phrase why or why not."""
    if find_spec(PACKAGE) is None:
        return None, f"{PACKAGE} is not installed (pip install mygpt2[fast])"
    try:
        encoder = FastEncoder(tokenizer)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        return None, f"{PACKAGE} cannot load {tokenizer.name}: {' '.join(str(error).split())[:160]}"
    texts = [*PROBES, *sample_texts]
    pairs = zip(tokenizer.encode_batch(texts), encoder.encode_batch(texts), strict=True)
    different = sum(not np.array_equal(reference, fast) for reference, fast in pairs)
    if different:
        return None, f"{PACKAGE} gives other ids than {tokenizer.name} on {different} of {len(texts)} texts"
    return encoder, f"{PACKAGE} gives the same ids as {tokenizer.name} on {len(texts)} texts"


def fast_encoder(tokenizer: Tokenizer, sample_texts: Sequence[str]) -> FastEncoder | None:
    """`probe_fast_encoder` without its reason."""
    return probe_fast_encoder(tokenizer, sample_texts)[0]
