"""Causal attention: PyTorch's kernels wherever they are fast, a blocked one for training on a CPU, and the key-value
cache, with which a new token costs one position and not all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LONGEST = 1024  # tokens; in bfloat16 blocks take 0.6 of the time of PyTorch's CPU kernel at 256, 0.75 at 1024
QUERIES = 128  # queries of one block: keys behind it are never multiplied, 25 % of the work at T = 256
SPAN = 256  # slots that a compiled block looks at least
TILE = 1 << 19  # scores of one block over all its heads: 2 MB in float32, about a core's second-level cache


def fastest_first(device: torch.device) -> AbstractContextManager[None]:
    """PyTorch's attention kernels in the order of their speed: cuDNN's before FlashAttention 2 from Hopper on, which
    needs about half the time there. For as long as the context lasts, in graphs that are compiled within it too."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return nullcontext()
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(order, set_priority=True)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """Attention of queries (B, nh, T, hs) over keys and values (B, nh, S, hs), S >= T, as (B, nh, T, hs).

    Without a mask the queries are the last T of the S positions, and each sees itself and what came before; `mask`
    (B, 1, T, S) is True where a query of its row may look.
    """
    T, S = q.shape[2], k.shape[2]
    if mask is None and T == S:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    if mask is None and T > 1:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


class Past(NamedTuple):
    """What one layer holds of every row's earlier positions, and where the T new ones of each row go."""

    keys: Tensor  # (B, nh, S, hs), position p in slot p
    values: Tensor  # (B, nh, S, hs)
    places: tuple[Tensor, slice, Tensor]  # of the new ones: rows (B, 1), all heads, positions (B, T)
    span: int  # slots that are looked at, from the first on
    mask: Tensor | None  # (B, 1, T, span): where they may look; None: at themselves and everything before

    def attend(self, qkv: Tensor, n_head: int) -> Tensor:
        """Store the new keys and values and give what the queries see, (B x T, C), of qkv (B x T, 3C)."""
        keys, values, places, span, mask = self
        q, k, v = qkv.view(*places[2].shape, 3, n_head, -1).unbind(2)  # (B, T, nh, hs)
        keys[places] = k.to(keys.dtype)
        values[places] = v.to(values.dtype)
        y = causal_attention(q.transpose(1, 2).to(keys.dtype), keys[:, :, :span], values[:, :, :span], mask=mask)
        return y.transpose(1, 2).reshape(len(qkv), -1).to(qkv.dtype)


class KVCache:
    """Room for the keys and values of `capacity` positions of `batch` rows, allocated once. `GPT.kv_cache` makes it.

    It does not count what it holds: whoever fills it says where each row goes on, so rows may have any lengths.
    `keys` and `values` hold one tensor per layer: a compiled function that gets a slice of one large tensor copies all
    of it. Memory: 2 x n_layer x batch x capacity x n_embd values.

    few_sizes: steps of one token look at 256 slots, doubled until all fit, masked: a block compiles once for each size.
    """

    def __init__(
        self,
        n_layer: int,
        shape: tuple[int, int, int, int],  # batch, heads, capacity, head size
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        few_sizes: bool = False,
    ) -> None:
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(n_layer)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(n_layer)]
        self.few_sizes = few_sizes

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.keys[0].shape[2]

    def continued(self, starts: Sequence[int], count: int) -> list[Past]:
        """For each layer, where `count` new positions go: row b has those from `starts[b]` on."""
        span = max(starts) + count
        if span > self.capacity:
            raise ValueError(f"{span} positions do not fit a cache of {self.capacity}")
        device = self.keys[0].device
        positions = torch.tensor(starts, device=device)[:, None] + torch.arange(count, device=device)  # (B, T)
        fixed = self.few_sizes and count == 1
        if fixed:
            span = min(max(SPAN, 1 << (span - 1).bit_length()), self.capacity)
        mask = None
        if fixed or min(starts) < max(starts):
            mask = (torch.arange(span, device=device) <= positions[:, :, None])[:, None]  # (B, 1, T, span)
        places = torch.arange(len(starts), device=device)[:, None], slice(None), positions
        return [Past(k, v, places, span, mask) for k, v in zip(self.keys, self.values, strict=True)]

    def row(self, number: int) -> KVCache:
        """One row as a cache of its own in the same memory: what it stores is stored here."""
        row = copy(self)
        row.keys = [keys[number : number + 1] for keys in self.keys]
        row.values = [values[number : number + 1] for values in self.values]
        return row

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Give row `target` the first `length` positions of row `source`."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def keep(self, rows: list[int]) -> None:
        """Drop every row but these, which move together in this order."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


def blocks_pay(qkv: Tensor, dropout: float) -> bool:
    """Whether `blocked_attention` is the faster way for qkv (B, T, 3C): training on a CPU."""
    return (
        qkv.device.type == "cpu"
        and qkv.requires_grad
        and qkv.shape[1] <= LONGEST
        and qkv.dtype in (torch.float32, torch.bfloat16)
        and dropout == 0.0
    )


def blocked_attention(qkv: Tensor, n_head: int) -> Tensor:
    """Causal self-attention of qkv (B, T, 3C), queries, keys and values side by side, as (B, T, C).

    Scores and softmax are float32. The weights are kept for the backward pass in qkv's dtype: a little more
    than half of B x nh x T x T, which for longer rows than `LONGEST` would be too much memory.
    """
    return _forward(qkv, n_head)[0]


# Two operators of their own, so that a compiler takes them as they are and does not unroll their loops in every layer.


@torch.library.custom_op("mygpt2::blocked_attention", mutates_args=())
def _forward(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor]:
    """Output (B, T, C), and the attention weights of one block (heads, queries, keys) after the other, flat."""
    B, T, width = qkv.shape
    q, k, v = qkv.view(B, T, 3, n_head, width // 3 // n_head).unbind(2)  # (B, T, nh, hs)
    out, weights = torch.empty(q.shape, dtype=q.dtype), torch.empty(B * n_head * _kept(T), dtype=q.dtype)
    future, scale = torch.full((QUERIES, QUERIES), float("-inf")).triu(1), q.shape[3] ** -0.5
    with torch.autocast("cpu", enabled=False):  # float32 products are meant
        for rows, heads, blocks in _groups(B, n_head, T, weights):
            wide_q, wide_k = _heads(q, rows, heads).float() * scale, _heads(k, rows, heads).float()
            values = _heads(v, rows, heads)
            for start, end, p in blocks:
                scores = torch.bmm(wide_q[:, start:end], wide_k[:, :end].transpose(1, 2))  # (n, t, end)
                scores[:, :, start:] += future[: end - start, : end - start]
                p.copy_(scores.softmax(-1))
                _place(out[:, start:end], rows, heads, torch.bmm(p, values[:, :end]))
    return out.view(B, T, width // 3), weights


@torch.library.custom_op("mygpt2::blocked_attention_backward", mutates_args=())
def _backward(grad: Tensor, qkv: Tensor, weights: Tensor, n_head: int) -> Tensor:
    """Gradient (B, T, 3C) of qkv from the output's, (B, T, C)."""
    B, T, width = qkv.shape
    parts = (B, T, 3, n_head, width // 3 // n_head)
    result = torch.empty(qkv.shape, dtype=qkv.dtype)
    q, k, v = qkv.view(parts).unbind(2)
    g = grad.reshape(B, T, *parts[3:])
    with torch.autocast("cpu", enabled=False):
        for rows, heads, blocks in _groups(B, n_head, T, weights):
            gradients = _gradients(blocks, *(_heads(x, rows, heads) for x in (q, k, v, g)))
            for target, gradient in zip(result.view(parts).unbind(2), gradients, strict=True):
                _place(target, rows, heads, gradient)
    return result


@_forward.register_fake
def _(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor]:
    B, T, width = qkv.shape
    return qkv.new_empty(B, T, width // 3), qkv.new_empty(B * n_head * _kept(T))


@_backward.register_fake
def _(grad: Tensor, qkv: Tensor, weights: Tensor, n_head: int) -> Tensor:
    return torch.empty_like(qkv)


def _keep(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.n_head = inputs[1]
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
    return _backward(grad, *ctx.saved_tensors, ctx.n_head), None


_forward.register_autograd(_differentiate, setup_context=_keep)


Block = tuple[int, int, Tensor]  # first query, end of queries and keys, weights (n, queries, keys)


def _kept(T: int) -> int:
    """Weights of one head: each block of queries has the keys up to its own end."""
    ends = [min(start + QUERIES, T) for start in range(0, T, QUERIES)]
    return sum((end - start) * end for start, end in zip([0, *ends], ends, strict=False))


def _groups(batch: int, n_head: int, T: int, weights: Tensor) -> Iterator[tuple[slice, slice, list[Block]]]:
    """Rows and heads that are worked on together, so that one block of their scores fits the tile, and their blocks."""
    together = max(1, TILE // (min(QUERIES, T) * T))  # heads
    rows, heads = max(1, together // n_head), min(together, n_head)
    at = 0
    for row in range(0, batch, rows):
        for head in range(0, n_head, heads):
            n = min(rows, batch - row) * min(heads, n_head - head)
            blocks = []
            for start in range(0, T, QUERIES):
                end = min(start + QUERIES, T)
                size = n * (end - start) * end
                blocks.append((start, end, weights[at : at + size].view(n, end - start, end)))
                at += size
            yield slice(row, row + rows), slice(head, head + heads), blocks


def _heads(x: Tensor, rows: slice, heads: slice) -> Tensor:
    """(n, T, hs) contiguous, from (B, T, nh, hs)."""
    return x[rows, :, heads].transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _place(target: Tensor, rows: slice, heads: slice, x: Tensor) -> None:
    """Write (n, t, hs) to where `_heads` takes it from, in (B, t, nh, hs)."""
    place = target[rows, :, heads]
    place.copy_(x.view(place.shape[0], place.shape[2], *x.shape[1:]).transpose(1, 2))


def _gradients(blocks: list[Block], q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v (n, T, hs) from the weights and the output's gradient g (n, T, hs)."""
    scale = q.shape[2] ** -0.5
    dq, dk, dv = [], torch.zeros(q.shape), torch.zeros(q.shape)  # sums over blocks in float32
    for start, end, p in blocks:
        dp = torch.bmm(g[:, start:end], v[:, :end].transpose(1, 2)).float()  # (n, t, end)
        ds = torch.ops.aten._softmax_backward_data(dp, p.float(), -1, torch.float32).to(q.dtype)
        dq.append(torch.bmm(ds, k[:, :end]))
        dk[:, :end] += torch.bmm(ds.transpose(1, 2), q[:, start:end])
        dv[:, :end] += torch.bmm(p.transpose(1, 2), g[:, start:end])
    return torch.cat(dq, 1).mul_(scale), dk.mul_(scale).to(q.dtype), dv.to(q.dtype)
