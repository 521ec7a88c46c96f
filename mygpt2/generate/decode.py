"""A model made ready to decode: its own blocks with packed matrices, a prompt read at once, then a token of every row.

A step reads every weight once for a few multiplications, so it is as fast as memory delivers weights. On a CPU the
libraries' products are far from that for few rows; the one compiled here is one pass over a matrix as it is stored. On
a GPU a compiled block saves the launches between products.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mygpt2.errors import UserError
from mygpt2.model import GPT, KVCache
from mygpt2.model.compiled import compiled
from mygpt2.model.gpt import Block

KINDS = ("fp32", "bf16", "int8")
FEW = 8  # rows up to which a product on a CPU waits for memory; beyond, a library's blocked product is faster


class Matrix(NamedTuple):
    """(N, K) in the model's own dtype, bfloat16 or int8; int8 has one scale per row."""

    values: Tensor
    scale: Tensor | None = None  # (N,) float32
    half_scale: Tensor | None = None  # the same in bfloat16, as the CPU's kernel wants it


Product = Callable[[Tensor, Matrix], Tensor]


def pack(matrix: Tensor, kind: str) -> Matrix:
    """A matrix (N, K) as `kind`: fp32 is the matrix itself, no copy; int8 rounds to 127 steps of each row's maximum."""
    matrix = matrix.detach()
    if kind == "fp32":
        return Matrix(matrix)
    if kind == "bf16":
        return Matrix(matrix.to(torch.bfloat16))
    wide = matrix.float()
    scale = (wide.abs().amax(1) / 127).clamp(min=1e-30)  # a row of zeros stays zeros
    return Matrix((wide / scale[:, None]).round_().to(torch.int8), scale, scale.bfloat16())


def unpack(matrix: Matrix) -> Tensor:
    """(N, K) in floating point."""
    values, scale, _ = matrix
    return values if scale is None else values.float() * scale[:, None]


def product(x: Tensor, matrix: Matrix) -> Tensor:
    """x (R, K) times the transpose of `matrix` (N, K): (R, N) in x's dtype."""
    values, scale, half_scale = matrix
    if scale is None:
        return F.linear(x.to(values.dtype), values).to(x.dtype)
    if half_scale is not None and x.device.type == "cpu" and len(x) <= FEW:  # float32 is 40 times slower there
        return torch._weight_int8pack_mm(x.bfloat16(), values, half_scale).to(x.dtype)
    return F.linear(x, values.to(x.dtype)) * scale.to(x.dtype)


def streamed_product(x: Tensor, values: Tensor, scale: Tensor | None) -> Tensor:
    """The same to be compiled: sums over one matrix fuse into one loop over it, and no row's sum depends on another.

    It takes the matrix in parts: a call checks all that it is given, and a step has 49 of them in GPT-2.
    """
    y = torch.stack([(values.float() * row).sum(-1) for row in x.unbind(0)])
    return y if scale is None else y * scale


class CompiledProduct:
    """`streamed_product`, compiled for 1, 2, 4 and 8 rows when they are first met, and for matrices of any size."""

    def __init__(self) -> None:
        self._compiled = compiled(streamed_product, dynamic=True)

    def __call__(self, x: Tensor, matrix: Matrix) -> Tensor:
        rows = len(x)
        if rows > FEW:
            return product(x, matrix)
        padded = 1 << (rows - 1).bit_length()
        if rows < padded:
            x = torch.cat([x, x.new_zeros(padded - rows, x.shape[1])])
            return self._compiled(x, matrix.values, matrix.scale)[:rows]
        return self._compiled(x, matrix.values, matrix.scale)


class PackedLinear(nn.Module):
    """In place of an `nn.Linear`: the same function of its packed matrix, of rows (R, K)."""

    def __init__(self, matrix: Matrix, bias: Tensor | None, product: Product) -> None:
        super().__init__()
        self.matrix, self.product = matrix, product
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x, self.matrix)
        return y if self.bias is None else y + self.bias


class PackedEmbedding(nn.Module):
    """In place of the token embedding: rows of the packed output layer, in `dtype`."""

    def __init__(self, matrix: Matrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix, self.dtype = matrix, dtype

    def forward(self, ids: Tensor) -> Tensor:
        values, scale, _ = self.matrix
        rows = values[ids].to(self.dtype)
        return rows if scale is None else rows * scale[ids][..., None]


class Decoder:
    """A model's function with matrices of `kind`, compiled or not. Holds no state of any sample.

    fp32 shares the model's memory and follows its training; bf16 and int8 are copies. Norms, biases and positions,
    under one percent of a model, stay as they are. Raises UserError for another kind.
    """

    def __init__(self, model: GPT, kind: str = "fp32", *, compile: bool = False) -> None:
        if kind not in KINDS:
            raise UserError(f"weights={kind} is not allowed; use one of {', '.join(KINDS)}")
        self.device = model.wte.device
        self.fixed_shapes = compile and self.device.type != "cpu"  # a step of other shapes compiles anew
        use: Product = CompiledProduct() if compile and not self.fixed_shapes else product
        self._run_block = compiled(Block.plain) if self.fixed_shapes else None
        self.model = copy.deepcopy(model, {id(p): p for p in model.parameters()}).eval()  # parameters are shared
        wte = pack(model.wte[: model.config.vocab_size], kind)
        self._head = PackedLinear(wte, None, use)
        self.model.transformer.add_module("wte", PackedEmbedding(wte, model.transformer.wpe.weight.dtype))
        for module in list(self.model.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, PackedLinear(pack(child.weight, kind), child.bias, use))

    def cache(self, rows: int, length: int) -> KVCache:
        """An empty cache for `rows` sequences of at most `length` tokens."""
        dtype = torch.get_autocast_dtype(self.device.type) if torch.is_autocast_enabled(self.device.type) else None
        capacity = None if self.fixed_shapes else length  # for which another one would be another compilation
        return self.model.kv_cache(rows, capacity, dtype=dtype, few_sizes=self.fixed_shapes)

    def prefill(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """Logits (V,) after `tokens`, read into the only row of `cache` from its beginning."""
        hidden = self.model(torch.tensor([tokens], device=self.device), cache)
        return self._head(hidden[0, -1:])[0]

    def step(self, ids: Sequence[int], positions: Sequence[int], cache: KVCache) -> Tensor:
        """Logits (B, V) after one more token of every row: `ids` (B,) at `positions` (B,)."""
        x = torch.tensor(ids, device=self.device)[:, None]
        return self._head(self.model(x, cache, positions, run_block=self._run_block)[:, 0])
