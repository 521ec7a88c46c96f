"""Validation loss on the held-out documents: the same number for every batch size and rank count."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from mygpt2.data.validation import ValidationSet, windows
from mygpt2.distributed import World
from mygpt2.model import GPT
from mygpt2.train.precision import Precision
from mygpt2.train.step import to_device


@dataclass(frozen=True)
class Validation:
    """`loss` in nats per target; `bits_per_byte` of the documents' UTF-8 bytes, whatever the tokenizer."""

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int
    token_sha256: str
    precision: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def validate(
    model: GPT, held_out: ValidationSet, world: World, precision: Precision, *, block_size: int, batch: int
) -> Validation:
    """Σ nll / Σ targets in float64 over contiguous windows that lose no target and count no padding.

    The plain module is evaluated, never the compiled one: other shapes would compile anew. Windows are dealt to the
    ranks; the first token of the stream is the only one that is not a target.
    """
    inputs, targets = windows(held_out.tokens, block_size)
    mine = np.arange(world.rank, len(inputs), world.size)
    was_training = model.training
    model.eval()
    nll, count = 0.0, 0
    for first in range(0, len(mine), batch):
        rows = mine[first : first + batch]
        with precision.autocast(world.device):
            _, row_nll, valid = model.loss(
                to_device(inputs[rows], world.device), to_device(targets[rows], world.device)
            )
        nll += float(row_nll.double().sum() if world.device.type != "mps" else row_nll.cpu().double().sum())
        count += int(valid)
    model.train(was_training)
    total, targets_seen = world.sum([nll, float(count)])
    loss = total / max(targets_seen, 1.0)
    return Validation(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=total / math.log(2) / max(held_out.bytes, 1),
        tokens=int(targets_seen),
        bytes=held_out.bytes,
        token_sha256=held_out.sha256,
        precision=precision.name,
    )
