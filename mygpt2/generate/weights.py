"""A model's parameters as decoding reads them: every matrix once per token, so their bytes are the time of a token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from mygpt2.errors import UserError
from mygpt2.model import GPT
from mygpt2.model.gpt import Block

KINDS = ("fp32", "bf16", "int8")


class Matrix(NamedTuple):
    """(N, K) in the model's own dtype, bfloat16 or int8; int8 has one float32 scale per row."""

    values: Tensor
    scale: Tensor | None


class Norm(NamedTuple):
    weight: Tensor
    bias: Tensor | None


class Layer(NamedTuple):
    """One block, matrices (out, in) with their biases behind them; a model without biases has None."""

    ln_1: Norm
    c_attn: Matrix
    c_attn_bias: Tensor | None
    attn_proj: Matrix
    attn_proj_bias: Tensor | None
    ln_2: Norm
    c_fc: Matrix
    c_fc_bias: Tensor | None
    mlp_proj: Matrix
    mlp_proj_bias: Tensor | None
    gelu: str  # of GELUS


class Weights(NamedTuple):
    """A whole model. `wte` (vocab_size, C) is the embedding and the output layer, without padded rows."""

    wte: Matrix
    wpe: Tensor  # (block_size, C)
    layers: tuple[Layer, ...]
    ln_f: Norm


def pack(matrix: Tensor, kind: str) -> Matrix:
    """A matrix (N, K) as `kind`: fp32 is the matrix itself, no copy; int8 rounds to 127 steps of each row's maximum."""
    matrix = matrix.detach()
    if kind == "fp32":
        return Matrix(matrix, None)
    if kind == "bf16":
        return Matrix(matrix.to(torch.bfloat16), None)
    wide = matrix.float()
    scale = (wide.abs().amax(1) / 127).clamp(min=1e-30)  # a row of zeros stays zeros
    return Matrix((wide / scale[:, None]).round().to(torch.int8), scale)


def unpack(matrix: Matrix) -> Tensor:
    """(N, K) in floating point."""
    values, scale = matrix
    return values if scale is None else values.float() * scale[:, None]


def pack_model(model: GPT, kind: str = "fp32") -> Weights:
    """The model's weights as `kind`. fp32 shares the model's memory and follows its training; the others are copies.

    Norms, biases and positions, under one percent of a model, stay as they are. Raises UserError for another kind.
    """
    if kind not in KINDS:
        raise UserError(f"weights={kind} is not allowed; use one of {', '.join(KINDS)}")

    def vector(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.detach()

    def norm(module: torch.nn.LayerNorm) -> Norm:
        return Norm(module.weight.detach(), vector(module.bias))

    body = model.transformer
    layers = []
    for block in cast(Iterable[Block], body.h):
        linears = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
        (qkv, qkv_b), (out, out_b), (fc, fc_b), (down, down_b) = (
            (pack(linear.weight, kind), vector(linear.bias)) for linear in linears
        )
        norms = norm(block.ln_1), norm(block.ln_2)
        layers.append(Layer(norms[0], qkv, qkv_b, out, out_b, norms[1], fc, fc_b, down, down_b, model.config.gelu))
    wte = pack(model.wte[: model.config.vocab_size], kind)
    return Weights(wte, body.wpe.weight.detach(), tuple(layers), norm(body.ln_f))
