"""What every tokenizer here can do, whatever its tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np


class Tokenizer(ABC):
    """Text to ids and back. Encoding is *ordinary*: `<|endoftext|>` inside a text is eleven characters, never `eot_id`.

    Instances do not change after construction and may be shared between threads. `fingerprint` (SHA-256, hex) is equal
    exactly when every text gets the same ids.
    """

    name: str
    vocab_size: int  # ids are 0 .. vocab_size - 1
    eot_id: int
    fingerprint: str
    prefix_bytes = 0  # put before every text by the tokenizer itself: SentencePiece's space
    note = ""  # what a person should know before training with it

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that holds every id."""
        return np.dtype(np.uint16 if self.vocab_size <= 65536 else np.uint32)

    @abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """Ids of one text, in `dtype`; what a text cannot hold (half a surrogate pair) counts as U+FFFD."""

    @abstractmethod
    def token_bytes(self) -> list[bytes]:
        """For each id the bytes it stands for; b"" for end-of-text and for ids that stand for no text."""

    @abstractmethod
    def hf_json(self) -> str:
        """This tokenizer without its special tokens as the text of a Hugging Face tokenizer.json."""

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without end-of-text."""
        return self.encode_array(text).tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, in `dtype`, without end-of-text. The work is done with the interpreter lock released."""
        return [self.encode_array(text) for text in texts]

    @cached_property
    def _pieces(self) -> list[bytes]:
        pieces = self.token_bytes()
        pieces[self.eot_id] = b"<|endoftext|>"
        return pieces

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes of ids, end-of-text written out. Ids outside the vocabulary, padded ones say, are empty."""
        pieces, size = self._pieces, self.vocab_size
        return b"".join(pieces[i] for i in map(int, ids) if 0 <= i < size)

    def continuation(self, id: int, before: Sequence[int]) -> bytes:
        """The bytes that one more id adds to the text of `before`."""
        return self.decode_bytes([id])

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of any ids; bytes that are not UTF-8, half a character say, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


def printable_bytes() -> dict[str, int]:
    """GPT-2's alphabet: one visible character for each byte, in the order of the ids 0 .. 255.

    Visible Latin-1 characters stand for themselves; the other 68 bytes are, in order, the characters from U+0100 on.
    """
    visible = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    hidden = [b for b in range(256) if b not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


def whole_characters(text: str) -> str:
    """The text with lone surrogates, which UTF-8 has no bytes for, replaced by U+FFFD; tiktoken does the same."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def byte_level_json(
    merges: Sequence[tuple[str, str]], pre_tokenizer: dict[str, Any], added: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The content of a tokenizer.json: the 256 bytes, then the merges; `added` tokens have ids of their own."""
    words = [*printable_bytes(), *(first + second for first, second in merges)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {word: number for number, word in enumerate(words)},
            "merges": [" ".join(merge) for merge in merges],
        },
    }


def special_token(number: int, text: str) -> dict[str, Any]:
    """An entry of a tokenizer.json's `added_tokens`."""
    plain = {name: False for name in ("single_word", "lstrip", "rstrip", "normalized")}
    return {"id": number, "content": text, **plain, "special": True}
