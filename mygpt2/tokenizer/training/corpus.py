"""Which documents a tokenizer is learnt from: those training may see, up to a budget, the same ones every time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import xxhash

from mygpt2.config.data import DataConfig
from mygpt2.data.heldout import chosen, settled
from mygpt2.data.order import derive_key, permutation
from mygpt2.data.scan import BlockReader, scan
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.errors import UserError

DEFAULT_BYTES = 1_000_000_000
_SEED_BITS = 2**64 - 1


@dataclass(frozen=True)
class Budget:
    """How much of a source to read: documents, bytes of text, or a share of all documents. One of them at most.

    A share is drawn document by document all over the source; the other two take blocks of it in a keyed order until
    they are used up. Without any, `DEFAULT_BYTES`.
    """

    documents: int | None = None
    bytes: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        given = [f"--{name} {value}" for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are two budgets; give one of --documents, --bytes, --share")
        for name in ("documents", "bytes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name} {value} reads nothing; give 1 or more")
        if self.share is not None and not 0 < self.share <= 1:
            raise UserError(f"--share {self.share:g} is not a share; allowed: above 0 to 1, as in 0.1")

    @property
    def most_bytes(self) -> int | None:
        return DEFAULT_BYTES if (self.documents, self.bytes, self.share) == (None, None, None) else self.bytes


@dataclass
class Read:
    """What was read so far; `left_out` counts documents by reason, `unreadable` blocks."""

    documents: int = 0
    bytes: int = 0
    blocks: int = 0
    unreadable: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def documents(
    manifest: Manifest,
    reader: BlockReader,
    data: DataConfig,
    budget: Budget,
    seed: int,
    read: Read,
    progress: Callable[[int, int, str], None] | None = None,
    validation: bool = False,
) -> Iterator[list[str]]:
    """The texts block by block, counted in `read`; empty, overlong and held-out documents are left out.

    With `validation`, of those training may not see instead.

    `progress(done, all, unit)` counts what the budget is given in. Raises UserError for a pre-tokenized source and when
    nothing is left, TryAgain when the source stays out of reach.
    """
    check_is_text(manifest)
    data = settled(data, manifest)
    key = derive_key("tokenizer", seed) & _SEED_BITS
    found = scan(
        reader,
        manifest,
        map(int, permutation(len(manifest), "tokenizer", seed)),
        data,
        threads=max(2, min(8, os.cpu_count() or 1)),
        work=lambda _, texts: _usable(texts, data, budget.share, key, validation),
    )
    for _, block in found:
        read.blocks += 1
        if isinstance(block, Unreadable):
            read.unreadable += 1
            continue
        texts, left_out = block
        read.left_out.update(left_out)
        texts, full = _within(texts, budget, read)
        if texts:
            yield texts
        if progress:
            progress(*_done(read, budget, len(manifest)))
        if full:
            break
    if not read.documents:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(read.left_out.items())) or "no documents"
        raise UserError(
            f"data.source={manifest.source} gives no text to learn from ({why}, {read.unreadable} blocks unreadable); "
            "give a source with documents"
        )


def check_is_text(manifest: Manifest) -> None:
    """UserError for a pre-tokenized source."""
    if manifest.kind == "tokens":
        raise UserError(f"data.source={manifest.source} holds ids, not text; a tokenizer is learnt from text")


def _usable(
    texts: list[Any], data: DataConfig, share: float | None, key: int, validation: bool
) -> tuple[list[str], Counter[str]]:
    numbers, left_out = chosen(texts, data, held_out=validation)
    kept = [texts[number] for number in numbers]
    if share is not None:
        kept = [text for text in kept if xxhash.xxh3_64_intdigest(text.encode(), seed=key) < share * 2.0**64]
    return kept, left_out


def _within(texts: list[str], budget: Budget, read: Read) -> tuple[list[str], bool]:
    """(the texts that fit, whether the budget is used up), counted in `read`. The last one is taken whole."""
    most_documents, most_bytes = budget.documents, budget.most_bytes
    for number, text in enumerate(texts):
        if (most_documents is not None and read.documents >= most_documents) or (
            most_bytes is not None and read.bytes >= most_bytes
        ):
            return texts[:number], True
        read.documents += 1
        read.bytes += len(text) if text.isascii() else len(text.encode())
    return texts, False


def _done(read: Read, budget: Budget, blocks: int) -> tuple[int, int, str]:
    if budget.documents is not None:
        return read.documents, budget.documents, "documents"
    if budget.bytes is not None:
        return read.bytes, budget.bytes, "B"
    return read.blocks, blocks, "blocks"
