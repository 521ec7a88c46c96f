"""Loss on a token stream: the same number for every batch size, rank count and device, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mygpt2.data.validation import windows
from mygpt2.errors import UserError
from mygpt2.evals.clustered import clustered_error
from mygpt2.evals.protocols import Quoted
from mygpt2.evals.stream import TokenStream
from mygpt2.failures import NO_LOSS
from mygpt2.model import GPT, linear_cross_entropy
from mygpt2.model.loss import IGNORE

TOKENS_AT_ONCE = 8192  # per forward pass when nobody says; a matter of speed and memory only
MOST_DOCUMENTS = 40_000  # in a result's file: about half a megabyte


class Scorer(Protocol):
    """A model as evaluations see it. `block_size` is its context in tokens, ids are below `vocab_size`."""

    block_size: int
    vocab_size: int
    precision: str

    def nll(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Loss in nats of each target, (B, T) on the CPU, from ids (B, T) int64; 0 where a target is -100."""
        ...


class Arithmetic(Protocol):
    """The precision of a pass: its name for the record, and how it is switched on."""

    @property
    def name(self) -> str: ...

    def autocast(self, device: torch.device) -> AbstractContextManager[object]: ...


class GPTScorer:
    """A GPT where it lies. Its mode is restored after each call, so a model in training may be scored."""

    def __init__(self, model: GPT, arithmetic: Arithmetic) -> None:
        self.model, self._arithmetic = model, arithmetic
        self.block_size, self.vocab_size = model.config.block_size, model.config.vocab_size
        self.precision = arithmetic.name

    def nll(self, idx: Tensor, targets: Tensor) -> Tensor:
        """As the protocol says; only positions with a target go through the output layer."""
        device = self.model.wte.device
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self._arithmetic.autocast(device):
                counted = targets != IGNORE  # (B, T)
                hidden = self.model(idx.to(device))[counted.to(device)]  # (n, C)
                # one target per row: the row's sum is then that target's own loss
                parts = linear_cross_entropy(
                    hidden[:, None], self.model.wte, targets[counted][:, None].to(device), vocab_size=self.vocab_size
                )
        finally:
            self.model.train(was_training)
        nll = torch.zeros(targets.shape, dtype=torch.float64)
        nll[counted] = parts.row_nll.cpu().double()
        return nll


class Ranks(Protocol):
    """What is needed of `distributed.World`."""

    rank: int
    size: int

    def sum(self, values: list[float]) -> list[float]: ...


@dataclass(frozen=True)
class LossResult:
    """`loss` in nats per target; `stderr` of it, clustered by document (None for a single document).

    `bits_per_byte` divides the loss of all targets, ends of documents included, by the bytes the targets stand for.
    `nll` and `targets` (documents,) are the sums that each document has: with those of another model on the same tokens
    the error of their difference is far smaller than that of either. `by_source`: of a mixture's held-out text, what
    each source has by itself; `documents` counts them in this order.
    """

    loss: float
    stderr: float | None
    perplexity: float
    bits_per_byte: float | None
    tokens: int
    bytes: int
    documents: int
    window: int
    token_sha256: str
    precision: str
    nll: np.ndarray | None = field(default=None, repr=False, compare=False)
    targets: np.ndarray | None = field(default=None, repr=False, compare=False)
    by_source: Mapping[str, LossResult] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All but the sums by document; of each source what differs from one to another."""
        plain = {name: value for name, value in vars(self).items() if name not in ("nll", "targets", "by_source")}
        keys = ("loss", "stderr", "bits_per_byte", "tokens", "bytes", "documents", "token_sha256")
        of_sources = {name: {key: getattr(one, key) for key in keys} for name, one in self.by_source.items()}
        return {**plain, **({"by_source": of_sources} if of_sources else {})}

    def by_document(self) -> dict[str, Any] | None:
        """The sums by document for a result's file; None where they are too many for one."""
        if self.nll is None or self.targets is None or len(self.nll) > MOST_DOCUMENTS:
            return None
        return {"nll": np.round(self.nll, 4).tolist(), "targets": self.targets.astype(int).tolist()}

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" ± {self.stderr:.4f}"
        by_byte = "" if self.bits_per_byte is None else f"{self.bits_per_byte:.4f} bits per byte, "
        return (
            f"{self.loss:.4f}{error} nats per token, {by_byte}perplexity {_shown(self.perplexity)} "
            f"({self.tokens:,} targets of {self.documents:,} documents)"
            + "".join(f"; {name} {_with_error(one)}" for name, one in self.by_source.items())
        )


def _with_error(result: LossResult) -> str:
    return f"{result.loss:.4f}" + ("" if result.stderr is None else f" ± {result.stderr:.4f}")


def _shown(perplexity: float) -> str:
    """Two decimals, of what has no more than nine digits before them: a diverged model's would fill lines."""
    return f"{perplexity:.2f}" if perplexity < 1e9 else f"{perplexity:.3g}"


def evaluate(
    scorer: Scorer,
    stream: TokenStream,
    *,
    window: int,
    ranks: Ranks,
    batch: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> LossResult:
    """Σ nll / Σ targets in float64 over contiguous windows that lose no target and count no padding.

    Batches of `batch` windows are dealt to the ranks. What is summed are pieces, the part of one document in one
    window: each is summed by one rank, then all of them in the order of the text, so ranks and batches change nothing
    but the rounding inside a forward pass. `progress` is called with the number of targets done by this rank.
    """
    if window > scorer.block_size:
        raise UserError(f"windows of {window} tokens do not fit the model's context of {scorer.block_size}")
    if stream.parts:
        more = {"window": window, "ranks": ranks, "batch": batch, "progress": progress}
        each = {name: evaluate(scorer, part, **more) for name, part in stream.parts.items()}  # type: ignore[arg-type]
        return _together(stream, each)
    batch = batch or max(1, TOKENS_AT_ONCE // window)
    cuts = _pieces(stream, window)
    sums = np.zeros(len(cuts))
    for number, first in enumerate(range(0, stream.targets, batch * window)):
        if number % ranks.size != ranks.rank:
            continue
        last = min(first + batch * window, stream.targets)
        inputs, targets = windows(stream.tokens[first : last + 1], window)
        nll = scorer.nll(torch.from_numpy(inputs), torch.from_numpy(targets)).double().numpy().reshape(-1)
        low, high = np.searchsorted(cuts, [first, last])
        sums[low:high] = np.add.reduceat(nll[: last - first], cuts[low:high] - first)
        if progress:
            progress(last - first)
    return _result(scorer, stream, window, cuts, np.array(ranks.sum(sums.tolist())))


def _pieces(stream: TokenStream, window: int) -> np.ndarray:
    """Where pieces begin, as indices of targets: target i is token i + 1."""
    starts = stream.doc_starts[stream.doc_starts > 1] - 1
    cuts = np.unique(np.concatenate([np.arange(0, stream.targets, window), starts]))
    return cuts[cuts < stream.targets]


def _result(scorer: Scorer, stream: TokenStream, window: int, cuts: np.ndarray, sums: np.ndarray) -> LossResult:
    total = math.fsum(sums)
    if not math.isfinite(total):
        raise UserError(f"{NO_LOSS}, its weights are damaged; use an earlier checkpoint")
    owners = np.maximum(np.searchsorted(stream.doc_starts, cuts + 1, side="right") - 1, 0)
    lengths = np.diff(np.append(cuts, stream.targets))
    nll, targets = np.bincount(owners, sums), np.bincount(owners, lengths)
    return _of_documents(stream, total, nll, targets, window, scorer.precision, {})


def _together(stream: TokenStream, each: Mapping[str, LossResult]) -> LossResult:
    """The loss over all sources' targets, from what each has by itself."""
    one = next(iter(each.values()))
    nll = np.concatenate([result.nll for result in each.values() if result.nll is not None])
    targets = np.concatenate([result.targets for result in each.values() if result.targets is not None])
    return _of_documents(stream, math.fsum(nll), nll, targets, one.window, one.precision, each)


def _of_documents(
    stream: TokenStream, total: float, nll: np.ndarray, targets: np.ndarray, window: int, precision: str,
    by_source: Mapping[str, LossResult],
) -> LossResult:  # fmt: skip
    """The result from the sum over all targets, and those of each document (documents,)."""
    loss = total / stream.targets
    return LossResult(
        loss=loss,
        stderr=clustered_error(nll, targets),
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=total / math.log(2) / stream.bytes if stream.bytes else None,
        tokens=stream.targets,
        bytes=stream.bytes,
        documents=stream.documents,
        window=window,
        token_sha256=stream.sha256,
        precision=precision,
        nll=nll,
        targets=targets,
        by_source=by_source,
    )


def text_words(protocol: str, measured: LossResult, quoted: Sequence[Quoted], beside: dict[str, Any] | None) -> str:
    """A loss, the yardstick measured here, and the quoted figures of the same protocol."""
    lines = [f"{protocol}: {measured}", f"  windows of {measured.window} tokens, token stream {measured.token_sha256}"]
    if beside is not None:
        error = "" if beside["stderr"] is None else f" ± {beside['stderr']:.4f}"
        lines.append(
            f"  {beside['of']}, measured on the same tokens ({beside['precision']}): {beside['loss']:.4f}{error}"
        )
    lines += [f"  quoted: {figure.of} {figure.figure} ({figure.source})" for figure in quoted]
    return "\n".join(lines)
