"""From the logits of one position to a token: pure functions, and the settings that choose among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mygpt2.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. Impossible values are a UserError."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # keep the k most likely; 0, or more than there are ids, keeps all
    top_p: float = 1.0  # keep the smallest set of most likely ids whose probability reaches p; 1 keeps all

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature={self.temperature} is not allowed; use 0 (greedy) or more, 0.8 for example")
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k} is not allowed; use 0 (off) or the number of ids to choose from")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} is not allowed; use more than 0 and at most 1 (off)")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (V,) with all but the k largest at -inf; of equal ones at the edge the lower ids stay."""
    if k == 0 or k >= len(logits):
        return logits
    kept = torch.sort(logits, descending=True, stable=True).indices[:k]
    return torch.full_like(logits, float("-inf")).scatter(0, kept, logits[kept])


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (V,) with everything outside the smallest set that holds probability p at -inf; one always stays."""
    if p >= 1:
        return logits
    order = torch.sort(logits, descending=True, stable=True).indices
    likely = torch.softmax(logits[order].double(), 0)
    kept = order[likely.cumsum(0) - likely < p]  # what comes before it does not reach p yet
    return torch.full_like(logits, float("-inf")).scatter(0, kept, logits[kept])


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (V,) float32 from which the next token is drawn: temperature, then top-k, then top-p."""
    logits = logits.float()
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(0, logits.argmax(0, keepdim=True), 1.0)
    warmed = (logits - logits.max()) / sampling.temperature  # a tiny temperature gives -inf here, never NaN
    return torch.softmax(keep_top_p(keep_top_k(warmed, sampling.top_k), sampling.top_p), 0)


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One id drawn from `distribution` of logits (V,) on the CPU; only `generator` is moved."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(distribution(logits, sampling), 1, generator=generator))
