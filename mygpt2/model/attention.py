"""Causal attention: PyTorch's kernels wherever they are fast, and a blocked one for training on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LONGEST = 1024  # tokens; in bfloat16 blocks take 0.6 of the time of PyTorch's CPU kernel at 256, 0.75 at 1024
QUERIES = 128  # queries of one block: keys behind it are never multiplied, 25 % of the work at T = 256
TILE = 1 << 19  # scores of one block over all its heads: 2 MB in float32, about a core's second-level cache


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention of queries (B, nh, T, hs) over keys and values (B, nh, S, hs), S >= T, as (B, nh, T, hs).

    The queries are the last T of the S positions; each sees itself and what came before.
    """
    T, S = q.shape[2], k.shape[2]
    if T == S:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    if T == 1:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


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
