"""Optimizers: every parameter in one group, decay where it belongs, state that comes back bit for bit."""

from typing import get_args

import pytest
import torch

from mygpt2.config.schema import OptimizerConfig
from mygpt2.errors import UserError
from mygpt2.model import GPT, GPTConfig
from mygpt2.train.optim import Optimizer

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=50)
CPU = torch.device("cpu")
NAMES = get_args(OptimizerConfig.model_fields["name"].annotation)


def stepped(name, steps, model=None, optimizer=None, first=0):
    model = model or GPT(SHAPE, seed=1)
    optimizer = optimizer or Optimizer(model, OptimizerConfig(name=name), CPU)
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for p in optimizer.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_exactly_one_group(name):
    model = GPT(SHAPE)
    optimizer = Optimizer(model, OptimizerConfig(name=name), CPU)
    grouped = [p for part in optimizer.parts for g in part.param_groups for p in g["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_norms_and_biases_never_decay(name):
    optimizer = Optimizer(GPT(SHAPE), OptimizerConfig(name=name), CPU)
    for part in optimizer.parts:
        for group in part.param_groups:
            assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])


def test_muon_gets_the_block_matrices_and_nothing_else():
    optimizer = Optimizer(GPT(SHAPE), OptimizerConfig(name="muon"), CPU)
    names = {optimizer.names[p] for g in optimizer.parts[1].param_groups for p in g["params"]}
    assert len(names) == 4 * SHAPE.n_layer
    assert all(".h." in n and n.endswith("weight") and "ln_" not in n for n in names)


@pytest.mark.parametrize("name", NAMES)
def test_state_restored_in_the_middle_gives_the_same_weights_bit_for_bit(name):
    whole, _ = stepped(name, 6)
    half, optimizer = stepped(name, 3)
    saved = {k: v.clone() for k, v in optimizer.state_tensors().items()}
    other = GPT(SHAPE, seed=9)
    other.load_state_dict(half.state_dict())
    fresh = Optimizer(other, OptimizerConfig(name=name), CPU)
    fresh.load_state_tensors(saved)
    stepped(name, 3, other, fresh, first=3)
    for a, b in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rate_comes_from_the_schedule_and_not_from_the_checkpoint():
    _, optimizer = stepped("muon", 1)
    optimizer.set_share(0.25)
    rates = [g["lr"] for part in optimizer.parts for g in part.param_groups]
    assert rates == [6e-4 / 4, 6e-4 / 4, 0.02 / 4]
    assert not any("lr" in key for key in optimizer.state_tensors())


def test_state_of_another_optimizer_or_shape_is_refused_before_anything_changes():
    _, muon = stepped("muon", 1)
    adamw = Optimizer(GPT(SHAPE), OptimizerConfig(name="adamw"), CPU)
    with pytest.raises(UserError, match=r"optimizer\.name"):
        adamw.load_state_tensors(muon.state_tensors())
    wide = Optimizer(
        GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=8, vocab_size=50)), OptimizerConfig(), CPU
    )
    _, narrow = stepped("adamw", 1)
    with pytest.raises(UserError, match="shape"):
        wide.load_state_tensors(narrow.state_tensors())
    assert adamw.state_tensors() == {} and wide.state_tensors() == {}
