"""A text as one row of tokens, with what its losses are divided by: targets, bytes, documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mygpt2.data.checked import one_at_a_time, say_unwritable
from mygpt2.data.validation import ValidationSet
from mygpt2.errors import UserError
from mygpt2.files import replace_file
from mygpt2.tokenizer import Tokenizer

CHOICE = 1  # part of the cache's key: a change of how a stream is made raises it


@dataclass(frozen=True)
class TokenStream:
    """Every token but the first is a target.

    tokens (N,) in the tokenizer's dtype; doc_starts (documents,) int64, the first token of each document's own text,
    so that an end-of-text belongs to the document it ends, wherever the layout puts it; bytes: what the targets stand
    for, end-of-text nothing; sha256: of the tokens as little-endian numbers, and of nothing else, so that anybody can
    check it; origin: where the text came from, JSON-ready; parts: of several sources' text, each one's stream by its
    name, in order. Each is measured by itself, so that its loss does not depend on which others there are.
    """

    tokens: np.ndarray
    doc_starts: np.ndarray
    bytes: int
    sha256: str
    origin: dict[str, Any] = field(default_factory=dict)
    parts: Mapping[str, TokenStream] = field(default_factory=dict)

    @property
    def targets(self) -> int:
        return sum(part.targets for part in self.parts.values()) if self.parts else len(self.tokens) - 1

    @property
    def documents(self) -> int:
        return len(self.doc_starts)


def make_stream(
    tokens: np.ndarray, doc_starts: np.ndarray, tokenizer: Tokenizer, origin: dict[str, Any] | None = None
) -> TokenStream:
    """The stream of these tokens. UserError when there is no target in it or an id that the tokenizer lacks."""
    if len(tokens) < 2:
        raise UserError(f"the text has {len(tokens)} tokens and no target; give a longer one")
    counts = np.bincount(tokens[1:], minlength=tokenizer.vocab_size)
    highest = max(len(counts) - 1, int(tokens[0]))
    if highest >= tokenizer.vocab_size:
        raise UserError(
            f"the text holds id {highest} and tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids; "
            "evaluate a model with the tokenizer that the text was made with"
        )
    lengths = np.array([len(piece) for piece in tokenizer.token_bytes()], dtype=np.int64)
    lengths[tokenizer.eot_id] = 0
    tokens = np.ascontiguousarray(tokens, dtype=tokenizer.dtype)
    doc_starts = np.asarray(doc_starts, dtype=np.int64)
    digest = hashlib.sha256(tokens.astype(tokens.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
    first = tokens[doc_starts[(doc_starts > 0) & (doc_starts < len(tokens))]]  # a stream's first is not a target
    added = tokenizer.prefix_bytes * int((lengths[first] > 0).sum())
    bytes_ = int((counts * lengths[: len(counts)]).sum()) - added
    return TokenStream(tokens, doc_starts, bytes_, digest, origin or {})


def held_out_stream(held_out: ValidationSet, tokenizer: Tokenizer) -> TokenStream:
    """A run's validation set."""
    if held_out.parts:
        return several({name: held_out_stream(part, tokenizer) for name, part in held_out.parts.items()}, tokenizer)
    return make_stream(held_out.tokens, held_out.doc_starts, tokenizer)


def several(parts: Mapping[str, TokenStream], tokenizer: Tokenizer) -> TokenStream:
    """The streams of several sources, one after the other."""
    sizes = np.cumsum([0, *(len(part.tokens) for part in parts.values())])[:-1]
    tokens = np.concatenate([part.tokens for part in parts.values()])
    starts = np.concatenate([part.doc_starts + size for part, size in zip(parts.values(), sizes, strict=True)])
    whole = make_stream(tokens, starts, tokenizer)
    return replace(whole, bytes=sum(part.bytes for part in parts.values()), parts=dict(parts))


def joined(
    documents: Iterable[np.ndarray],
    tokenizer: Tokenizer,
    *,
    before: bool,
    most_documents: int | None = None,
    most_targets: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, doc_starts) of tokenized documents with end-of-text before or after each, up to the given size.

    The last document is cut where `most_targets` is reached. Reads no further than it must.
    """
    end = np.array([tokenizer.eot_id], dtype=tokenizer.dtype)
    most = None if most_targets is None else most_targets + 1
    parts: list[np.ndarray] = []
    starts: list[int] = []
    size = 0
    for ids in documents:
        starts.append(size + before)
        parts += [end, ids] if before else [ids, end]
        size += len(ids) + 1
        if progress:
            progress(len(starts) if most is None else size)
        if len(starts) == most_documents or (most is not None and size >= most):
            break
    tokens = np.concatenate(parts).astype(tokenizer.dtype)[:most] if parts else np.empty(0, tokenizer.dtype)
    doc_starts = np.array(starts, dtype=np.int64)
    return tokens, doc_starts[doc_starts < len(tokens)]


def split_at(tokens: np.ndarray, eot_id: int) -> np.ndarray:
    """doc_starts of tokens that hold end-of-text between documents, before or after each."""
    starts = np.flatnonzero(tokens == eot_id) + 1
    if not len(tokens) or tokens[0] != eot_id:
        starts = np.concatenate([[0], starts])
    return starts[starts < len(tokens)].astype(np.int64)


def cached(cache_dir: Path, key: tuple[Any, ...], tokenizer: Tokenizer, make: Callable[[], TokenStream]) -> TokenStream:
    """The stream for `key` and this tokenizer from the cache when its checksum holds, else made and kept."""
    name = hashlib.sha256(repr((CHOICE, *key, tokenizer.fingerprint)).encode()).hexdigest()[:24]
    path = Path(cache_dir) / "protocols" / f"{name}.safetensors"
    with one_at_a_time(path, cache_dir):
        found = _load(path, tokenizer)
        if found is None:
            found = make()
            arrays = {"tokens": found.tokens, "doc_starts": found.doc_starts}
            notes = {"sha256": found.sha256, "origin": json.dumps(found.origin)}
            try:
                replace_file(path, save(arrays, metadata=notes))
            except OSError as error:
                say_unwritable(cache_dir, error)
    return found


def _load(path: Path, tokenizer: Tokenizer) -> TokenStream | None:
    """The stream as kept, or None if there is none or it is damaged: it is made again then."""
    try:
        with safe_open(path, framework="numpy") as f:
            notes = f.metadata() or {}
            made = make_stream(
                f.get_tensor("tokens"), f.get_tensor("doc_starts"), tokenizer, json.loads(notes["origin"])
            )
    except (OSError, SafetensorError, KeyError, ValueError, UserError):
        return None
    return made if made.sha256 == notes.get("sha256") else None
