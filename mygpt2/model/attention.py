"""Causal attention: PyTorch's kernels wherever they are fast, and a blocked one for short rows on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES = 128  # queries of one block: keys behind it are never multiplied, 25 % of the work at T = 256
TILE = 1 << 19  # scores of one block over all its heads: 2 MB in float32, about a core's second-level cache
LONGEST = 512  # tokens; at T = 256 blocks take 0.7 of the time of PyTorch's CPU kernel, at 1024 there is no gain


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
    """Whether `blocked_attention` is the faster way for qkv (B, T, 3C): training on a CPU with short rows."""
    return (
        qkv.device.type == "cpu"
        and qkv.requires_grad
        and qkv.shape[1] <= LONGEST
        and qkv.dtype in (torch.float32, torch.bfloat16)
        and dropout == 0.0
        and not torch.compiler.is_compiling()  # its loops would be unrolled into the graph of every layer
    )


def blocked_attention(qkv: Tensor, n_head: int) -> Tensor:
    """Causal self-attention of qkv (B, T, 3C), queries, keys and values side by side, as (B, T, C).

    Scores and softmax are float32; nothing of size T x T is kept for the backward pass, which makes the weights again.
    """
    return _BlockedAttention.apply(qkv, n_head)


def _groups(batch: int, n_head: int, T: int) -> Iterator[tuple[slice, slice]]:
    """Rows and heads that are worked on together, so that one block of their scores fits the tile."""
    together = max(1, TILE // (min(QUERIES, T) * T))  # heads
    rows, heads = max(1, together // n_head), min(together, n_head)
    for row in range(0, batch, rows):
        for head in range(0, n_head, heads):
            yield slice(row, row + rows), slice(head, head + heads)


def _heads(x: Tensor, rows: slice, heads: slice) -> Tensor:
    """(n, T, hs) contiguous, from (B, T, nh, hs)."""
    return x[rows, :, heads].transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _weights(q: Tensor, k: Tensor, start: int, future: Tensor) -> Tensor:
    """Attention weights (n, t, start + t) of a block of scaled queries (n, t, hs) over keys (n, start + t, hs)."""
    scores = torch.bmm(q, k.transpose(1, 2))
    scores[:, :, start:] += future[: q.shape[1], : q.shape[1]]
    return torch.softmax(scores, -1)


def _future(T: int) -> Tensor:
    """-inf above the diagonal of the block where queries meet their own positions."""
    side = min(QUERIES, T)
    return torch.full((side, side), float("-inf")).triu(1)


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_head: int) -> Tensor:
        B, T, width = qkv.shape
        q, k, v = qkv.view(B, T, 3, n_head, width // 3 // n_head).unbind(2)  # (B, T, nh, hs)
        out, future, scale = torch.empty_like(q, memory_format=torch.contiguous_format), _future(T), q.shape[3] ** -0.5
        for rows, heads in _groups(B, n_head, T):
            wide_q, wide_k = _heads(q, rows, heads).float() * scale, _heads(k, rows, heads).float()
            values = _heads(v, rows, heads)
            for start in range(0, T, QUERIES):
                end = min(start + QUERIES, T)
                p = _weights(wide_q[:, start:end], wide_k[:, :end], start, future).to(qkv.dtype)
                y = torch.bmm(p, values[:, :end])  # (n, t, hs)
                place = out[rows, start:end, heads]
                place.copy_(y.view(place.shape[0], place.shape[2], *y.shape[1:]).transpose(1, 2))
        ctx.save_for_backward(qkv)
        ctx.n_head = n_head
        return out.view(B, T, width // 3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (qkv,) = ctx.saved_tensors
        B, T, width = qkv.shape
        parts = (B, T, 3, ctx.n_head, width // 3 // ctx.n_head)
        q, k, v = qkv.view(parts).unbind(2)
        result = torch.empty_like(qkv)
        dq, dk, dv = result.view(parts).unbind(2)
        g, future, scale = grad.reshape(B, T, *parts[3:]), _future(T), parts[4] ** -0.5
        for rows, heads in _groups(B, ctx.n_head, T):
            inputs = [_heads(x, rows, heads) for x in (q, k, v, g)]
            for target, gradient in zip((dq, dk, dv), _gradients(*inputs, future, scale), strict=True):
                place = target[rows, :, heads]
                place.copy_(gradient.view(place.shape[0], place.shape[2], T, -1).transpose(1, 2))
        return result, None


def _gradients(q: Tensor, k: Tensor, v: Tensor, g: Tensor, future: Tensor, scale: float) -> tuple[Tensor, ...]:
    """Gradients of q, k, v (n, T, hs) from the output's, g; the last block comes first because it sees every key."""
    T = q.shape[1]
    wide_q, wide_k = q.float() * scale, k.float()
    dq = torch.empty(q.shape)
    dk, dv = torch.zeros(q.shape), torch.zeros(q.shape)
    for start in range(0, T, QUERIES):
        end = min(start + QUERIES, T)
        p = _weights(wide_q[:, start:end], wide_k[:, :end], start, future)  # (n, t, end)
        dp = torch.bmm(g[:, start:end], v[:, :end].transpose(1, 2)).float()
        ds = torch.ops.aten._softmax_backward_data(dp, p, -1, torch.float32).to(q.dtype)
        dq[:, start:end] = torch.bmm(ds, k[:, :end])
        dk[:, :end] += torch.bmm(ds.transpose(1, 2), q[:, start:end])
        dv[:, :end] += torch.bmm(p.to(q.dtype).transpose(1, 2), g[:, start:end])
    return dq.mul_(scale), dk.mul_(scale), dv
