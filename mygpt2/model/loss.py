"""Cross-entropy fused with the output layer, so that the logits of a batch never exist at once.

For 2 x 1024 tokens and GPT-2's vocabulary the float32 logits alone would be 412 MB, their gradient as much again. Here
the tokens go through the output layer in chunks: each chunk's logits are turned in place into their own gradient
(softmax minus one-hot), multiplied into the gradients of the hidden states and of the matrix, and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mygpt2.model.compiled import compiled
from mygpt2.model.products import onednn_pays, rows_times_rows

IGNORE = -100  # a target that does not count, PyTorch's convention
CHUNK = 1024  # tokens; 100 MB of bf16 logits for GPT-2's vocabulary, enough to keep a processor's kernels busy
GPU_CHUNK = 8192  # tokens; 1024 leave an H100 with 48 tiles for 132 multiprocessors, and add dw up eight times as often
TILE = 1 << 20  # logits made float32 at a time on a CPU: 4 MB, which stays in the cache


class LossParts(NamedTuple):
    """What a mean over micro-batches and ranks is made from: sum the parts, divide once."""

    nll_sum: Tensor  # () float32, differentiable: the sum over valid targets, in nats
    row_nll: Tensor  # (B,) float32, detached: the same sum for each row
    count: Tensor  # type: ignore[assignment]  # () int64: targets that are not -100


Kernel = Callable[[Tensor, Tensor, int, bool], Tensor]


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, vocab_size: int, chunk: int | None = None, compile: bool = False
) -> LossParts:
    """Loss of `hidden @ weight.T` against `targets`, over the first `vocab_size` columns.

    hidden (B, T, C) and weight (rows >= vocab_size, C) of any float dtype; targets (B, T) int64 or -100. Products run
    in autocast's dtype where autocast is on, else in hidden's; softmax and sums are float32. The result does not
    depend on `chunk`. Without gradients in demand none are computed.
    """
    flat, goals = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    device = hidden.device.type
    chunk = chunk or (GPU_CHUNK if device == "cuda" else CHUNK)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    kernel = _compiled_kernel if compile else softmax_in_place
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
            nll_sum, nll = _LinearCrossEntropy.apply(flat, weight, goals, vocab_size, chunk, dtype, kernel)
        else:
            nll = _nll(flat, weight, goals, vocab_size, chunk, dtype, kernel)
            nll_sum = nll.sum()
    return LossParts(nll_sum, nll.view(targets.shape).sum(-1), (goals != IGNORE).sum())


def softmax_in_place(logits: Tensor, targets: Tensor, vocab_size: int, gradient: bool) -> Tensor:
    """Per-token nll (n,) float32 of logits (n, rows); with `gradient`, logits become d(sum of nll)/d(logits).

    Columns from `vocab_size` on are padding: outside the softmax, with gradient zero.
    """
    valid = targets != IGNORE
    goals = targets.clamp(min=0)[:, None]  # (n, 1); an ignored row looks at id 0 and is multiplied by zero
    x = logits[:, :vocab_size].float()
    p = x.softmax(-1)
    lse = x.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()  # the largest p is at least 1/V: a safe logarithm
    nll = torch.where(valid, (lse - x.gather(-1, goals))[:, 0], 0.0)
    if gradient:
        p.scatter_add_(-1, goals, torch.full_like(lse, -1.0))
        logits[:, :vocab_size] = p.mul_(valid[:, None])
        logits[:, vocab_size:] = 0.0
    return nll


def _fused_kernel(logits: Tensor, targets: Tensor, vocab_size: int, gradient: bool) -> Tensor:
    """`softmax_in_place` written for a compiler: no scatter, which would keep the passes from fusing."""
    valid = targets != IGNORE
    column = torch.arange(logits.shape[1], device=logits.device)  # (rows,)
    x = torch.where(column < vocab_size, logits.float(), float("-inf"))
    top = x.amax(-1, keepdim=True)
    e = (x - top).exp()
    total = e.sum(-1, keepdim=True)
    hit = column == targets[:, None]
    at_target = torch.where(hit, x, 0.0).sum(-1)
    nll = torch.where(valid, (total.log() + top)[:, 0] - at_target, 0.0)
    if gradient:
        logits.copy_((e * (valid[:, None] / total) - torch.where(hit, 1.0, 0.0)).to(logits.dtype))
    return nll


@cache
def _compiled() -> Kernel:
    """Kept, as wrapping a function costs half a millisecond of host time; it holds one kernel per shape."""
    return compiled(_fused_kernel)


def _compiled_kernel(logits: Tensor, targets: Tensor, vocab_size: int, gradient: bool) -> Tensor:
    return _compiled()(logits, targets, vocab_size, gradient)


def _chunks(tokens: int, chunk: int) -> list[slice]:
    return [slice(i, min(i + chunk, tokens)) for i in range(0, tokens, chunk)]


def _apply(kernel: Kernel, logits: Tensor, targets: Tensor, vocab_size: int, gradient: bool) -> Tensor:
    """The kernel over tiles that fit the processor's cache; on other devices, and compiled, over all rows at once."""
    if logits.device.type != "cpu" or kernel is _compiled_kernel:
        return kernel(logits, targets, vocab_size, gradient)
    tiles = _chunks(len(logits), max(1, TILE // logits.shape[1]))
    return torch.cat([kernel(logits[t], targets[t], vocab_size, gradient) for t in tiles])


def _logits(x: Tensor, head: Tensor) -> Tensor:
    return rows_times_rows(x, head) if onednn_pays(x) else x @ head.t()


def _nll(
    hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, chunk: int, dtype: torch.dtype, kernel: Kernel
) -> Tensor:
    """Per-token loss (N,) without gradients."""
    x, head = hidden.to(dtype), weight.to(dtype)  # (N, C), (rows, C)
    nll = torch.zeros(len(x), dtype=torch.float32, device=x.device)
    for rows in _chunks(len(x), chunk):
        nll[rows] = _apply(kernel, _logits(x[rows], head), targets[rows], vocab_size, False)
    return nll


def _add_outer(total: Tensor, g: Tensor, x: Tensor) -> None:
    """Adds g.T @ x, summed over tokens, to `total` in float32 where the device can: a float16 sum may overflow."""
    if x.device.type == "cuda" and x.dtype in (torch.float16, torch.bfloat16):
        torch.addmm(total, g.t(), x, out_dtype=torch.float32, out=total)  # one pass over `total`, by the product itself
    elif x.dtype == torch.float16:
        total.add_(g.float().t() @ x.float())
    else:
        total.add_(g.t() @ x)


class _LinearCrossEntropy(torch.autograd.Function):
    """Both gradients are ready after forward; backward multiplies them by whatever scale arrives."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        vocab_size: int,
        chunk: int,
        dtype: torch.dtype,
        kernel: Kernel,
    ) -> tuple[Tensor, Tensor]:
        x, head = hidden.to(dtype), weight.to(dtype)  # (N, C), (rows, C)
        nll = torch.zeros(len(x), dtype=torch.float32, device=x.device)
        dx = torch.empty_like(x)
        dw = torch.zeros(weight.shape, dtype=torch.float32, device=x.device)
        for rows in _chunks(len(x), chunk):
            logits = _logits(x[rows], head)  # (chunk, rows)
            nll[rows] = _apply(kernel, logits, targets[rows], vocab_size, True)
            if onednn_pays(x):
                dx[rows] = rows_times_rows(logits, head.t())
            else:
                torch.mm(logits, head, out=dx[rows])
            _add_outer(dw, logits, x[rows])
        ctx.gradients = (dx, dw)
        ctx.dtypes = (hidden.dtype, weight.dtype)
        ctx.mark_non_differentiable(nll)
        return nll.sum(), nll

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the fused loss frees its gradients in the first backward; run forward again")
        dx, dw = ctx.gradients
        ctx.gradients = None
        dx = dx.to(ctx.dtypes[0]) * scale.to(ctx.dtypes[0])
        dw = dw.mul_(scale).to(ctx.dtypes[1])
        return dx, dw, None, None, None, None, None
