"""The forward pass of decoding: a prompt at once (`prefill`), then one position of every row at a time (`step`).

It computes what `GPT.forward` computes, from packed weights. A step reads every weight once for a few multiplications,
so it is as fast as memory delivers weights. On a CPU the libraries' products are far from that for few rows; the one
compiled here is one pass over a matrix as it is stored. On a GPU a compiled block saves the launches between products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mygpt2.generate.weights import Layer, Matrix, Norm, Weights
from mygpt2.model import KVCache
from mygpt2.model.attention import causal_attention
from mygpt2.model.gpt import GELUS

FEW = 8  # rows up to which a product on a CPU waits for memory; beyond, a library's blocked product is faster
SPAN = 256  # positions; a compiled block attends to this many, doubled until all fit, masked: each size compiles once

Product = Callable[[Tensor, Matrix], Tensor]


def product(x: Tensor, matrix: Matrix) -> Tensor:
    """x (R, K) times the transpose of `matrix` (N, K): (R, N) in x's dtype."""
    values, scale = matrix
    if scale is None:
        return F.linear(x.to(values.dtype), values).to(x.dtype)
    if x.device.type == "cpu" and len(x) <= FEW:  # bfloat16 because the kernel is 40 times slower in float32
        return torch._weight_int8pack_mm(x.bfloat16(), values, scale.bfloat16()).to(x.dtype)
    return F.linear(x, values.to(x.dtype)) * scale.to(x.dtype)


def streamed_product(x: Tensor, matrix: Matrix) -> Tensor:
    """The same to be compiled: sums over one matrix fuse into one loop over it, and no row's sum depends on another."""
    y = torch.stack([(matrix.values.float() * row).sum(-1) for row in x.unbind(0)])
    return y if matrix.scale is None else y * matrix.scale


class CompiledProduct:
    """`streamed_product`, compiled for 1, 2, 4 and 8 rows when they are first met, and for matrices of any size."""

    def __init__(self) -> None:
        self._compiled = torch.compile(streamed_product, dynamic=True)

    def __call__(self, x: Tensor, matrix: Matrix) -> Tensor:
        rows = len(x)
        if rows > FEW:
            return product(x, matrix)
        padded = 1 << (rows - 1).bit_length()
        if rows < padded:
            x = torch.cat([x, x.new_zeros(padded - rows, x.shape[1])])
        return self._compiled(x, matrix)[:rows]


def norm(x: Tensor, weights: Norm) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weights.weight, weights.bias, 1e-5)


def embed(ids: Tensor, positions: Tensor, weights: Weights) -> Tensor:
    """(R, C) float32 or the model's dtype: the rows of wte and wpe for ids (R,) at positions (R,)."""
    values, scale = weights.wte
    tokens = values[ids].to(weights.wpe.dtype)
    return (tokens if scale is None else tokens * scale[ids, None]) + weights.wpe[positions]


def block(x: Tensor, layer: Layer, attend: Callable[[Tensor], Tensor], product: Product) -> Tensor:
    """One transformer block on positions (R, C); `attend` takes queries, keys and values (R, 3C) to (R, C)."""

    def dense(x: Tensor, matrix: Matrix, bias: Tensor | None) -> Tensor:
        return product(x, matrix) if bias is None else product(x, matrix) + bias

    attended = attend(dense(norm(x, layer.ln_1), layer.c_attn, layer.c_attn_bias))
    x = x + dense(attended, layer.attn_proj, layer.attn_proj_bias)
    hidden = GELUS[layer.gelu](dense(norm(x, layer.ln_2), layer.c_fc, layer.c_fc_bias))
    return x + dense(hidden, layer.mlp_proj, layer.mlp_proj_bias)


def step_block(
    x: Tensor,
    layer: Layer,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    mask: Tensor | None,
    span: int,
    product: Product,
) -> Tensor:
    """One block for one new position of each row: x (B, C), caches (B, nh, S, hs), of which `span` slots are looked at.

    Stores the rows' keys and values in slots `positions` (B,). `mask` (B, 1, 1, span) is True where a row may look;
    None: everywhere.
    """
    B, C = x.shape
    rows = torch.arange(B, device=x.device)

    def attend(qkv: Tensor) -> Tensor:
        q, k, v = qkv.view(B, 3, keys.shape[1], -1).unbind(1)  # (B, nh, hs)
        keys[rows, :, positions] = k.to(keys.dtype)
        values[rows, :, positions] = v.to(values.dtype)
        seen = keys[:, :, :span], values[:, :, :span]
        y = F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), *seen, attn_mask=mask)
        return y.reshape(B, C).to(x.dtype)

    return block(x, layer, attend, product)


class Decoder:
    """Packed weights and the functions over them, compiled or not. Holds no state of any sample."""

    def __init__(self, weights: Weights, *, compile: bool = False) -> None:
        self.weights = weights
        self.fixed_shapes = compile and self.device.type != "cpu"  # a step of other shapes compiles anew
        self._product: Product = CompiledProduct() if compile and not self.fixed_shapes else product
        self._block = torch.compile(step_block, dynamic=False) if self.fixed_shapes else step_block

    @property
    def device(self) -> torch.device:
        return self.weights.wpe.device

    def prefill(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """Logits (V,) after `tokens`, read into an empty cache of one sequence."""
        ids = torch.tensor(tokens, device=self.device)
        x = embed(ids, torch.arange(len(ids), device=self.device), self.weights)  # (T, C)
        for number, layer in enumerate(self.weights.layers):

            def attend(qkv: Tensor, number: int = number) -> Tensor:
                q, k, v = qkv.view(1, len(ids), 3, cache.keys[0].shape[1], -1).permute(2, 0, 3, 1, 4)  # (1, nh, T, hs)
                k, v = cache.update(number, k, v)
                return causal_attention(q, k, v).transpose(1, 2).reshape(len(ids), -1)

            x = block(x, layer, attend, self._product)
        cache.advance(len(ids))
        return self._head(x[-1:])[0]

    def step(self, ids: Sequence[int], positions: Sequence[int], cache: KVCache) -> Tensor:
        """Logits (B, V) after one more token of every row: `ids` (B,) at `positions` (B,)."""
        place = torch.tensor(positions, device=self.device)
        x = embed(torch.tensor(ids, device=self.device), place, self.weights)
        span = self._span(max(positions) + 1, cache.capacity)
        mask = None
        if self.fixed_shapes or min(positions) + 1 < span:
            mask = (torch.arange(span, device=self.device) <= place[:, None])[:, None, None]
        for layer, keys, values in zip(self.weights.layers, cache.keys, cache.values, strict=True):
            x = self._block(x, layer, keys, values, place, mask, span, self._product)
        return self._head(x)

    def _head(self, x: Tensor) -> Tensor:
        """Logits (R, vocab_size) of what the last block gave, (R, C)."""
        return self._product(norm(x, self.weights.ln_f), self.weights.wte)

    def _span(self, length: int, capacity: int) -> int:
        """Slots to look at. Plain code looks at what is held, a compiled block at one of a few sizes."""
        if not self.fixed_shapes:
            return length
        span = SPAN
        while span < length:
            span *= 2
        return min(span, capacity)
