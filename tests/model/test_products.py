"""A linear layer's products give the same by either library, forward and backward, plain and traced."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mygpt2.model import GPT, GPTConfig, products
from mygpt2.model.products import Linear, _linear, rows_times_rows

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch has no oneDNN product"
)


def tensors(bias: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 5, 12), (7, 12)] + ([(7,)] if bias else [])
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_equal_the_plain_layers(bias: bool) -> None:
    ours, plain = tensors(bias), tensors(bias)
    weights = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
    out, expected = _linear(*ours, *([] if bias else [None])), F.linear(*plain)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(out, expected)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_transposed_views_are_multiplied_as_they_stand() -> None:
    a, b = torch.randn(6, 9), torch.randn(9, 4)
    torch.testing.assert_close(rows_times_rows(a, b.t()), a @ b)
    torch.testing.assert_close(rows_times_rows(b.t(), a), (a @ b).t())


def test_the_operator_keeps_pytorchs_rules_for_operators() -> None:
    torch.library.opcheck(_linear, tuple(tensors(True)))


@pytest.mark.parametrize("amd", [True, False])
def test_training_uses_it_on_amd_in_float32_only(monkeypatch: pytest.MonkeyPatch, amd: bool) -> None:
    calls = []
    plain = products._linear
    monkeypatch.setattr(products, "ON_AMD", amd)
    monkeypatch.setattr(products, "_linear", lambda *args: (calls.append(1), plain(*args))[1])
    layer, x = Linear(8, 8), torch.randn(3, 8, requires_grad=True)
    layer(x)
    assert len(calls) == int(amd)
    with torch.no_grad():
        layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    Linear(8, 8).double()(x.double())
    assert len(calls) == int(amd)


def test_a_models_loss_and_gradient_are_the_same_by_both_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    found = []
    for amd in (True, False):
        monkeypatch.setattr(products, "ON_AMD", amd)
        model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=50), seed=1)
        loss = model.loss(ids[:, :-1], ids[:, 1:]).nll_sum
        loss.backward()
        found.append((loss.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(found[0], found[1])
