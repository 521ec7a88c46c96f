"""The network is GPT-2: its published sizes, its arithmetic, its initial state, and nothing of the future."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
import torch.nn.functional as F

from mygpt2.errors import UserError
from mygpt2.model import GPT, GPTConfig, LossModule

SMALL = GPTConfig(n_layer=2, n_head=4, n_embd=32, block_size=24, vocab_size=101)


def ids(config: GPTConfig, batch: int = 3, length: int | None = None, seed: int = 0) -> torch.Tensor:
    shape = (batch, length or config.block_size)
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        ({}, 124_439_808),
        ({"n_layer": 24, "n_head": 16, "n_embd": 1024}, 354_823_168),
        ({"n_layer": 36, "n_head": 20, "n_embd": 1280}, 774_030_080),
        ({"n_layer": 48, "n_head": 25, "n_embd": 1600}, 1_557_611_200),
        ({"block_size": 2048}, 125_226_240),
    ],
)
def test_parameter_counts_are_the_published_ones(shape: dict, published: int) -> None:
    model = GPT(GPTConfig(**shape), device="meta")
    assert model.num_parameters() == published
    assert model.padded_vocab == 50304


def test_there_is_no_second_copy_of_the_tied_matrix() -> None:
    model = GPT(SMALL)
    assert set(model.state_dict()) == set(dict(model.named_parameters()))
    assert not [name for name in model.state_dict() if "lm_head" in name]


def test_parameter_names_are_hugging_face_names_in_linear_orientation() -> None:
    shapes = {name: tuple(p.shape) for name, p in GPT(SMALL).named_parameters()}
    assert shapes["transformer.wte.weight"] == (128, 32)
    assert shapes["transformer.h.1.attn.c_attn.weight"] == (96, 32)
    assert shapes["transformer.h.1.mlp.c_fc.weight"] == (128, 32)
    assert shapes["transformer.h.1.mlp.c_proj.weight"] == (32, 128)
    assert {"transformer.wpe.weight", "transformer.ln_f.bias", "transformer.h.0.ln_1.weight"} <= set(shapes)


def test_without_biases_there_are_none_in_matrices_or_norms() -> None:
    names = [name for name, _ in GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, bias=False)).named_parameters()]
    assert not [name for name in names if name.endswith("bias")]


def test_initial_values_follow_gpt2() -> None:
    config = GPTConfig(n_layer=8, n_head=4, n_embd=128, block_size=128, vocab_size=1000)
    model = GPT(config, seed=3)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif p.dim() == 1:
            assert (p == 1).all()
        else:
            std = 0.02 / math.sqrt(16) if name.endswith("c_proj.weight") else 0.02
            real = p[:1000] if "wte" in name else p
            assert abs(real.std() / std - 1) < 0.03, name
            assert abs(real.mean()) < 5 * std / math.sqrt(real.numel()), name
    assert not model.wte[1000:].any()


def test_initial_weights_come_from_the_seed_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = GPT(SMALL, seed=1)
    torch.rand(7)
    b, c = GPT(SMALL, seed=1), GPT(SMALL, seed=2)
    d = GPT(SMALL, generator=torch.Generator().manual_seed(1))
    torch.set_rng_state(before)
    for p, q, r, s in zip(a.parameters(), b.parameters(), c.parameters(), d.parameters(), strict=True):
        assert torch.equal(p, q) and torch.equal(p, s)
        assert p.dim() == 1 or not torch.equal(p, r)
    GPT(SMALL, seed=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_first_loss_is_that_of_a_uniform_guess() -> None:
    config = GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=64, vocab_size=5003)
    parts = GPT(config).loss(ids(config, 4), ids(config, 4, seed=1))
    assert abs(parts.nll_sum.item() / parts.count.item() - math.log(5003)) < 0.05


def plain_gpt2(state: dict[str, torch.Tensor], config: GPTConfig, idx: torch.Tensor) -> torch.Tensor:
    """GPT-2 written out with elementary operations: the formulas of the paper's code, no shared code."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[name + ".weight"] + state[name + ".bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ state[name + ".weight"].T + state[name + ".bias"]

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    T, H = idx.shape[1], config.n_head
    x = state["transformer.wte.weight"][idx] + state["transformer.wpe.weight"][:T]
    for i in range(config.n_layer):
        h = f"transformer.h.{i}"
        q, k, v = linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").chunk(3, -1)
        heads = []
        for qh, kh, vh in zip(q.chunk(H, -1), k.chunk(H, -1), v.chunk(H, -1), strict=True):
            scores = qh @ kh.transpose(1, 2) / math.sqrt(qh.shape[-1])
            scores = scores + torch.full((T, T), float("-inf")).triu(1)
            heads.append(torch.softmax(scores, -1) @ vh)
        x = x + linear(torch.cat(heads, -1), f"{h}.attn.c_proj")
        x = x + linear(gelu(linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")), f"{h}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ state["transformer.wte.weight"][: config.vocab_size].T


def shaken(config: GPTConfig, seed: int = 0) -> GPT:
    """A model whose every parameter, biases and norms too, is away from its initial value."""
    model, generator = GPT(config, seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
        model.wte[config.vocab_size :] = 0.0
    return model


def test_logits_equal_a_plain_reference() -> None:
    model, idx = shaken(SMALL), ids(SMALL)
    expected = plain_gpt2(model.state_dict(), SMALL, idx)
    assert torch.allclose(model.logits(model(idx)), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_logits_equal_hugging_face() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model, idx = shaken(SMALL), ids(SMALL)
    theirs = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=4, n_embd=32, n_positions=24, vocab_size=101)).eval()
    state = {k: v.T if v.dim() == 2 and ".h." in k else v for k, v in model.state_dict().items()}
    state["transformer.wte.weight"] = state["transformer.wte.weight"][:101]
    theirs.load_state_dict(state, strict=False)
    assert torch.allclose(model.logits(model(idx)), theirs(idx).logits, atol=2e-5)


def test_no_position_sees_the_future() -> None:
    model, idx = shaken(SMALL), ids(SMALL, 2)
    base = model.logits(model(idx))
    for cut in range(1, SMALL.block_size):
        changed = idx.clone()
        changed[:, cut:] = (changed[:, cut:] + 1) % SMALL.vocab_size
        after = model.logits(model(changed))
        assert torch.allclose(after[:, :cut], base[:, :cut], atol=1e-6), cut
        assert not torch.allclose(after[:, cut], base[:, cut], atol=1e-3), cut


def test_rows_of_a_batch_do_not_meet() -> None:
    model, idx = shaken(SMALL), ids(SMALL)
    together = model(idx)
    alone = torch.cat([model(row[None]) for row in idx])
    assert torch.allclose(together, alone, atol=1e-5)


def test_padded_ids_have_no_logit_and_no_gradient() -> None:
    model, idx = shaken(SMALL), ids(SMALL)
    assert model.logits(model(idx)).shape == (3, 24, 101)
    model.loss(idx, ids(SMALL, seed=1)).nll_sum.backward()
    assert not model.wte.grad[101:].any()
    assert model.wte.grad[:101].any(1).all()


def test_two_models_of_different_shape_live_side_by_side() -> None:
    other = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=12, vocab_size=70, bias=False)
    a = shaken(SMALL)
    alone = a(ids(SMALL))
    b = GPT(other)
    b.loss(ids(other), ids(other, seed=1)).nll_sum.backward()
    assert torch.equal(a(ids(SMALL)), alone)
    assert b.logits(b(ids(other))).shape == (3, 12, 70)


def test_dropout_acts_in_training_and_only_there() -> None:
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=64, dropout=0.5)
    model, idx = shaken(config), ids(config)
    torch.manual_seed(0)
    assert not torch.allclose(model(idx), model(idx))
    model.eval()
    assert torch.equal(model(idx), model(idx))
    plain = shaken(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=64))
    assert torch.allclose(model(idx), plain(idx), atol=1e-6)


def test_rows_longer_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="25 positions do not fit a context of 24"):
        GPT(SMALL)(torch.zeros(1, 25, dtype=torch.int64))


def test_heads_that_do_not_divide_the_width_are_a_users_error() -> None:
    with pytest.raises(UserError, match="n_head=5 does not divide n_embd=768; nearest heads that do: 3, 4, 6"):
        GPTConfig(n_head=5)


def test_the_loss_module_is_the_models_loss() -> None:
    model, idx, goals = shaken(SMALL), ids(SMALL), ids(SMALL, seed=1)
    parts, same = LossModule(model)(idx, goals), model.loss(idx, goals)
    assert torch.equal(parts.nll_sum, same.nll_sum) and torch.equal(parts.row_nll, same.row_nll)
    assert parts.row_nll.shape == (3,) and not parts.row_nll.requires_grad
    assert math.isclose(parts.row_nll.sum().item(), parts.nll_sum.item(), rel_tol=1e-6)
    expected = F.cross_entropy(model.logits(model(idx)).transpose(1, 2), goals, reduction="sum")
    assert torch.allclose(parts.nll_sum, expected, rtol=1e-6)
