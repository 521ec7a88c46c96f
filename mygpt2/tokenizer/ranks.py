"""A merge list run by tiktoken's core, several times as fast as by `tokenizers`, where the ids are proven the same.

tiktoken knows no merges, only tokens with ranks: it joins any two neighbours whose bytes together are a token, lowest
rank first. `tokenizers` joins only pairs that are in the list. Both give the same ids if every token, merged by itself,
becomes that token: a state with the neighbours l and r is reached inside a longer piece exactly as in the piece l + r
alone, which passes through one state of two parts only, and that one is the pair in the list. This is checked for each
token at load. A list learnt by merging the most frequent pair always has the property.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from mygpt2.tokenizer.base import printable_bytes, whole_characters
from mygpt2.tokenizer.patterns import tiktoken_pattern

LONGEST_RUN = 250_000  # of white space; at a million characters tiktoken's pattern matcher runs out of stack
_LONG_RUN = re.compile(rf"\s{{{LONGEST_RUN}}}")


def tiktoken_core(content: dict[str, Any], samples: Iterable[str]) -> tiktoken.Encoding | None:
    """tiktoken with the tables of a tokenizer.json without special tokens, or None where its ids may be others.

    Beside the proof on the tables, both encode `samples` and have to agree.
    """
    pattern = tiktoken_pattern(content.get("pre_tokenizer"))
    model = content["model"]
    plain = not any(
        model.get(k) for k in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    )
    if pattern is None or not plain or content.get("normalizer") or content.get("added_tokens"):
        return None
    ranks = _ranks(model)
    if ranks is None or not _each_token_is_itself(content, ranks):
        return None
    # Never allowed, so never produced: with no special token at all tiktoken searches for the empty string, which it
    # finds before every character, and takes twice as long.
    special = {"<|endoftext|>": max(ranks.values()) + 1}
    core = tiktoken.Encoding("tokenizer.json", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    reference = tokenizers.Tokenizer.from_str(json.dumps(content))
    same = all(core.encode_ordinary(text) == reference.encode(text, add_special_tokens=False).ids for text in samples)
    return core if same else None


def encode(core: tiktoken.Encoding, text: str, dtype: np.dtype) -> np.ndarray:
    """Ids of a text that `fits`, as ordinary text."""
    try:
        ids = core.encode_to_numpy(text, disallowed_special=())
    except UnicodeEncodeError:
        ids = core.encode_to_numpy(whole_characters(text), disallowed_special=())
    return ids.astype(dtype)


def fits(text: str) -> bool:
    """Whether tiktoken can encode this text at all."""
    return len(text) < LONGEST_RUN or _LONG_RUN.search(text) is None


def is_byte_level(model: dict[str, Any]) -> bool:
    """Whether the model is a byte-pair encoding that has a token for every byte."""
    vocabulary = model.get("vocab")
    kind = model.get("type") or "BPE"
    return kind == "BPE" and isinstance(vocabulary, dict) and printable_bytes().keys() <= vocabulary.keys()


def merge_pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json's BPE model, which are written as "a b" or as ["a", "b"]."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or [])
    return [(first, second) for first, second in pairs]


def _ranks(model: dict[str, Any]) -> dict[bytes, int] | None:
    """Bytes to id for the 256 bytes and every merge; None unless later merges have higher ids and other bytes."""
    alphabet = printable_bytes()
    if not is_byte_level(model):
        return None
    vocabulary: dict[str, int] = model["vocab"]
    merged = [first + second for first, second in merge_pairs(model)]
    ids = [vocabulary[word] for word in merged]
    if any(a >= b for a, b in pairwise(ids)) or not all(set(word) <= alphabet.keys() for word in merged):
        return None
    words = [*alphabet, *merged]
    return {bytes(alphabet[c] for c in word): vocabulary[word] for word in words}


def _each_token_is_itself(content: dict[str, Any], ranks: dict[bytes, int]) -> bool:
    spelling = {byte: character for character, byte in printable_bytes().items()}
    words = ["".join(spelling[byte] for byte in piece) for piece in ranks]
    alone = tokenizers.Tokenizer.from_str(json.dumps({**content, "pre_tokenizer": None}))
    encoded = alone.encode_batch_fast(words, add_special_tokens=False)
    return all(e.ids == [rank] for e, rank in zip(encoded, ranks.values(), strict=True))
