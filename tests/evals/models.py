"""Models whose losses are known in closed form, behind the interface that evaluations use, and a byte tokenizer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mygpt2.tokenizer import Tokenizer

EOT = 256


class Bytes(Tokenizer):
    """Ids are the bytes of the text, and 256 for end-of-text."""

    name, vocab_size, eot_id, fingerprint = "bytes", 257, EOT, "b" * 64

    def encode_array(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(self.dtype)

    def token_bytes(self) -> list[bytes]:
        return [*(bytes([i]) for i in range(256)), b""]

    def hf_json(self) -> str:
        raise NotImplementedError


class Bigram:
    """Loss of each target given the token before it alone, in float64: table[before, target], in nats."""

    precision = "fp64"

    def __init__(self, table: np.ndarray, block_size: int = 64) -> None:
        self.table, self.block_size, self.vocab_size = torch.from_numpy(table), block_size, len(table)
        self.shapes: list[tuple[int, ...]] = []

    def nll(self, idx: Tensor, targets: Tensor) -> Tensor:
        self.shapes.append(tuple(idx.shape))
        assert idx.shape[1] <= self.block_size
        return torch.where(targets >= 0, self.table[idx, targets.clamp(min=0)], 0.0)


def uniform(vocab_size: int = 257, block_size: int = 64) -> Bigram:
    return Bigram(np.full((vocab_size, vocab_size), np.log(vocab_size)), block_size)


def unigram(probability: np.ndarray, block_size: int = 64) -> Bigram:
    return Bigram(np.broadcast_to(-np.log(probability), (len(probability),) * 2).copy(), block_size)


def random_bigram(vocab_size: int, block_size: int = 64, seed: int = 0) -> Bigram:
    logits = np.random.default_rng(seed).normal(0.0, 2.0, (vocab_size, vocab_size))
    return Bigram(np.log(np.exp(logits).sum(-1, keepdims=True)) - logits, block_size)


class Alone:
    """The only rank."""

    rank, size = 0, 1

    def sum(self, values: list[float]) -> list[float]:
        return list(values)


class Rank:
    """One of several ranks in one process: they run after each other, and the last one's sums are everybody's."""

    def __init__(self, rank: int, size: int, totals: list[np.ndarray]) -> None:
        self.rank, self.size, self._totals = rank, size, totals

    def sum(self, values: list[float]) -> list[float]:
        self._totals.append(np.array(values))
        return np.sum(self._totals, axis=0).tolist()
