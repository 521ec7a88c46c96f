"""Any Hugging Face tokenizer.json, made to treat every text as ordinary text.

A byte-level BPE with a known split pattern is run by tiktoken's core, once its ids have been proven equal; anything
else by the `tokenizers` library itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from mygpt2.errors import UserError
from mygpt2.tokenizer.base import Tokenizer, printable_bytes, whole_characters
from mygpt2.tokenizer.fast import PROBES
from mygpt2.tokenizer.ranks import fits, tiktoken_core

END_OF_TEXT = ("<|endoftext|>", "</s>")  # looked for in this order, before tokenizer_config.json's eos_token


class HFTokenizer(Tokenizer):
    """A tokenizer.json. Special tokens are taken out for encoding, so no text can produce one."""

    def __init__(self, path: Path) -> None:
        content = _read_json(path)
        try:
            whole = tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the library raises bare Exception for every kind of bad content
            raise UserError(
                f"{path} is JSON but not a tokenizer.json the tokenizers library reads ({_one_line(error)}); "
                "give the file a Hugging Face tokenizer was saved to"
            ) from error
        ids = whole.get_vocab(with_added_tokens=True)
        self.name = str(path)
        self.vocab_size = max(ids.values(), default=-1) + 1
        self._eot = _end_of_text(ids, path)
        self.eot_id = ids[self._eot]
        self._content = _without_specials(content, self._eot)
        self._bpe = tokenizers.Tokenizer.from_str(json.dumps(self._content))
        self._whole = whole
        self._ids = ids
        self._specials = {t["id"] for t in content.get("added_tokens") or [] if t.get("special")} | {self.eot_id}
        identity = json.dumps({"kind": "hf", "content": self._content, "eot": self.eot_id}, sort_keys=True)
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()
        self._byte_level = _mentions(content.get("decoder"), "ByteLevel")
        self._core = tiktoken_core(self._content, map(whole_characters, PROBES))

    @property
    def engine(self) -> str:
        """The library that encodes: tiktoken or tokenizers."""
        return "tokenizers" if self._core is None else "tiktoken"

    def encode_array(self, text: str) -> np.ndarray:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._core is None:
            return self._by_library(texts)
        return [self._by_core(self._core, text) for text in texts]

    def _by_core(self, core: tiktoken.Encoding, text: str) -> np.ndarray:
        if not fits(text):
            return self._by_library([text])[0]
        try:
            ids = core.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            ids = core.encode_to_numpy(whole_characters(text), disallowed_special=())
        return ids.astype(self.dtype)

    def _by_library(self, texts: Sequence[str]) -> list[np.ndarray]:
        texts = [text if text.isascii() else whole_characters(text) for text in texts]
        encoded = self._bpe.encode_batch_fast(texts, add_special_tokens=False)
        rows = [np.array(e.ids, dtype=self.dtype) for e in encoded]
        return [self._ordinary(t, row) if self.eot_id in row else row for t, row in zip(texts, rows, strict=True)]

    def _ordinary(self, text: str, ids: np.ndarray) -> np.ndarray:
        """For vocabularies that hold the end-of-text string as a plain word: encode it in two halves."""
        around = text.split(self._eot)
        parts = [
            self._eot[1:] * (i > 0) + part + self._eot[:1] * (i < len(around) - 1) for i, part in enumerate(around)
        ]
        rows = [e.ids for e in self._bpe.encode_batch_fast(parts, add_special_tokens=False)]
        return np.array([i for row in rows for i in row if i != self.eot_id], dtype=self.dtype)

    def token_bytes(self) -> list[bytes]:
        pieces = [b""] * self.vocab_size
        added = {t["id"] for t in self._content["added_tokens"]}
        alphabet = printable_bytes()
        for word, i in self._ids.items():
            if i in self._specials:
                continue
            if self._byte_level and i not in added:
                pieces[i] = b"".join(
                    bytes([alphabet[c]]) if c in alphabet else c.encode("utf-8", "replace") for c in word
                )
            else:
                pieces[i] = _plain_bytes(word)
        return pieces

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        if self._byte_level:
            return super().decode(ids)
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        return self._whole.decode(known, skip_special_tokens=False)

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        return super().decode_bytes(ids) if self._byte_level else self.decode(ids).encode("utf-8", "replace")

    def hf_json(self) -> str:
        return json.dumps(self._content)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read tokenizer {path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise UserError(
            f"tokenizer {path} is not JSON ({_one_line(error)}); give a Hugging Face tokenizer.json"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f'tokenizer {path} has no "model" object; give a Hugging Face tokenizer.json')
    return content


def _end_of_text(ids: dict[str, int], path: Path) -> str:
    """The token that ends a document: a known one, or what tokenizer_config.json beside the file names."""
    named = None
    config = path.parent / "tokenizer_config.json"
    if config.is_file():
        try:
            named = json.loads(config.read_text(encoding="utf-8")).get("eos_token")
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"cannot read {config} ({_one_line(error)}); repair or remove it") from error
        named = named.get("content") if isinstance(named, dict) else named
    for token in (*END_OF_TEXT, named):
        if token in ids:
            return token
    raise UserError(
        f"tokenizer {path} has no end-of-text token ({' or '.join(END_OF_TEXT)}, or eos_token in tokenizer_config.json "
        "beside it); documents could not be told apart, so add one of them to added_tokens"
    )


def _without_specials(content: dict[str, Any], eot: str) -> dict[str, Any]:
    """The same tokenizer with nothing that turns text into special ids, adds ids, cuts or pads."""
    added = [t for t in content.get("added_tokens") or [] if not t.get("special") and t.get("content") != eot]
    return {**content, "added_tokens": added, "post_processor": None, "truncation": None, "padding": None}


def _mentions(part: Any, kind: str) -> bool:
    """Whether a component of a tokenizer.json is of this type, alone or inside a sequence."""
    if isinstance(part, dict):
        return part.get("type") == kind or any(_mentions(value, kind) for value in part.values())
    return isinstance(part, list) and any(_mentions(value, kind) for value in part)


def _plain_bytes(word: str) -> bytes:
    """Bytes of a token that is spelled in characters: `<0x0A>` is a byte, U+2581 a space (SentencePiece's)."""
    if re.fullmatch("<0x[0-9A-F]{2}>", word):
        return bytes.fromhex(word[3:5])
    return word.replace("\u2581", " ").encode("utf-8", "replace")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
