"""Matrix products of training in float32 on a CPU, by whichever of PyTorch's two libraries is the faster there.

PyTorch gives float32 products to Intel's MKL. On AMD's processors oneDNN, which comes with PyTorch as well, takes 0.85
of MKL's time with AVX2, and less than half with AVX-512, which MKL leaves unused there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear` whose training step may run on oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        training = x.requires_grad and torch.is_grad_enabled()
        if training and onednn_pays(x) and not torch.is_autocast_enabled("cpu"):
            return _linear(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


def onednn_pays(x: Tensor) -> bool:
    """Whether products with x belong to oneDNN."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and ON_AMD


def rows_times_rows(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T of float32 matrices (m, k) and (n, k) by oneDNN; either may be a transposed view."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return product


def _on_amd() -> bool:
    """Whether this is an AMD processor and PyTorch has oneDNN's product (an operator that its compiler uses)."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text("ascii", errors="replace")[:400]
    except OSError:
        return False


ON_AMD = _on_amd()  # asked here, as a compiler cannot look through it


# An operator of its own, so that a compiler takes it as it is.


@torch.library.custom_op("mygpt2::linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


@torch.library.custom_op("mygpt2::linear_backward", mutates_args=())
def _backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the matrix."""
    g, rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])  # (n, out), (n, in)
    # With AVX2 MKL is as fast for sums over so many rows, and needs no transposed copies.
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    dw = rows_times_rows(g.t(), rows.t()) if wide else g.t() @ rows
    return rows_times_rows(g, weight.t()).view(x.shape), dw


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.has_bias = inputs[2] is not None


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    dx, dw = _backward(grad, *ctx.saved_tensors)
    return dx, dw, grad.flatten(0, -2).sum(0) if ctx.has_bias else None


_linear.register_autograd(_differentiate, setup_context=_keep)
