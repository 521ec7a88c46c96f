"""A tokenizer's vocabulary as a list to search: every id with its bytes, and the merge that made it."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer
from mygpt2.tokenizer.ranks import merge_pairs
from workbench.tabs.tokenizer.tokens import characters

KEPT = 3  # vocabularies in memory: one of 200,000 ids takes about 60 MB
PAGE, MOST_PAGE = 50, 200  # rows of an answer
MOST_QUERY = 200  # characters
DEEPEST, MOST_PARTS = 64, 600  # of a tree of merges; a token of n bytes has at most 2 n - 1
SEARCHES = ("text", "id", "bytes")
SORTS = ("id", "shortest", "longest", "used")
SIGNS = str.maketrans({"\u2423": " ", "\u23ce": "\n", "\u21e5": "\t"})  # as the page shows them
SPECIAL = "special"


class Merge(NamedTuple):
    """Of two ids, as the `rank`-th of the merge list, counted from 0."""

    left: int
    right: int
    rank: int


class Vocabulary:
    """Ids 0 .. size - 1 in the tokenizer's own order. Does not change once made; usable from any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.pieces = tokenizer.token_bytes()
        self._made = _merges(json.loads(tokenizer.hf_json())["model"], len(self.pieces))
        self.merges = int((self._made[:, 2] >= 0).sum())  # how many ids one made

    def __len__(self) -> int:
        return len(self.pieces)

    def merge(self, id: int) -> Merge | None:
        """The merge that made an id; None for one of those that merges begin with, and for special tokens."""
        left, right, rank = self._made[id].tolist()
        return Merge(left, right, rank) if rank >= 0 else None

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.fromiter(map(len, self.pieces), np.int64, len(self.pieces))

    def find(self, query: str, by: str = "text") -> np.ndarray:
        """Ids that a query means, (n,) int64, ascending, but what is exactly the text or bytes asked for goes first.

        by "text": a part of the token's text, with the page's signs for white space; "bytes": hexadecimal digits of
        consecutive bytes; "id": a number or a range such as 256-300. Everything for "". UserError for what is neither.
        """
        if not query:
            return np.arange(len(self), dtype=np.int64)
        if len(query) > MOST_QUERY:
            raise UserError(f"the search has {len(query)} characters; give at most {MOST_QUERY}")
        if by == "id":
            first, last = _range(query)
            return np.arange(first, min(last + 1, len(self)), dtype=np.int64)
        part = _hexadecimal(query) if by == "bytes" else query.translate(SIGNS).encode("utf-8", "replace")
        found = [id for id, piece in enumerate(self.pieces) if part in piece]
        exact = [id for id in found if len(self.pieces[id]) == len(part)]
        rest = [id for id in found if len(self.pieces[id]) != len(part)]
        return np.array([*exact, *rest], dtype=np.int64)

    def ordered(self, ids: np.ndarray, sort: str = "id", uses: np.ndarray | None = None) -> np.ndarray:
        """The ids by "shortest" or "longest" token, or most "used" (counts by id) first; as they come for "id"."""
        if sort == "id":
            return ids
        keys = -uses[ids] if sort == "used" and uses is not None else self._lengths[ids]
        return ids[np.argsort(-keys if sort == "longest" else keys, kind="stable")]

    def row(self, id: int, uses: np.ndarray | None = None) -> dict[str, Any]:
        """One id for the page: text, hexadecimal bytes, its merge, and how often it was used where that is known."""
        piece, merge = self.pieces[id], self.merge(id)
        row: dict[str, Any] = {"id": id, "text": self.text(id), "hex": piece.hex(" "), "bytes": len(piece)}
        if not piece:
            row["kind"] = SPECIAL
        if merge is not None:
            row |= {"rank": merge.rank, "left": self._part(merge.left), "right": self._part(merge.right)}
        if uses is not None:
            row["uses"] = int(uses[id])
        return row

    def text(self, id: int) -> str:
        """A token as a person reads it; end-of-text by its name."""
        if id == self.tokenizer.eot_id:
            return "<|endoftext|>"
        return characters(self.pieces[id]).replace("\n", "").replace("\t", "").replace(" ", "\u2423") or "no text"

    def tree(self, id: int) -> list[dict[str, Any]]:
        """The parts that merges made a token of: itself first, each with its depth and its place in bytes (`from`,
        `bytes`)."""
        found: list[dict[str, Any]] = []
        waiting = [(id, 0, 0)]
        while waiting and len(found) < MOST_PARTS:
            part, depth, start = waiting.pop()
            merge = self.merge(part)
            rank = {} if merge is None else {"rank": merge.rank}
            found.append({**self._part(part), "depth": depth, "from": start, "bytes": len(self.pieces[part]), **rank})
            if merge is not None and depth < DEEPEST:
                waiting.append((merge.right, depth + 1, start + len(self.pieces[merge.left])))
                waiting.append((merge.left, depth + 1, start))
        return found

    def _part(self, id: int) -> dict[str, Any]:
        return {"id": id, "text": self.text(id)}

    def as_file(self, ids: np.ndarray, delimiter: str, uses: np.ndarray | None = None) -> str:
        """Rows under a heading. A token stands with escapes for what cannot be seen, and exactly as `bytes`."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        names = ["id", "token", "bytes", "length", "rank", "left", "right"]
        writer.writerow([*names, "uses"] if uses is not None else names)
        for id in ids.tolist():
            piece, merge = self.pieces[id], self.merge(id)
            made = (merge.rank, merge.left, merge.right) if merge else ("", "", "")
            used = [int(uses[id])] if uses is not None else []
            writer.writerow([id, escaped(piece), piece.hex(), len(piece), *made, *used])
        return out.getvalue()


class Vocabularies:
    """The last few, by tokenizer. Usable from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Vocabulary] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tokenizer: Tokenizer) -> Vocabulary:
        with self._lock:
            if tokenizer.fingerprint not in self._kept:
                self._kept[tokenizer.fingerprint] = Vocabulary(tokenizer)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(tokenizer.fingerprint)
            return self._kept[tokenizer.fingerprint]


def escaped(piece: bytes) -> str:
    r"""A token on one line, spaces as they are: \n, \x07, \xff for bytes that are no character, \\ for a backslash."""
    text = piece.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return "".join(
        f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c if c.isprintable() else repr(c)[1:-1]
        for c in text
    )


def _merges(model: dict[str, Any], size: int) -> np.ndarray:
    """(size, 3) int32: left id, right id and rank of the merge behind each id; -1 where there is none, as for all of a
    tokenizer that is no byte-pair encoding."""
    made, words = np.full((size, 3), -1, np.int32), model.get("vocab")
    if (model.get("type") or "BPE") != "BPE" or not isinstance(words, dict):
        return made
    cut = len(str(model.get("continuing_subword_prefix") or ""))
    pairs = merge_pairs(model)
    rows = [
        (words.get(left + right[cut:], -1), words.get(left, -1), words.get(right, -1), rank)
        for rank, (left, right) in enumerate(pairs)
    ]
    found = np.array(rows, dtype=np.int32).reshape(-1, 4)[::-1]  # the earliest merge of a token is put in last
    known = found[(found[:, :3] >= 0).all(1)]
    made[known[:, 0]] = known[:, 1:]
    return made


def _range(query: str) -> tuple[int, int]:
    m = re.fullmatch(r"\s*(\d{1,9})\s*(?:(?:-|\u2013|\.\.)\s*(\d{1,9})\s*)?", query, re.ASCII)
    if m is None:
        raise UserError(f"{query[:40]!r} is no id; give a number such as 262, or a range such as 256-300")
    return int(m[1]), int(m[2] or m[1])


def _hexadecimal(query: str) -> bytes:
    digits = re.sub(r"\\x|0x|[\s,]", "", query)
    if not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", digits):
        raise UserError(f"{query[:40]!r} is not a row of bytes; give two hexadecimal digits for each, such as 20 74 68")
    return bytes.fromhex(digits)
