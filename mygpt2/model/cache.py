"""The keys and values of positions already seen, so that a new token costs one position and not all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mygpt2.model.gpt import GPTConfig


class KVCache:
    """Room for `capacity` positions of `batch` sequences, allocated once.

    Memory: 2 x n_layer x batch x capacity x n_embd values. `length` counts the positions held; all rows share it.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        capacity = config.block_size if capacity is None else min(capacity, config.block_size)
        shape = (config.n_layer, batch, config.n_head, capacity, config.n_embd // config.n_head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)  # (L, B, nh, S, hs)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, nh, T, hs) behind what is held and give back all positions, (B, nh, length + T, hs).

        `length` does not move before `advance`: every layer of one forward pass writes to the same place.
        """
        end = self.length + k.shape[2]
        if end > self.keys.shape[3]:
            raise ValueError(f"{end} positions do not fit a cache of {self.keys.shape[3]}")
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end].to(k.dtype), self.values[layer, :, :, :end].to(v.dtype)

    def advance(self, positions: int) -> None:
        """Count `positions` more as held, after every layer has stored them."""
        self.length += positions

    def rewind(self, length: int) -> None:
        """Forget everything from position `length` on; what is before it stays valid."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind a cache of {self.length} positions to {length}")
        self.length = length
