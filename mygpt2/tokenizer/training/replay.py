"""How a text becomes tokens: the pieces it is cut into, and the merges of each piece one after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import tokenizers

from mygpt2.errors import UserError
from mygpt2.tokenizer.base import Tokenizer, printable_bytes, whole_characters
from mygpt2.tokenizer.ranks import is_byte_level, merge_pairs


@dataclass(frozen=True)
class Piece:
    """A piece of the text, which no merge crosses: its parts at first and after each merge."""

    steps: tuple[tuple[bytes, ...], ...]
    ranks: tuple[int, ...]  # place in the merge list, one less than steps


def replay(tokenizer: Tokenizer, text: str) -> Iterator[Piece]:
    """The pieces of a text with their merges. UserError for a tokenizer that is not a byte-level merge list."""
    content = json.loads(tokenizer.hf_json())
    loaded = tokenizers.Tokenizer.from_str(json.dumps(content))
    merges = {pair: rank for rank, pair in enumerate(merge_pairs(content["model"]))}
    alphabet = printable_bytes()
    if not is_byte_level(content["model"]) or loaded.pre_tokenizer is None:
        raise UserError(
            f"tokenizer {tokenizer.name} is no byte-level byte-pair encoding, so there are no merges to show; "
            "leave --merges out"
        )
    whole = whole_characters(text)
    if loaded.normalizer is not None:
        whole = loaded.normalizer.normalize_str(whole)
    for word, _ in loaded.pre_tokenizer.pre_tokenize_str(whole):
        states, ranks = _merged(list(word), merges)
        steps = tuple(tuple(bytes(alphabet[c] for c in part) for part in parts) for parts in states)
        yield Piece(steps, tuple(ranks))


def _merged(parts: list[str], merges: dict[tuple[str, str], int]) -> tuple[list[list[str]], list[int]]:
    """Byte-pair encoding by its definition: join the earliest-learnt neighbours, the leftmost first."""
    states = [parts]
    ranks: list[int] = []
    while True:
        known = [(merges[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in merges]
        if not known:
            return states, ranks
        rank, place = min(known)
        parts = [*parts[:place], parts[place] + parts[place + 1], *parts[place + 2 :]]
        states.append(parts)
        ranks.append(rank)


def shown(piece: bytes) -> str:
    """Bytes for a person, in quotes; what cannot be seen or is half a character is an escape."""
    text = piece.decode("utf-8", "surrogateescape")
    return '"' + "".join(_shown(c) for c in text) + '"'


def _shown(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c if c.isprintable() else c.encode("unicode_escape").decode()
