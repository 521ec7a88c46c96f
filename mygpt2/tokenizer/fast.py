"""An optional encoder many times as fast, used only where it has shown that it gives the same ids.

gigatoken reads the same tables but is another program; it is compared with the reference on the run's own text before
a single token of it is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
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
)


class FastEncoder:
    """gigatoken behind the one method that data preparation needs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        import gigatoken

        self.dtype = tokenizer.dtype
        self._encoder: Any = gigatoken.Tokenizer.from_json(tokenizer.hf_json())

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, as `Tokenizer.encode_batch`; on the calling thread, with the interpreter lock released."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
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
