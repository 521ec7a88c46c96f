"""One objective however the work is divided: gradients, losses and the number of exchanges."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.utils._python_dispatch import TorchDispatchMode

from mygpt2.board import RankInfo
from mygpt2.config.schema import OptimizerConfig
from mygpt2.device import Precision
from mygpt2.distributed import World
from mygpt2.model import GPT, GPTConfig, LossModule
from mygpt2.train.optim import Optimizer
from mygpt2.train.parallel import SharedWeights, Weights
from mygpt2.train.step import Guard, NonFinite, TrainStep, count_targets, step_seed
from tests import forks

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=97)
SEQUENCES = 64
FP32 = Precision("fp32", "test")


def batch():
    """64 sequences with ragged masks: sequence i loses its last i % 13 targets, three lose all but one."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, SHAPE.vocab_size, (SEQUENCES, SHAPE.block_size + 1), generator=generator)
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    for row in range(SEQUENCES):
        keep = 1 if row in (5, 6, 40) else SHAPE.block_size - row % 13
        targets[row, keep:] = -100
    return inputs, targets


def make(world, micro_batch, *, guard=None, dropout=0.0, grad_clip=0.0):
    torch.manual_seed(123)  # must not matter
    model = GPT(GPTConfig(**{**vars(SHAPE), "dropout": dropout}), seed=7)
    optimizer = Optimizer(model, OptimizerConfig(lr=1e-3), torch.device("cpu"))
    module = world.wrap(LossModule(model))
    step = TrainStep(
        module, optimizer, world, FP32, guard or Guard("stop", 3),
        micro_batch=micro_batch, grad_clip=grad_clip, seed=3, dropout=dropout > 0,
    )  # fmt: skip
    return model, module, step


def gradients(world, micro_batch, count=None):
    """The exchanged gradient and the loss of one step on this rank's share of the batch."""
    model, module, step = make(world, micro_batch)
    if count is not None:

        def counting(state, bucket):
            count.append(bucket.index())
            return allreduce_hook(state, bucket)

        module.register_comm_hook(None, counting)
    seen = []
    step.optimizer.step = lambda: seen.append(torch.cat([p.grad.flatten() for p in model.parameters()]).clone())
    inputs, targets = batch()
    mine = slice(world.rank, None, world.size)
    result = step(0, inputs[mine], targets[mine], 1.0)
    return seen[0].numpy(), result.loss, result.row_losses


def rank_main(rank, size, port, micros, folder):
    torch.set_num_threads(1)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World(RankInfo(rank, size, rank, size), torch.device("cpu"), timeout_s=60, env=env)
    found = {}
    for micro in micros:
        count: list[int] = []
        grad, loss, _ = gradients(world, micro, count)
        found[f"grad{micro}"], found[f"loss{micro}"] = grad, np.float64(loss)
        found[f"buckets{micro}"], found[f"exchanges{micro}"] = np.int64(len(set(count))), np.int64(len(count))
    np.savez(f"{folder}/{size}-{rank}.npz", **found)
    world.close()
    assert not dist.is_initialized()


@pytest.fixture(scope="module")
def reference():
    inputs, targets = batch()
    model = GPT(SHAPE, seed=7).double()
    logits = model.logits(model(inputs))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    loss.backward()
    grad = torch.cat([p.grad.flatten() for p in model.parameters()]).numpy()
    return grad, float(loss.detach())


def same(grad, reference_grad):
    return np.abs(grad - reference_grad).max() / np.abs(reference_grad).max() <= 1e-6


@pytest.mark.parametrize("micro", [1, 4, 16, 64])
def test_one_rank_gives_the_reference_gradient_for_every_accumulation(reference, micro):
    grad, loss, _ = gradients(World(RankInfo(), torch.device("cpu"), timeout_s=1), micro)
    assert same(grad, reference[0]) and loss == pytest.approx(reference[1], abs=1e-6)


@pytest.mark.parametrize("size", [2, 4])
def test_many_ranks_give_the_reference_gradient_with_one_exchange_per_bucket(reference, size, tmp_path):
    micros = [1, 4, 8, 16]
    port = forks.free_port()
    ranks = [
        forks.Forked(rank_main, rank, size, port, micros, str(tmp_path), out=tmp_path / str(rank))
        for rank in range(size)
    ]
    assert forks.ends(ranks) == [0] * size, ranks[0].said()
    for rank in range(size):
        found = np.load(tmp_path / f"{size}-{rank}.npz")
        for micro in micros:
            assert same(found[f"grad{micro}"], reference[0])
            assert float(found[f"loss{micro}"]) == pytest.approx(reference[1], abs=1e-6)
            assert found[f"exchanges{micro}"] == found[f"buckets{micro}"] >= 1


def test_row_losses_are_means_over_each_rows_valid_targets():
    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    _, _, rows = gradients(world, 16)
    inputs, targets = batch()
    model = GPT(SHAPE, seed=7)
    with torch.no_grad():
        logits = model.logits(model(inputs))
        nll = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none"
        ).view(SEQUENCES, -1)
    expected = nll.sum(1) / (targets != -100).sum(1)
    np.testing.assert_allclose(rows, expected.numpy(), rtol=1e-5)


def test_clipping_bounds_the_norm_of_the_whole_gradient():
    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    model, _, step = make(world, 16, grad_clip=1e-3)
    seen = []
    step.optimizer.step = lambda: seen.append(
        math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
    )
    result = step(0, *batch(), 1.0)
    assert result.grad_norm > 1e-2 and seen[0] == pytest.approx(1e-3, rel=1e-5)


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_a_nan_weight_gradient_never_changes_the_weights(mode):
    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    model, _, step = make(world, 16, guard=Guard(mode, 3))
    model.transformer.h[0].mlp.c_fc.weight.register_hook(lambda g: g * math.nan)
    before = [p.clone() for p in model.parameters()]
    if mode == "stop":
        with pytest.raises(NonFinite):
            step(0, *batch(), 1.0)
    else:
        assert not step(0, *batch(), 1.0).applied
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_dropout_is_a_function_of_seed_step_and_rank():
    assert len({step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}) == 600
    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    losses = []
    for junk in (0, 1):
        _, _, step = make(world, 16, dropout=0.2)
        torch.manual_seed(junk)
        losses.append([step(s, *batch(), 0.0).loss for s in (4, 5)])
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]


def test_an_overflowing_float16_gradient_is_skipped_and_halves_the_loss_scale():
    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    model, _, plain = make(world, 16)
    step = TrainStep(
        plain.loss_module, plain.optimizer, world, Precision("fp16", "test"), Guard("stop", 3, scaled=True),
        micro_batch=16, grad_clip=1.0, seed=3, dropout=False,
    )  # fmt: skip
    scale = step.scaler.get_scale()
    handle = model.transformer.h[0].mlp.c_fc.weight.register_hook(lambda g: g * math.inf)
    before = [p.clone() for p in model.parameters()]
    assert not step(0, *batch(), 1.0).applied
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert step.scaler.get_scale() == scale / 2
    handle.remove()
    result = step(1, *batch(), 1.0)
    assert result.applied and math.isfinite(result.grad_norm)
    again = torch.amp.GradScaler("cpu")
    again.load_state_dict(step.scaler.state_dict())
    assert again.get_scale() == scale / 2


def test_evaluating_after_a_compiled_step_compiles_nothing():
    from torch._dynamo.utils import counters

    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    model = GPT(SHAPE, seed=7)
    optimizer = Optimizer(model, OptimizerConfig(), torch.device("cpu"))
    module = LossModule(model, compile=True)
    step = TrainStep(module, optimizer, world, FP32, Guard("stop", 1), micro_batch=32, grad_clip=1.0, seed=0,
                     dropout=False)  # fmt: skip
    inputs, targets = batch()
    step(0, inputs, targets, 1.0)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    step(1, inputs, targets, 1.0)
    with torch.no_grad():
        for rows in (1, 5, 64):
            model.loss(inputs[:rows], targets[:rows])
    assert counters["stats"]["unique_graphs"] == compiled


def test_the_host_waits_once_for_the_numbers_of_a_step():
    """On a GPU each wait is a gap in its work; `_local_scalar_dense` is what reads one number from a device."""

    class Waits(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten._local_scalar_dense.default
            return function(*args, **(kwargs or {}))

    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    _, _, step = make(world, 16, grad_clip=0.1)
    inputs, targets = batch()
    copies, on_host = [], step._on_host
    step._on_host = lambda *parts: copies.append(1) or on_host(*parts)
    counted = count_targets(targets.numpy(), world)
    plain = make(world, 16, grad_clip=0.1)[2](0, inputs, targets, 1.0)
    with Waits() as waits:
        result = step(0, inputs, targets, 1.0, counted)
    assert (waits.count, len(copies)) == (0, 1)
    assert (result.loss, result.grad_norm) == (plain.loss, plain.grad_norm) and result.grad_norm > 0.1


def graphs(rank, size, port, folder, way):
    """Counts what a compiler is given of a model under DDP with blocks larger than a bucket, or of a shared one."""
    pieces = []
    torch.set_num_threads(1)
    compile = torch.compile
    torch.compile = lambda function, dynamic: compile(
        function, backend=lambda graph, _: pieces.append(graph) or graph.forward, dynamic=dynamic
    )
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World(RankInfo(rank, size, rank, size), torch.device("cpu"), timeout_s=60, env=env)
    shape = GPTConfig(n_layer=3, n_head=2, n_embd=256, block_size=16, vocab_size=97)
    if way == "ddp":
        weights = Weights(GPT(shape, seed=7))
        module = world.wrap(LossModule(weights.model, compile=True))
    else:
        weights = SharedWeights(shape, world, 1, True, None, lambda: GPT(shape, seed=7))
        module = weights.module
    optimizer = Optimizer(weights.model, OptimizerConfig(lr=1e-3), torch.device("cpu"))
    step = TrainStep(module, optimizer, world, FP32, Guard("stop", 1), micro_batch=4, grad_clip=1.0, seed=0,
                     dropout=False)  # fmt: skip
    inputs, targets = batch()
    for number in range(2):
        step(number, inputs[:8], targets[:8], 1.0)
    np.savez(f"{folder}/{rank}.npz", pieces=len(pieces))
    world.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_ddp_leaves_a_compiled_block_in_one_piece(way, tmp_path):
    port = forks.free_port()
    ranks = [forks.Forked(graphs, rank, 2, port, str(tmp_path), way, out=tmp_path / str(rank)) for rank in range(2)]
    assert forks.ends(ranks) == [0, 0], ranks[0].said()
    for rank in range(2):
        assert np.load(tmp_path / f"{rank}.npz")["pieces"] == 2, "one for all blocks, one for the loss"


def test_a_bfloat16_residual_gives_nearly_the_same_loss_and_gradient():
    inputs, targets = batch()
    found = []
    for residual in (None, torch.bfloat16):
        model = GPT(SHAPE, seed=7)
        seen = []
        model.transformer.h[0].register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            parts = LossModule(model, residual=residual)(inputs, targets)
        parts.nll_sum.backward()
        assert seen == [residual or torch.float32]
        found.append((float(parts.nll_sum.detach() / parts.count), model.wte.grad))
    (loss, gradient), (other, likewise) = found
    assert other == pytest.approx(loss, abs=2e-3)
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), likewise.flatten(), dim=0) > 0.99
