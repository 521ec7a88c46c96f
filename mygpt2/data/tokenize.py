"""From the documents of a block to a TokenBlock: bad and held-out documents are dropped here, and counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.heldout import chosen
from mygpt2.errors import UserError

REFERENCE = "reference"  # the encoder whose ids are right by definition
SAMPLE_DOCUMENTS = 64  # on which the fast encoder has to agree with the reference before it may stand in,
SAMPLE_CHARS = 4096  # and how much of each: some 50 ms with the reference
CHARS_AT_ONCE = 16_000_000  # bounds the memory of one call for blocks that are whole compressed files


@dataclass(frozen=True)
class TokenBlock:
    """A tokenized block. A document that was left out (held out, empty, ...) has length 0 and keeps its number."""

    block: int
    ids: np.ndarray  # (tokens,) the documents one after the other, each followed by end-of-text
    lengths: np.ndarray  # (documents,) int64, end-of-text included
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> documents
    unreadable: str | None = None  # why the block is in quarantine
    first: int = 0  # number of the first document, where this is a part of a block
    encoder: str = REFERENCE  # which made it, or a part of it
    check: int | None = None  # checksum of the documents it was made of, where it is a whole block

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, start: int, stop: int) -> TokenBlock:
        """The documents [start, stop); what was left out of the block is told with its last ones."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        left_out = self.left_out if stop == len(self) else {}
        ids = self.ids[ends[start] : ends[stop]]
        return TokenBlock(self.block, ids, self.lengths[start:stop], left_out, self.unreadable, start)


def joined(parts: Sequence[TokenBlock]) -> TokenBlock:
    """The block that consecutive parts make."""
    ids, lengths = np.concatenate([p.ids for p in parts]), np.concatenate([p.lengths for p in parts])
    encoder = next((part.encoder for part in parts if part.encoder != REFERENCE), REFERENCE)
    return TokenBlock(parts[0].block, ids, lengths, left_out_of(parts), encoder=encoder)


def left_out_of(parts: Sequence[TokenBlock]) -> Counter[str]:
    """Left-out documents by reason."""
    return sum((Counter(part.left_out) for part in parts), Counter())


class TokenizerLike(Protocol):
    """What the data room needs of a tokenizer; `encode_batch` is thread-safe and adds no end-of-text."""

    vocab_size: int
    eot_id: int
    fingerprint: str

    @property
    def dtype(self) -> Any: ...

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]: ...


class BlockTokenizer:
    """Tokenizes blocks from several threads; picks the encoder when the first text is there to compare on."""

    def __init__(self, tokenizer: TokenizerLike, data: DataConfig, elsewhere: tuple[float, ...] = ()) -> None:
        """`elsewhere`: see `heldout.reason_against`."""
        self.tokenizer, self.elsewhere = tokenizer, elsewhere
        self._data = data
        self._encoder: Any = tokenizer if data.encoder == "tiktoken" else None
        self._lock = threading.Lock()

    @property
    def encoder_name(self) -> str:
        """Class of the encoder in use, or "undecided" before the first text."""
        return "undecided" if self._encoder is None else type(self._encoder).__name__

    @property
    def trusted(self) -> list[str]:
        """Names of the encoders whose cached ids may be used: the fast one's unless it was refused or not wanted."""
        return [REFERENCE] if self._encoder is self.tokenizer else [REFERENCE, fast_name()]

    def tokens(
        self, block: int, documents: Sequence[Any], hashes: Sequence[int | None] | None = None, first: int = 0
    ) -> TokenBlock:
        """Tokenize a block, or its documents from number `first` on; ids, of a pre-tokenized source, are taken as such.

        What is not text, empty, too long or, by its hash, held out is left out. UserError for an id outside the
        vocabulary.
        """
        numbers, left_out = chosen(documents, self._data, hashes, elsewhere=self.elsewhere)
        kept = [documents[number] for number in numbers]
        name = REFERENCE
        if len(documents) and isinstance(documents[0], np.ndarray):
            check_ids(documents, self.tokenizer, self._data)
            encoded = kept
        else:
            encoded = []
            for texts in _chunks(kept):
                encoder = self._encoder_for(texts)
                name = name if encoder is self.tokenizer else fast_name()
                encoded.extend(encoder.encode_batch(texts))
        eot = np.array([self.tokenizer.eot_id], dtype=self.tokenizer.dtype)
        lengths = np.zeros(len(documents), np.int64)
        lengths[numbers] = [len(ids) + 1 for ids in encoded]
        pieces = [piece for ids in encoded for piece in (ids, eot)]
        ids = np.concatenate(pieces).astype(eot.dtype, copy=False) if pieces else np.empty(0, eot.dtype)
        return TokenBlock(block, ids, lengths, left_out, first=first, encoder=name)

    def nothing(self, block: int, unreadable: str | None = None) -> TokenBlock:
        """What stands for a block without documents."""
        return TokenBlock(block, np.empty(0, self.tokenizer.dtype), np.empty(0, np.int64), {}, unreadable)

    def _encoder_for(self, texts: list[str]) -> Any:
        """The fast encoder where it is wanted, installed, and agrees with the reference on the run's own text."""
        with self._lock:
            if self._encoder is None:
                from mygpt2.tokenizer.fast import fast_encoder

                sample = [text[:SAMPLE_CHARS] for text in texts[:: max(1, len(texts) // SAMPLE_DOCUMENTS)]]
                found = fast_encoder(self.tokenizer, sample)  # type: ignore[arg-type]
                if found is None and self._data.encoder == "fast":
                    raise UserError(
                        "data.encoder=fast, but the fast encoder is not installed or its ids differ from the "
                        "reference's on this text; allowed: auto, tiktoken, fast; install the extra `fast` or set "
                        "data.encoder to auto"
                    )
                self._encoder = found or self.tokenizer
        return self._encoder


def check_ids(documents: Sequence[np.ndarray], tokenizer: TokenizerLike, data: DataConfig) -> None:
    """UserError when an id of a pre-tokenized source is outside the vocabulary."""
    highest = max((int(ids.max()) for ids in documents if len(ids)), default=0)
    if highest >= tokenizer.vocab_size:
        raise UserError(
            f"data.source={data.source} holds the id {highest}; the tokenizer {data.tokenizer} has "
            f"{tokenizer.vocab_size} ids; give the one that wrote the file"
        )


@cache
def fast_name() -> str:
    """The fast encoder with its version, whose ids may be another's; the reference's name where it is not installed."""
    from mygpt2.tokenizer.fast import PACKAGE

    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return REFERENCE


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    """Runs of texts of at most CHARS_AT_ONCE characters, or of one longer text."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and size + len(text) > CHARS_AT_ONCE:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk
