"""Every way of computing attention gives the same attention."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing

from mygpt2.model import GPT, GPTConfig, LossModule
from mygpt2.model.attention import LONGEST, _forward, blocked_attention, blocks_pay, causal_attention
from mygpt2.model.gpt import Block, tanh_gelu


def parts(qkv: torch.Tensor, n_head: int) -> tuple[torch.Tensor, ...]:
    B, T, width = qkv.shape
    return qkv.view(B, T, 3, n_head, width // 3 // n_head).permute(2, 0, 3, 1, 4).unbind(0)


def plain(qkv: torch.Tensor, n_head: int) -> torch.Tensor:
    """softmax(q k / sqrt(hs)) v below the diagonal, with T x T matrices."""
    q, k, v = parts(qkv, n_head)
    T = qkv.shape[1]
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    scores = scores + torch.full((T, T), float("-inf")).triu(1)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


# one block; blocks and heads that divide nothing; several groups of rows; heads of one row in several groups
SHAPES = [(3, 2, 5, 8), (2, 3, 130, 6), (9, 4, 256, 4), (2, 25, 256, 4)]


@pytest.mark.parametrize(("B", "n_head", "T", "hs"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)])
def test_blocked_attention_and_its_gradient_equal_the_plain_formula(
    B: int, n_head: int, T: int, hs: int, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, 3 * n_head * hs, generator=generator).to(dtype)
    grad = torch.randn(B, T, n_head * hs, generator=generator).to(dtype)
    ours, exact = qkv.clone().requires_grad_(), qkv.float().requires_grad_()
    out, expected = blocked_attention(ours, n_head), plain(exact, n_head)
    out.backward(grad)
    expected.backward(grad.float())
    for got, want in ((out, expected), (ours.grad, exact.grad)):
        assert got.dtype == dtype
        assert (got.float() - want).norm() / want.norm() < tolerance


def test_blocked_attention_keeps_float32_scores_under_autocast() -> None:
    """bfloat16 rounds a score of 60 by up to 0.125, and the weight it decides by 13 %."""
    qkv = torch.randn(2, 64, 3 * 32, generator=torch.Generator().manual_seed(0)) * 6
    expected = plain(qkv.bfloat16().float(), 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = blocked_attention(qkv.bfloat16(), 2)
    assert (out.float() - expected).norm() / expected.norm() < 6e-3


@pytest.mark.parametrize("T", [1, 3, 16])
def test_queries_that_continue_a_row_see_all_before_them_and_nothing_after(T: int) -> None:
    qkv = torch.randn(2, 16, 3 * 32, generator=torch.Generator().manual_seed(0))
    q, k, v = parts(qkv, 4)
    out = causal_attention(q[:, :, 16 - T :], k, v).transpose(1, 2).flatten(2)
    assert torch.allclose(out, plain(qkv, 4)[:, 16 - T :], atol=1e-5)


def test_blocks_are_for_training_short_rows_on_a_cpu_without_dropout() -> None:
    qkv = torch.zeros(1, LONGEST, 24, requires_grad=True)
    assert blocks_pay(qkv, 0.0) and blocks_pay(qkv.bfloat16(), 0.0)
    assert not blocks_pay(qkv, 0.1) and not blocks_pay(qkv.detach(), 0.0) and not blocks_pay(qkv.half(), 0.0)
    assert not blocks_pay(torch.zeros(1, LONGEST + 1, 24, requires_grad=True), 0.0)
    assert not blocks_pay(torch.zeros(1, 8, 24, device="meta", requires_grad=True), 0.0)


def test_training_and_evaluation_compute_the_same_loss() -> None:
    """With gradients the blocks run, without them PyTorch's kernel does."""
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=200, vocab_size=99)
    module = LossModule(GPT(config, seed=3))
    idx = torch.randint(0, 99, (3, 200), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        quiet = module(idx, idx)
    assert torch.allclose(module(idx, idx).nll_sum, quiet.nll_sum, rtol=1e-6)


def test_the_operator_keeps_pytorchs_rules_for_operators() -> None:
    """Its shapes without data, its gradient's registration, no aliasing: what a compiler relies on."""
    qkv = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.library.opcheck(_forward, (qkv, 2))


def test_a_traced_block_serves_every_layer_and_changes_nothing() -> None:
    """Traced as for compilation, without the compiler behind it; one trace for three layers."""
    config = GPTConfig(n_layer=3, n_head=2, n_embd=32, block_size=40, vocab_size=99)
    plain_module, traced_module = LossModule(GPT(config, seed=3)), LossModule(GPT(config, seed=3))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    traced_module._run_block = torch.compile(Block.plain, backend=counter, dynamic=False)
    idx = torch.randint(0, 99, (2, 40), generator=torch.Generator().manual_seed(0))
    losses = []
    for module in (plain_module, traced_module):
        parts = module(idx, idx)
        parts.nll_sum.backward()
        losses.append(parts.nll_sum)
    assert torch.allclose(*losses, rtol=1e-6) and counter.frame_count == 1
    for p, q in zip(plain_module.parameters(), traced_module.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-4 * p.grad.abs().max().item())
    assert set(plain_module.state_dict()) == set(traced_module.state_dict())


def test_both_spellings_of_gelu_are_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-12, 12, 1001)
    exact = torch.nn.functional.gelu(x.double(), approximate="tanh").float()
    assert torch.allclose(tanh_gelu(x), exact, atol=1e-6)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.allclose(tanh_gelu(x), exact, atol=1e-6)
