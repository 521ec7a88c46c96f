"""The fused loss is cross-entropy, to the last digit that matters, without ever holding the logits of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mygpt2.model import GPT, GPTConfig, LossModule, linear_cross_entropy

B, T, C, VOCAB, ROWS = 4, 33, 24, 131, 192


def case(seed: int = 0, masked: float = 0.3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, T, C, generator=generator)
    weight = torch.randn(ROWS, C, generator=generator)  # padded rows on purpose not zero
    targets = torch.randint(0, VOCAB, (B, T), generator=generator)
    targets[torch.rand(B, T, generator=generator) < masked] = -100
    targets[0, :] = -100  # a row with nothing to learn
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def reference(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy((hidden @ weight[:VOCAB].T).view(-1, VOCAB), targets.view(-1), reduction="sum")


@pytest.mark.parametrize("scale", [1.0, 1 / 77, 65536.0])
def test_loss_and_gradients_equal_cross_entropy_at_any_scale(scale: float) -> None:
    hidden, weight, targets = case()
    expected = reference(hidden, weight, targets)
    want = torch.autograd.grad(expected * scale, (hidden, weight))
    parts = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB, chunk=17)
    got = torch.autograd.grad(parts.nll_sum * scale, (hidden, weight))
    assert torch.allclose(parts.nll_sum, expected, rtol=1e-6)
    for ours, theirs in zip(got, want, strict=True):
        assert torch.allclose(ours / scale, theirs / scale, atol=1e-6 * (theirs / scale).abs().max().item(), rtol=1e-6)


def test_parts_count_each_row_and_each_valid_target() -> None:
    hidden, weight, targets = case()
    parts = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB)
    assert parts.count.item() == (targets != -100).sum().item() and parts.count.dtype == torch.int64
    rows = [reference(hidden[i], weight, targets[i]) for i in range(B)]
    assert torch.allclose(parts.row_nll, torch.stack(rows).detach(), rtol=1e-5)
    assert parts.row_nll[0] == 0 and not parts.row_nll.requires_grad


@pytest.mark.parametrize("chunk", [1, 7, 64, B * T, 10_000])
def test_chunk_size_never_matters(chunk: int) -> None:
    hidden, weight, targets = case(1)
    whole = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB, chunk=B * T)
    parts = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB, chunk=chunk)
    assert torch.allclose(parts.nll_sum, whole.nll_sum, rtol=1e-6)
    want = torch.autograd.grad(whole.nll_sum, (hidden, weight))
    got = torch.autograd.grad(parts.nll_sum, (hidden, weight))
    for ours, theirs in zip(got, want, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-6 * theirs.abs().max().item())


def test_padded_columns_neither_count_nor_learn() -> None:
    hidden, weight, targets = case()
    (gradient,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB).nll_sum, weight)
    assert not gradient[VOCAB:].any() and gradient[:VOCAB].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(dtype: torch.dtype) -> None:
    hidden, weight, targets = case()
    want = torch.autograd.grad(reference(hidden, weight, targets), (hidden, weight))
    with torch.autocast("cpu", dtype=dtype):
        parts = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB, chunk=50)
    got = torch.autograd.grad(parts.nll_sum, (hidden, weight))
    assert torch.allclose(parts.nll_sum, reference(hidden, weight, targets), rtol=2e-3)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 0.02


def test_float16_survives_a_target_repeated_in_every_position() -> None:
    """1024 equal targets add up to 1024 x the hidden state, more than float16 can hold from 64 on."""
    hidden = torch.full((1, 1024, 8), 100.0, requires_grad=True)
    weight = torch.zeros(64, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.float16):
        parts = linear_cross_entropy(hidden, weight, torch.full((1, 1024), 3), vocab_size=64)
    (gradient,) = torch.autograd.grad(parts.nll_sum, weight)
    assert gradient.isfinite().all() and gradient.min() < -65504


class Allocations(TorchDispatchMode):
    """The largest tensor any operation gives back, and the operations seen."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        self.products += "mm" in func.__name__ or func is torch.ops.mkldnn._linear_pointwise.default
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_of_a_batch_never_exist(dtype: torch.dtype) -> None:
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64, vocab_size=8000)
    module, idx = LossModule(GPT(config)), torch.zeros(64, 64, dtype=torch.int64)  # 4096 tokens
    with Allocations() as seen, torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        module(idx, idx).nll_sum.backward()
    chunk_of_logits = 1024 * 8000 * dtype.itemsize
    assert seen.largest == chunk_of_logits  # a quarter of the batch, in the dtype of the products


def test_without_gradients_none_are_computed() -> None:
    hidden, weight, targets = case()
    with torch.no_grad(), Allocations() as forward_only:
        quiet = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB)
    with Allocations() as both:
        parts = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB)
    assert forward_only.products == 1 and both.products == 3
    assert torch.equal(quiet.nll_sum, parts.nll_sum.detach()) and not quiet.nll_sum.requires_grad


def test_a_second_backward_is_an_error_and_not_a_wrong_gradient() -> None:
    hidden, weight, targets = case()
    parts = linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB)
    parts.nll_sum.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run forward again"):
        parts.nll_sum.backward()


def test_a_target_outside_the_vocabulary_is_an_error() -> None:
    hidden, weight, targets = case()
    targets[1, 1] = VOCAB  # a padded id
    with pytest.raises(RuntimeError):
        linear_cross_entropy(hidden, weight, targets, vocab_size=VOCAB)
