"""Muon: torch's update, however the work is divided, in the arithmetic that the processor has."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mygpt2 import device as precision
from mygpt2 import distributed
from mygpt2.board import RankInfo
from mygpt2.config.schema import OptimizerConfig
from mygpt2.distributed import World
from mygpt2.model import GPT, GPTConfig
from mygpt2.train import muon, optim
from mygpt2.train.muon import Muon, deal, orthogonalise, piles
from mygpt2.train.optim import Optimizer
from tests import forks

SHAPE = GPTConfig(n_layer=3, n_head=2, n_embd=16, block_size=8, vocab_size=50)
SETTINGS = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.2}
CPU = torch.device("cpu")


def matrices(seed=0, layers=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(24, 8), (8, 8), (32, 8), (8, 32)] * layers
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(parameters, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


def after(parameters, optimizer, steps=4):
    """The parameters after some steps at a rate that changes, as a schedule's does."""
    for step in range(steps):
        give_gradients(parameters, step)
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS["lr"] * (1 - 0.2 * step)
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def apart(ours, theirs):
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))


def test_in_bfloat16_it_is_no_farther_from_the_exact_update_than_torchs():
    ours, theirs, exact = matrices(), matrices(), matrices()
    got = after(ours, Muon(ours, dtype=torch.bfloat16, **SETTINGS))
    want = after(theirs, torch.optim.Muon(theirs, **SETTINGS))
    true = after(exact, Muon(exact, **SETTINGS))
    moved = apart(true, [p.detach() for p in matrices()])
    assert apart(got, true) < 1.3 * apart(want, true) < 0.1 * moved


def test_in_float32_it_is_torchs_formula_to_the_rounding_of_float32(monkeypatch):
    from torch.optim import _muon as theirs_module

    plain = theirs_module._zeropower_via_newtonschulz

    class Wide(torch.Tensor):
        """A tensor whose `bfloat16()` stays float32, so that torch's own code runs in float32."""

        def bfloat16(self):
            return self.as_subclass(torch.Tensor).clone()

    monkeypatch.setattr(
        theirs_module, "_zeropower_via_newtonschulz", lambda grad, *rest: plain(grad.as_subclass(Wide), *rest)
    )
    ours, theirs = matrices(), matrices()
    got = after(ours, Muon(ours, **SETTINGS))
    want = after(theirs, torch.optim.Muon(theirs, **SETTINGS))
    assert apart(got, want) < 2e-6


def test_singular_values_come_near_one_whatever_the_shape():
    for p in matrices():
        x = p.detach() / p.detach().norm()
        x = x.mT if x.shape[0] > x.shape[1] else x
        values = torch.linalg.svdvals(orthogonalise(x[None].contiguous())[0])
        assert float(values.min()) > 0.5 and float(values.max()) < 1.3


class Ranks:
    """Ranks as threads of this process, and the exchange between them."""

    def __init__(self, size):
        self.sent, self.all_here, self.exchanges = [None] * size, threading.Barrier(size, timeout=60), [0] * size

    def gather(self, rank, everyones, mine):
        self.sent[rank] = mine
        self.exchanges[rank] += 1
        self.all_here.wait()
        everyones.copy_(torch.cat(self.sent))
        self.all_here.wait()


@pytest.mark.parametrize("size", [2, 3, 5, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dealt_among_ranks_gives_exactly_the_weights_of_one_with_one_exchange_per_step(size, dtype):
    alone, ranks = matrices(), Ranks(size)
    want = after(alone, Muon(alone, dtype=dtype, **SETTINGS))

    def one(rank):
        mine = matrices()
        dealt = Muon(mine, dtype=dtype, rank=rank, size=size, gather=partial(ranks.gather, rank), **SETTINGS)
        return after(mine, dealt)

    with ThreadPoolExecutor(size) as pool:
        for got in pool.map(one, range(size)):
            assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
    assert ranks.exchanges == [4] * size


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_matrix_is_dealt_once_and_evenly(size):
    model = GPT(GPTConfig(n_layer=12, n_head=2, n_embd=16, block_size=8, vocab_size=50), device="meta")
    mine = [p for n, p in model.named_parameters() if optim.is_block_matrix(n, p)]
    shares = deal(piles(mine), size)
    assert sorted(id(p) for share in shares for pile in share for p in pile) == sorted(map(id, mine))
    load = [sum(muon._work(pile) for pile in share) for share in shares]
    assert max(load) <= 1.25 * sum(load) / size


def test_piles_do_not_depend_on_the_number_of_ranks():
    mine = matrices(layers=20)
    every = {tuple(map(id, pile)) for pile in piles(mine)}
    for size in (1, 2, 7):
        assert {tuple(map(id, pile)) for share in deal(piles(mine), size) for pile in share} == every


def test_state_of_torchs_muon_is_taken_over():
    """Checkpoints written before hold `<matrix>/momentum_buffer`."""
    model, optimizer = GPT(SHAPE, seed=1), None
    theirs = torch.optim.Muon([p for n, p in model.named_parameters() if optim.is_block_matrix(n, p)], **SETTINGS)
    give_gradients(list(model.parameters()), 0)
    theirs.step()
    names = {p: n for n, p in model.named_parameters()}
    saved = {f"{names[p]}/{key}": value for p, state in theirs.state.items() for key, value in state.items()}
    optimizer = Optimizer(model, OptimizerConfig(name="muon"), CPU)
    optimizer.load_state_tensors(saved)
    assert saved and all(torch.equal(optimizer.state_tensors()[key], value) for key, value in saved.items())


@pytest.mark.parametrize(("unit", "dtype"), [("AMX", torch.bfloat16), (None, torch.float32)])
def test_bfloat16_is_used_only_where_the_processor_multiplies_it(monkeypatch, unit, dtype):
    monkeypatch.setattr(precision, "cpu_bf16_unit", lambda: unit)
    assert Optimizer(GPT(SHAPE), OptimizerConfig(name="muon"), CPU).parts[1].dtype == dtype


@pytest.mark.parametrize(("given", "decay"), [(None, 0.3), (0.01, 0.01), (0.0, 0.0)])
def test_muons_decay_is_weight_decay_unless_it_has_its_own(given, decay):
    config = OptimizerConfig(name="muon", weight_decay=0.3, muon_weight_decay=given)
    parts = Optimizer(GPT(SHAPE), config, CPU).parts
    assert parts[1].param_groups[0]["weight_decay"] == decay and parts[0].param_groups[0]["weight_decay"] == 0.3


def rank_main(rank, port, folder):
    torch.set_num_threads(1)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World(RankInfo(rank, 2, rank, 2), CPU, timeout_s=60, env=env)
    count, plain = 0, distributed.all_gather_single

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return plain(*args, **kwargs)

    distributed.all_gather_single = counted  # in this process of its own
    model = GPT(SHAPE, seed=1)
    optimizer = Optimizer(model, OptimizerConfig(name="muon"), CPU, world)
    for step in range(3):
        give_gradients(list(model.parameters()), step)
        optimizer.step()
    np.savez(f"{folder}/{rank}.npz", *[p.detach().numpy() for p in model.parameters()], count=count)
    world.close()


def test_two_real_ranks_have_the_weights_of_one_after_one_exchange_per_step(tmp_path):
    port = forks.free_port()
    ranks = [forks.Forked(rank_main, rank, port, str(tmp_path), out=tmp_path / str(rank)) for rank in (0, 1)]
    assert forks.ends(ranks) == [0, 0], ranks[0].said()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = GPT(SHAPE, seed=1)
    optimizer = Optimizer(model, OptimizerConfig(name="muon"), CPU)
    for step in range(3):
        give_gradients(list(model.parameters()), step)
        optimizer.step()
    torch.set_num_threads(threads)
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        assert int(found["count"]) == 3
        for i, p in enumerate(model.parameters()):
            assert np.array_equal(found[f"arr_{i}"], p.detach().numpy())
