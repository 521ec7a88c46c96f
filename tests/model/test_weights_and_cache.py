"""Weights travel by name without padding; a cache changes the cost of a pass and not its result."""

from __future__ import annotations

import pytest
import torch

from mygpt2.errors import UserError
from mygpt2.model import GPT, GPTConfig, load_state, state_for_checkpoint

CONFIG = GPTConfig(n_layer=3, n_head=2, n_embd=32, block_size=20, vocab_size=75)


def ids(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 75, (batch, length), generator=torch.Generator().manual_seed(0))


def test_weights_round_trip_without_padding_and_with_the_tied_matrix_once() -> None:
    a, b = GPT(CONFIG, seed=1), GPT(CONFIG, seed=2)
    tensors = {name: t.clone() for name, t in state_for_checkpoint(a).items()}
    assert tensors["transformer.wte.weight"].shape == (75, 32)
    assert sum(t.numel() for t in tensors.values()) == a.num_parameters()
    with torch.no_grad():
        b.wte[75:] = 1.0
    load_state(b, tensors)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_weights_of_another_precision_are_converted() -> None:
    a, b = GPT(CONFIG, seed=1), GPT(CONFIG, seed=2)
    load_state(b, {name: t.bfloat16() for name, t in state_for_checkpoint(a).items()})
    assert b.wte.dtype == torch.float32 and torch.allclose(a.wte, b.wte, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer.wpe.weight": None}, "missing transformer.wpe.weight"),
        ({"lm_head.weight": torch.zeros(1)}, "unexpected lm_head.weight"),
        ({"transformer.ln_f.bias": torch.zeros(3)}, r"transformer.ln_f.bias is \[3\], the model's is \[32\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(change: dict, message: str) -> None:
    tensors = {**state_for_checkpoint(GPT(CONFIG, seed=1)), **change}
    tensors = {name: t for name, t in tensors.items() if t is not None}
    model, untouched = GPT(CONFIG, seed=2), GPT(CONFIG, seed=2)
    with pytest.raises(UserError, match=message):
        load_state(model, tensors)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), untouched.parameters(), strict=True))


@torch.no_grad()
@pytest.mark.parametrize("steps", [[1] * 20, [7, 1, 1, 5, 6], [20]])
@pytest.mark.parametrize("few_sizes", [False, True])
def test_cached_hidden_states_equal_a_full_pass_however_the_tokens_arrive(steps: list[int], few_sizes: bool) -> None:
    model, idx = GPT(CONFIG, seed=4), ids(20)
    cache, parts, start = model.kv_cache(2, few_sizes=few_sizes), [], 0
    for n in steps:
        parts.append(model(idx[:, start : start + n], cache, [start, start]))
        start += n
    assert torch.allclose(model.logits(torch.cat(parts, 1)), model.logits(model(idx)), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 5])
def test_rows_of_different_lengths_go_on_together_and_again_from_an_earlier_place(count: int) -> None:
    model, idx, lengths = GPT(CONFIG, seed=4), ids(20, batch=3), [3, 12, 7]
    cache = model.kv_cache(3)
    for row, length in enumerate(lengths):
        model(idx[row : row + 1, :length], cache.row(row))
    for starts in (lengths, [2, 5, 7]):
        new = torch.stack([row[start : start + count] for row, start in zip(idx, starts, strict=True)])
        got = model(new, cache, starts)
        for row, start in enumerate(starts):
            wanted = model(idx[row : row + 1, : start + count])[0, start:]
            assert torch.allclose(got[row], wanted, atol=1e-5)


def test_a_full_cache_is_an_error() -> None:
    model = GPT(CONFIG)
    with pytest.raises(ValueError, match="5 positions do not fit a cache of 4"):
        model(ids(5), model.kv_cache(2, 4))
