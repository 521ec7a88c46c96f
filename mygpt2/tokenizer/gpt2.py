"""GPT-2's byte-pair encoding, exact and offline, and its truncations to smaller vocabularies.

The merges are OpenAI's published file, which comes with this package (tables/README.md) and is believed only when its
SHA-256 is the one tiktoken itself pins. The merging is tiktoken's.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import tiktoken

from mygpt2.errors import UserError
from mygpt2.tokenizer.base import Tokenizer, byte_level_json, printable_bytes
from mygpt2.tokenizer.patterns import GPT2, pre_tokenizer
from mygpt2.tokenizer.ranks import LONGEST_RUN, encode

MERGES_FILE = Path(__file__).parent / "tables" / "vocab.bpe"
SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}  # tiktoken_ext/openai_public.py, function gpt2; the second file numbers the tokens of the first
FULL_SIZE = 50257
SMALLEST = 257  # every byte and end-of-text


class GPT2Tokenizer(Tokenizer):
    """The first `vocab_size - 257` merges of GPT-2; end-of-text is the last id.

    A merge list cut short is a byte-pair encoding itself, because a merge only ever uses tokens made before it.
    """

    def __init__(self, vocab_size: int = FULL_SIZE) -> None:
        if not SMALLEST <= vocab_size <= FULL_SIZE:
            raise UserError(
                f"tokenizer gpt2:{vocab_size} is outside {SMALLEST} (every byte and end-of-text) .. {FULL_SIZE} "
                "(all of GPT-2); choose a number between"
            )
        self.name = "gpt2" if vocab_size == FULL_SIZE else f"gpt2:{vocab_size}"
        self.vocab_size = vocab_size
        self.eot_id = vocab_size - 1
        self._merges = read_merges()[: vocab_size - SMALLEST]
        alphabet = printable_bytes()
        spellings = [*alphabet, *(first + second for first, second in self._merges)]
        self._bytes = [bytes(alphabet[character] for character in word) for word in spellings]
        self._bpe = tiktoken.Encoding(
            self.name,
            pat_str=GPT2,
            mergeable_ranks={piece: rank for rank, piece in enumerate(self._bytes)},
            special_tokens={"<|endoftext|>": self.eot_id},
        )
        identity = json.dumps({"kind": "gpt2", "split": GPT2, "vocab_size": vocab_size, **SHA256}, sort_keys=True)
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def encode_array(self, text: str) -> np.ndarray:
        if len(text) >= LONGEST_RUN and len(parts := _without_long_runs(text)) > 1:
            return np.concatenate([self.encode_array(part) for part in parts])
        return encode(self._bpe, text, self.dtype)

    def token_bytes(self) -> list[bytes]:
        return [*self._bytes, b""]

    def hf_json(self) -> str:
        return json.dumps(byte_level_json(self._merges, pre_tokenizer("gpt2")))


def _without_long_runs(text: str) -> list[str]:
    """The text cut where GPT-2's pattern cuts it as well: before the last character of a very long run of white space.

    In one part with what stands before it, a run that ends a text is matched without looking ahead.
    """
    run = re.compile(rf"[^\S\x1c-\x1f]{{{LONGEST_RUN},}}")  # these four are white space to Python alone
    cuts = [0, *(found.end() - 1 for found in run.finditer(text) if found.end() < len(text)), len(text)]
    return [text[start:stop] for start, stop in pairwise(cuts)]


def read_merges(path: Path = MERGES_FILE) -> list[tuple[str, str]]:
    """GPT-2's 50,000 merges in order; the id of one is 256 plus its place. Refused unless the hash is the published."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read GPT-2's merges {path}: {error.strerror}; install mygpt2 again") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256["vocab.bpe"]:
        raise UserError(
            f"GPT-2's merges {path} have SHA-256 {digest[:12]}..., not {SHA256['vocab.bpe'][:12]}...; "
            "install mygpt2 again"
        )
    lines = content.decode("utf-8").split("\n")[1:-1]  # a version line first, an empty one last
    return [(first, second) for first, second in (line.split(" ") for line in lines)]
