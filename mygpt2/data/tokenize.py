"""From the documents of a block to a TokenBlock: bad and held-out documents are dropped here, and counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from mygpt2.config.schema import DataConfig
from mygpt2.data.heldout import reason_against
from mygpt2.data.packing import REFERENCE, TokenBlock
from mygpt2.errors import UserError

SAMPLE_DOCUMENTS = 64  # on which the fast encoder has to agree with the reference before it may stand in,
SAMPLE_CHARS = 4096  # and how much of each: some 50 ms with the reference
CHARS_AT_ONCE = 16_000_000  # bounds the memory of one call for blocks that are whole compressed files


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

    def __init__(self, tokenizer: TokenizerLike, data: DataConfig, hurry: bool = False) -> None:
        """`hurry`: a first batch of little text is waited for; the reference has it done before the other is loaded."""
        self.tokenizer = tokenizer
        self._data = data
        self._encoder: Any = tokenizer if data.encoder == "tiktoken" else None
        self._chooser: threading.Thread | None = None
        self._hurry = self._started_in_a_hurry = hurry
        self._lock = threading.Lock()

    @property
    def encoder_name(self) -> str:
        """Class of the encoder in use, or "undecided" before the first text."""
        return "undecided" if self._encoder is None else type(self._encoder).__name__

    def texts(self, block: int, documents: Sequence[Any], hashes: Sequence[int | None] | None = None) -> TokenBlock:
        """Tokenize a block of texts. What is not text, empty, too long or, by its hash, held out is left out."""
        left_out: dict[str, int] = {}
        kept: list[int] = []
        for number, (text, hashed) in enumerate(zip(documents, hashes or [None] * len(documents), strict=True)):
            reason = reason_against(text, self._data, hashed)
            if reason is None:
                kept.append(number)
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
        encoded: list[np.ndarray] = []
        name = REFERENCE
        for part in _chunks([documents[number] for number in kept]):
            encoder = self._encoder_for(part)
            name = name if encoder is self.tokenizer else fast_name()
            encoded.extend(encoder.encode_batch(part))
        return replace(self._block(block, len(documents), kept, encoded, left_out), encoder=name)

    def token_documents(self, block: int, documents: Sequence[np.ndarray], hashes: Sequence[int | None]) -> TokenBlock:
        """The same for documents that are ids already. UserError when an id is outside the vocabulary."""
        check_ids(documents, self.tokenizer, self._data)
        left_out: dict[str, int] = {}
        kept: list[int] = []
        for number, (ids, hashed) in enumerate(zip(documents, hashes or [None] * len(documents), strict=True)):
            reason = reason_against(ids, self._data, hashed)
            if reason is None:
                kept.append(number)
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
        return self._block(block, len(documents), kept, [documents[number] for number in kept], left_out)

    def _block(
        self, block: int, documents: int, kept: list[int], encoded: list[np.ndarray], left_out: dict[str, int]
    ) -> TokenBlock:
        eot = np.array([self.tokenizer.eot_id], dtype=self.tokenizer.dtype)
        lengths = np.zeros(documents, np.int64)
        lengths[kept] = [len(ids) + 1 for ids in encoded]
        pieces = [piece for ids in encoded for piece in (ids, eot)]
        ids = np.concatenate(pieces).astype(self.tokenizer.dtype, copy=False) if pieces else np.empty(0, eot.dtype)
        return TokenBlock(block, ids, lengths, left_out)

    def hurry_over(self) -> None:
        """The first batch is out: there is time now to load the fast encoder and to compare it."""
        self._hurry = False

    def close(self) -> None:
        """Wait for what was begun."""
        if self._chooser is not None:
            self._chooser.join()

    @property
    def trusted(self) -> list[str]:
        """Names of the encoders whose cached ids may be used: the fast one's unless it was refused or not wanted."""
        refused = self._encoder is self.tokenizer or self._data.encoder == "tiktoken"
        return [REFERENCE] if refused else [REFERENCE, fast_name()]

    def _encoder_for(self, texts: list[str]) -> Any:
        if self._encoder is None:
            with self._lock:
                self._consider(texts)
        return self._encoder or self.tokenizer

    def _consider(self, texts: list[str]) -> None:
        """Choose the encoder: at once, or, in a hurry, beside the work after the first batch.

        Until then the reference is used, which gives the same ids. A resume needs whole windows: no hurry there.
        """
        if self._encoder is not None or self._chooser is not None:
            return
        if self._data.encoder == "fast":
            self._encoder = self._fast(texts)
            if self._encoder is None:
                raise UserError(
                    "data.encoder=fast, but the fast encoder is not installed or its ids differ from the reference's "
                    "on this text; allowed: auto, tiktoken, fast; install the extra `fast` or set data.encoder to auto"
                )
        elif not self._started_in_a_hurry:
            self._choose(texts)
        elif not self._hurry:
            self._chooser = threading.Thread(target=self._choose, args=(texts,), name="data-choose", daemon=True)
            self._chooser.start()

    def _choose(self, texts: list[str]) -> None:
        self._encoder = self._fast(texts) or self.tokenizer

    def _fast(self, texts: list[str]) -> Any:
        """The fast encoder where it is installed and agrees on the run's own text."""
        from mygpt2.tokenizer.fast import fast_encoder

        sample = [text[:SAMPLE_CHARS] for text in texts[:: max(1, len(texts) // SAMPLE_DOCUMENTS)]]
        return fast_encoder(self.tokenizer, sample)  # type: ignore[arg-type]


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


def _chunks(texts: list[str]) -> list[list[str]]:
    """Runs of texts of at most CHARS_AT_ONCE characters, or of one longer text."""
    chunks: list[list[str]] = []
    size = CHARS_AT_ONCE
    for text in texts:
        if size + len(text) > CHARS_AT_ONCE:
            chunks.append([])
            size = 0
        chunks[-1].append(text)
        size += len(text)
    return chunks
