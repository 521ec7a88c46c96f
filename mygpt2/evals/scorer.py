"""The one thing that an evaluation asks of a model: the loss of each target."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from mygpt2.model import GPT, linear_cross_entropy
from mygpt2.model.loss import IGNORE


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
