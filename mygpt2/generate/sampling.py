"""From the logits of one position to a token: pure functions of rows of logits, and the settings of the choice.

The draw is Gumbel's: each candidate's score plus noise, and the highest wins, which follows the softmax of the scores
exactly. The noise is a hash of (seed, place in the sample, id) and of nothing else, so a row needs no generator, cannot
feel its neighbours, and the same seed gives two models the same luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mygpt2.errors import UserError

NUCLEUS_FIRST = 1024  # candidates looked at before a whole vocabulary is sorted for top-p; mostly they are enough


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. Impossible values are a UserError."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # keep the k most likely; 0, or more than there are ids, keeps all
    top_p: float = 1.0  # keep the smallest set of most likely ids whose probability reaches p; 1 keeps all
    min_p: float = 0.0  # keep ids at least this share as likely as the likeliest; 0 keeps all
    repetition_penalty: float = 1.0  # what was there before gets its logit divided (positive) or multiplied by it

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature={self.temperature} is not allowed; use 0 (greedy) or more, 0.8 for example")
        if self.top_k < 0 or self.top_k != int(self.top_k):
            raise UserError(f"top_k={self.top_k} is not allowed; use 0 (off) or the number of ids to choose from")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} is not allowed; use more than 0 and at most 1 (off)")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p={self.min_p} is not allowed; use 0 (off) to 1, 0.05 for example")
        if not 0 < self.repetition_penalty <= 100:
            raise UserError(
                f"repetition_penalty={self.repetition_penalty} is not allowed; use 1 (off) or up to 100, 1.2 say"
            )


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (..., V) in float64 with those of `seen` ids (bool, same shape) made less likely: CTRL's penalty."""
    wide = logits.double()  # a large penalty must not overflow
    return torch.where(seen, torch.where(wide > 0, wide / penalty, wide * penalty), wide)


def largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of (B, V), descending, and their ids; of equal ones the lower ids come first and stay.

    `torch.topk` leaves open which of equal logits it takes, and a sample must not depend on that.
    """
    values, ids = torch.topk(logits, k, sorted=False)
    edge = values.amin(1, keepdim=True)
    if int((logits == edge).sum()) != int((values == edge).sum()):  # more equal ones than there was room for
        values, ids = torch.sort(logits, dim=1, descending=True, stable=True)
        return values[:, :k], ids[:, :k]
    ids = ids.sort(1).values
    values, order = torch.sort(logits.gather(1, ids), dim=1, descending=True, stable=True)
    return values, ids.gather(1, order)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Scores (B, K) in float64 whose softmax is the distribution to draw from, and their ids (B, K).

    Of logits (B, V): temperature, then top-k, top-p, min-p. An id that a limit excludes is absent or has score -inf;
    the likeliest id has score 0.
    """
    size = logits.shape[1]
    if sampling.temperature == 0:
        ids = logits.argmax(1, keepdim=True)
        return torch.zeros(ids.shape, dtype=torch.float64), ids
    if 0 < sampling.top_k < size:
        values, ids = largest(logits, sampling.top_k)
        scores = _warmed(values, sampling.temperature)
        return _limited(scores, torch.logsumexp(scores, 1, keepdim=True), sampling), ids
    scores = _warmed(logits, sampling.temperature)
    if sampling.top_p == 1:
        total = scores.new_zeros(len(scores), 1)  # not needed
        return _limited(scores, total, sampling), torch.arange(size).expand(scores.shape)
    total = torch.logsumexp(scores, 1, keepdim=True)
    for count in sorted({min(NUCLEUS_FIRST, size), size}):
        values, ids = largest(logits, count)
        scores = _warmed(values, sampling.temperature)
        if bool(((scores - total).exp().sum(1) >= sampling.top_p + 1e-6).all()):
            break  # the rest of the vocabulary is beyond p in every row
    return _limited(scores, total, sampling), ids


def _warmed(logits: Tensor, temperature: float) -> Tensor:
    """(logits - the row's maximum) / temperature in float64: a tiny temperature gives -inf here and never NaN."""
    return (logits.double() - logits.amax(1, keepdim=True)) / temperature


def _limited(scores: Tensor, total: Tensor, sampling: Sampling) -> Tensor:
    """Scores with what top-p and min-p exclude at -inf. For top-p they are descending, `total` their log-sum-exp."""
    excluded = torch.zeros(scores.shape, dtype=torch.bool)
    if sampling.top_p < 1:
        likely = (scores - total).exp()
        excluded |= likely.cumsum(1) - likely >= sampling.top_p  # what comes before it reaches p already
        excluded[:, 0] = False
    if sampling.min_p > 0:
        excluded |= scores < math.log(sampling.min_p)  # the likeliest has score 0
    return scores.masked_fill(excluded, float("-inf"))


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (B, V) in float64 from which the next tokens of logits (B, V) are drawn."""
    scores, ids = candidates(logits, sampling)
    return torch.zeros(logits.shape, dtype=torch.float64).scatter(1, ids, torch.softmax(scores, 1))


def choose(logits: Tensor, sampling: Sampling, seeds: Tensor, places: Tensor) -> Tensor:
    """Ids (B,) drawn from `distribution` of logits (B, V) on the CPU.

    seeds (B,) int64 name the samples, places (B,) int64 count each one's tokens so far.
    """
    scores, ids = candidates(logits, sampling)
    if scores.shape[1] > 1:
        scores = scores + gumbel(seeds[:, None], places[:, None], ids)
    return ids.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def gumbel(seeds: Tensor, places: Tensor, ids: Tensor) -> Tensor:
    """Standard Gumbel noise in float64, a function of three int64 numbers; the arguments broadcast."""
    mixed = _mix(_mix(_mix(seeds) + places) + ids)
    uniform = (_shifted(mixed, 11).double() + 0.5) * 2.0**-53  # strictly between 0 and 1
    return -torch.log(-torch.log(uniform))


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's step and finaliser (Steele, Lea and Flood 2014): every input bit changes half of the output's."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which shifts its sign in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x
