"""The keys and values of positions already seen, so that a new token costs one position and not all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mygpt2.model.gpt import GPTConfig


class KVCache:
    """Room for `capacity` positions of `batch` sequences, allocated once; position p of a sequence lies in slot p.

    `keys` and `values` hold one tensor per layer, (B, nh, S, hs): a compiled function that gets a slice of one large
    tensor copies all of it. Memory: 2 x n_layer x batch x capacity x n_embd values.

    `length` counts the positions held by all sequences alike. Sequences of different lengths are read one by one, each
    through its `row`, and go on together by `write`, for which the caller knows each one's position.
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
        shape = (batch, config.n_head, capacity, config.n_embd // config.n_head)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.keys[0].shape[2]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, nh, T, hs) behind what is held and give back all positions, (B, nh, length + T, hs).

        `length` does not move before `advance`: every layer of one forward pass writes to the same place.
        """
        end = self.length + k.shape[2]
        if end > self.capacity:
            raise ValueError(f"{end} positions do not fit a cache of {self.capacity}")
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end].to(k.dtype), self.values[layer][:, :, :end].to(v.dtype)

    def advance(self, positions: int) -> None:
        """Count `positions` more as held, after every layer has stored them."""
        self.length += positions

    def rewind(self, length: int) -> None:
        """Forget everything from position `length` on; what is before it stays valid."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind a cache of {self.length} positions to {length}")
        self.length = length

    def row(self, number: int) -> KVCache:
        """One sequence as a cache of its own in the same memory, empty: what it stores is stored here."""
        row = object.__new__(KVCache)
        row.keys = [keys[number : number + 1] for keys in self.keys]
        row.values = [values[number : number + 1] for values in self.values]
        row.length = 0
        return row

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Give sequence `target` the first `length` positions of sequence `source`."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def keep(self, rows: list[int]) -> None:
        """Drop every sequence but these, which move together in this order."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
