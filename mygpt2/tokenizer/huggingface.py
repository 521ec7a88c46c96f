"""Any Hugging Face tokenizer.json, made to treat every text as ordinary text.

A byte-level BPE with a known split pattern is run by tiktoken's core, once its ids have been proven equal; anything
else by the `tokenizers` library itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from mygpt2.errors import UserError
from mygpt2.tokenizer.base import Tokenizer, printable_bytes, whole_characters
from mygpt2.tokenizer.fast import PROBES
from mygpt2.tokenizer.ranks import encode, fits, tiktoken_core
from mygpt2.tokenizer.trial import is_harmless, try_out

LARGEST_FILE = 256 << 20  # bytes; vocabularies of 250,000 with their merges take 35 MB
NEAR = 8  # ids before one that decide how a decoder joins it
END_OF_TEXT = ("<|endoftext|>", "</s>")  # looked for in this order, before tokenizer_config.json's eos_token


class HFTokenizer(Tokenizer):
    """A tokenizer.json. Special tokens are taken out for encoding, so no text can produce one."""

    def __init__(self, path: Path) -> None:
        content = _read_json(path)
        text = json.dumps(content)
        if not is_harmless(content):
            try_out(text, str(path))
        with _panics_as_errors():
            try:
                whole = tokenizers.Tokenizer.from_str(text)
            except Exception as error:  # the library raises bare Exception for every kind of bad content
                raise UserError(
                    f"{path} is JSON but not a tokenizer.json the tokenizers library reads ({_one_line(error)}); "
                    "give the file a Hugging Face tokenizer was saved to"
                ) from error
        ids = whole.get_vocab(with_added_tokens=True)
        self.name = str(path)
        self.vocab_size = max(ids.values(), default=-1) + 1
        if self.vocab_size > 4 * len(ids) + 65_536:
            raise UserError(
                f"tokenizer {path} has {len(ids):,} tokens and ids up to {self.vocab_size - 1:,}; "
                "such gaps are damage, give a tokenizer.json whose ids are numbered through"
            )
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
        # Spaces are spelled as U+2581 and nothing else joins tokens: the text is the tokens' bytes one after another.
        self._spelled = _mentions(content.get("decoder"), "Metaspace") or _replaces_spaces(content.get("decoder"))
        self._check_unknown(path)
        self._core = tiktoken_core(self._content, map(whole_characters, PROBES))
        self.prefix_bytes = len(self.decode_bytes(self.encode_array("a"))) - 1 if self._spelled else 0

    def encode_array(self, text: str) -> np.ndarray:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        core = self._core
        if core is None:
            return self._by_library(texts)
        return [encode(core, x, self.dtype) if fits(x) else self._by_library([x])[0] for x in texts]

    def _by_library(self, texts: Sequence[str]) -> list[np.ndarray]:
        texts = [text if text.isascii() else whole_characters(text) for text in texts]
        encoded = self._encoded(texts)
        rows = [np.array(e.ids, dtype=self.dtype) for e in encoded]
        return [self._ordinary(t, row) if self.eot_id in row else row for t, row in zip(texts, rows, strict=True)]

    def _encoded(self, texts: list[str]) -> list[tokenizers.Encoding]:
        """By the library, whose failures (it may meet a character of which it can make no token) name the tokenizer."""
        with _panics_as_errors():
            try:
                return self._bpe.encode_batch_fast(texts, add_special_tokens=False)
            except Exception as error:
                raise UserError(
                    f"tokenizer {self.name} cannot encode a text ({_one_line(error)}); give one that has a token for "
                    "unknown characters (unk_token, unk_id) or for every byte (byte_fallback)"
                ) from error

    def _check_unknown(self, path: Path) -> None:
        """UserError when some text cannot be encoded at all: it would come up in the middle of a run."""
        if not self._encoded(["\U0001fadc\u16a0\u0378\x07"])[0].ids:
            self.note = f"tokenizer {path} leaves characters out that it does not know: it has no unknown token"

    def _ordinary(self, text: str, ids: np.ndarray) -> np.ndarray:
        """For vocabularies that hold the end-of-text string as a plain word: encode it in two halves."""
        around = text.split(self._eot)
        parts = [
            self._eot[1:] * (i > 0) + part + self._eot[:1] * (i < len(around) - 1) for i, part in enumerate(around)
        ]
        rows = [e.ids for e in self._encoded(parts)]
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

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """As `Tokenizer.decode_bytes`, wherever the ids stand: two parts of a text give, decoded apart, the whole.

        With a tokenizer that puts a space before every text, what begins one begins with that space.
        """
        if self._byte_level or self._spelled:
            return super().decode_bytes(ids)
        return self._by_decoder(ids).encode()

    def continuation(self, id: int, before: Sequence[int]) -> bytes:
        if self._byte_level or self._spelled:
            return super().continuation(id, before)
        near = list(before)[-NEAR:]
        head, whole = self._by_decoder(near), self._by_decoder([*near, id])
        return (whole[len(head) :] if whole.startswith(head) else self._by_decoder([id])).encode()

    def _by_decoder(self, ids: Sequence[int] | np.ndarray) -> str:
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        return self._whole.decode(known, skip_special_tokens=False)

    def hf_json(self) -> str:
        return json.dumps(self._content)


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """The library's panics, which are no Exceptions, as a UserError."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as panic:
        raise UserError(
            f"the tokenizers library gave up on this tokenizer.json ({_one_line(panic)}); give another"
        ) from panic


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(
                f"tokenizer {path} is larger than {LARGEST_FILE >> 20} MB; give a Hugging Face tokenizer.json"
            )
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read tokenizer {path}: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
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
            named = json.loads(config.read_text(encoding="utf-8-sig")).get("eos_token")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(f"cannot read {config} ({_one_line(error)}); repair or remove it") from error
        named = named.get("content") if isinstance(named, dict) else named
    for token in (*END_OF_TEXT, named):
        if isinstance(token, str) and token in ids:
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


def _replaces_spaces(decoder: Any) -> bool:
    """Whether a decoder makes spaces of U+2581 and puts nothing between tokens, as those with byte fallback do."""
    parts = decoder.get("decoders") if isinstance(decoder, dict) and decoder.get("type") == "Sequence" else [decoder]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return False
    replaced = any(part.get("type") == "Replace" and part.get("content") == " " for part in parts)
    return replaced and all(part.get("type") in ("Replace", "ByteFallback", "Fuse", "Strip") for part in parts)


def _plain_bytes(word: str) -> bytes:
    """Bytes of a token that is spelled in characters: `<0x0A>` is a byte, U+2581 a space (SentencePiece's)."""
    if re.fullmatch("<0x[0-9A-F]{2}>", word):
        return bytes.fromhex(word[3:5])
    return word.replace("\u2581", " ").encode("utf-8", "replace")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
