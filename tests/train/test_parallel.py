"""Ranks that share one model (FSDP2): the same losses, the same files, and the same ends as with whole models."""

from __future__ import annotations

import json
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from mygpt2.board import RankInfo
from mygpt2.checkpoint import FileSystem, load, verify, write
from mygpt2.checkpoint.format import MODEL, OPTIMIZER, tensor_files
from mygpt2.checkpoint.together import Meeting
from mygpt2.config import load_config
from mygpt2.config.schema import OptimizerConfig
from mygpt2.data.trace import read_trace, trace_files
from mygpt2.distributed import World, dealt_rows, gathered, local, make_mesh
from mygpt2.errors import UserError
from mygpt2.model import GPT, GPTConfig, LossModule
from mygpt2.planning.figures import Figure
from mygpt2.planning.host import all_ranks, host_parts
from mygpt2.planning.memory import rank_memory
from mygpt2.planning.parallel import in_parts, parallel_choice
from mygpt2.train.optim import Optimizer
from mygpt2.train.parallel import SharedWeights, Weights, shard
from mygpt2.train.step import Guard, TrainStep, count_targets
from tests import forks
from tests.life import harness
from tests.train.test_step import FP32, SHAPE, batch

STEPS = 20
WAYS = {"alone": (1, "auto"), "ddp": (2, "ddp"), "fsdp2": (2, "fsdp2")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, and the same run trained by one rank, by two with whole models, by two that share one."""
    folder = tmp_path_factory.mktemp("parallel")
    values = harness.settings(harness.corpus(folder / "corpus", files=1), folder / "cache") | {
        "model.n_layer": 2, "model.n_embd": 32, "model.dropout": 0.0, "optimizer.name": "adamw", "optimizer.lr": 3e-3,
        "train.steps": STEPS, "schedule.name": "cosine", "schedule.warmup_steps": 2, "eval.interval": 10,
        "eval.yardstick": "off", "sample.interval": 10, "sample.prompts": '["lo"]', "sample.temperature": 0,
        "checkpoint.interval": 10,
    }  # fmt: skip
    for name in WAYS:
        trained(values, folder, name, name)
    return values, folder


def trained(values, folder, way, name):
    """The exit codes of all ranks were good."""
    size, parallel = WAYS[way]
    words = harness.command({**values, "train.parallel": parallel}, folder / "runs", name)
    ranks = forks.start(words, folder / name, size=size)
    assert forks.ends(ranks) == [0] * size, ranks[0].said()[-3000:]
    return folder / "runs" / name


def records(run, file, *names):
    lines = [json.loads(line) for line in (run / file).read_text().splitlines()]
    return [tuple(line[name] for name in names) for line in lines if all(name in line for name in names)]


def alike(found, expected):
    """Names, shapes and dtypes, and values but for what rounding decides: keys' biases have no gradient but noise."""
    assert {key: (t.shape, t.dtype) for key, t in found.items()} == {
        key: (t.shape, t.dtype) for key, t in expected.items()
    }
    for key, tensor in found.items():
        other = expected[key].detach().double()
        assert "c_attn.bias" in key or (tensor.double() - other).norm() <= 1e-4 * other.norm(), key


def same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys() and found
    assert max(abs(found[step] - expected[step]) for step in found) <= tolerance


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_shared_or_whole_the_losses_the_validations_and_the_samples_are_those_of_one_process(place, way):
    _, folder = place
    one, run = folder / "runs" / "alone", folder / "runs" / way
    same(harness.losses(run), harness.losses(one))
    measured = [dict(records(each, "events.jsonl", "step", "loss")) for each in (run, one)]
    assert set(measured[0]) == {10, 20}
    same(*measured)
    texts = [records(each, "samples.jsonl", "step", "text") for each in (run, one)]
    assert texts[0] == texts[1] and len(texts[0]) == 2
    read = [read_trace(each).drop_columns("loss") for each in (run, one)]
    assert read[0] == read[1] and read[0].num_rows == STEPS * 8
    assert {file.path.name[:23] for file in trace_files(run)} == {"attempt-0001-node-0000-"}


@pytest.mark.parametrize(
    ("before", "after"), [("fsdp2", "ddp"), ("ddp", "fsdp2"), ("fsdp2", "alone"), ("alone", "fsdp2")]
)
def test_a_checkpoint_of_one_kind_is_gone_on_from_by_another(place, before, after):
    values, folder = place
    name = f"{before}-{after}"
    shutil.copytree(folder / "runs" / before, folder / "runs" / name)
    shutil.rmtree(folder / "runs" / name / "checkpoints" / "step-00000020")
    run = trained(values, folder, after, name)
    again = {step: loss for step, attempt, loss in records(run, "metrics.jsonl", "step", "attempt", "loss")
             if attempt == 2}  # fmt: skip
    assert set(again) == set(range(11, STEPS + 1))
    same(again, {step: loss for step, loss in harness.losses(folder / "runs" / "alone").items() if step in again})


def test_the_files_of_a_checkpoint_do_not_show_who_wrote_it(place):
    _, folder = place
    at = [folder / "runs" / way / "checkpoints" / "step-00000010" for way in WAYS]
    assert [verify(path) for path in at] == [[], [], []]
    assert len({(path / MODEL).stat().st_size for path in at}) == 1
    assert len({(path / OPTIMIZER).stat().st_size for path in at}) == 1
    one, shared = load(at[0]), load(at[2])
    for kind in ("model", "optimizer"):
        alike(getattr(shared, kind), getattr(one, kind))


def test_a_stop_by_sigterm_saves_what_is_shared_and_one_process_goes_on_from_there(place):
    values, folder = place
    words = harness.command({**values, "train.steps": 5000, "train.parallel": "fsdp2"}, folder / "runs", "stopped")
    ranks, run = forks.start(words, folder / "stopped"), folder / "runs" / "stopped"
    try:
        assert harness.wait_for(lambda: harness.last_step(run) >= 4, ranks[0])
        ranks[1].send_signal(signal.SIGTERM)
        assert forks.ends(ranks) == [85, 85], ranks[0].said()[-3000:]
    finally:
        for rank in ranks:
            rank.kill()
    last = harness.last_step(run)
    assert verify(run / "checkpoints" / f"step-{last:08d}") == []
    trained({**values, "train.steps": last + 2}, folder, "alone", "stopped")
    assert harness.last_step(run) == last + 2


class Calls(TorchDispatchMode):
    """Counts what brings a number from a device to the host, and exchanges of gradients that are shared out."""

    def __init__(self):
        super().__init__()
        self.waits = self.scattered = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.waits += function is torch.ops.aten._local_scalar_dense.default
        self.scattered += "reduce_scatter" in str(function)
        return function(*args, **(kwargs or {}))


def sharing(rank, size, port, nodes, name, folder):
    """Three steps with whole models, three with shared ones and the same data; both states exchanged."""
    torch.set_num_threads(1)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    each = size // nodes
    world = World(RankInfo(rank, size, rank % each, each), torch.device("cpu"), timeout_s=60, env=env)
    mine, found = slice(rank, None, size), {}
    inputs, targets = (part[mine] for part in batch())
    saved = {}
    config = OptimizerConfig(name=name, lr=1e-3, muon_lr=1e-3)
    for kind in ("whole", "shared"):
        if kind == "whole":
            weights = Weights(GPT(SHAPE, seed=7), world)
            module = world.wrap(LossModule(weights.model))
        else:
            weights = SharedWeights(SHAPE, world, nodes, False, None, lambda: GPT(SHAPE, seed=7))
            module = weights.module
        optimizer = Optimizer(weights.model, config, world.device, world)
        for part in optimizer.parts[1:]:
            part.dtype = torch.float32  # Muon's; in bfloat16 rounding differs in the third digit of an update
        step = TrainStep(module, optimizer, world, FP32, Guard("stop", 3), micro_batch=4, grad_clip=0.3, seed=3,
                         dropout=False)  # fmt: skip
        copies, on_host = [], step._on_host
        step._on_host = lambda *parts, copies=copies, on_host=on_host: copies.append(1) or on_host(*parts)
        results = []
        for number in range(3):
            counted = count_targets(targets.numpy(), world)
            with Calls() as calls:
                results.append(step(number, inputs, targets, 1.0, counted))
            assert calls.waits == 0 and len(copies) == number + 1, "the host waits once for the numbers of a step"
            exchanged = SHAPE.n_layer + 1 if kind == "shared" else 0  # a block at a time, and the rest, once a step
            assert calls.scattered == exchanged, (kind, calls.scattered)
        found[f"{kind} losses"] = [result.loss for result in results]
        found[f"{kind} norms"] = [result.grad_norm for result in results]
        saved[kind] = weights.tensors(optimizer)
        if rank == 0 and kind == "whole":
            write(Path(folder), 3, *saved[kind], {})
        world.barrier()
        other = Optimizer(weights.model, config, world.device, world)
        weights.load_optimizer(other, tensor_files(Path(folder) / "step-00000003", OPTIMIZER))
        back = weights.tensors(other)[1]
        if rank == 0:
            assert back.keys() == saved["whole"][1].keys()
            assert all(torch.equal(tensor, saved["whole"][1][key]) for key, tensor in back.items())
    stored = Path(folder) / "step-00000004"
    if rank == 0:
        write(Path(folder), 4, *saved["shared"], {})
    meeting = Meeting(world.notes(), "1", range(each))
    own = weights.share(optimizer)
    if rank == 0:
        meeting.lead(Path(folder), 5, own, b"{}\n", FileSystem())
    elif rank < each:
        meeting.follow(Path(folder), rank, own, FileSystem())
    world.barrier()
    for path in (stored, stored.with_name("step-00000005")):
        back = SharedWeights(SHAPE, world, nodes, False, None, tensor_files(path, MODEL))
        state = Optimizer(back.model, config, world.device, world)
        back.load_optimizer(state, tensor_files(path, OPTIMIZER))
        again = back.tensors(state)
        if rank == 0:
            assert len(list(path.iterdir())) == (4 if path == stored else 2 * each + 2)
            read = load(path)
            for found_here, expected in zip([*again, read.model, read.optimizer], 2 * saved["shared"], strict=True):
                assert found_here.keys() == expected.keys()
                assert all(torch.equal(tensor, expected[key]) for key, tensor in found_here.items())
        assert gathered(back.model.wte)[SHAPE.vocab_size :].eq(0).all()
    with weights.whole() as model:
        found["whole model"] = [float(p.detach().double().sum()) for p in model.parameters()]
    assert all(p.is_meta for p in weights.view.parameters()), "the whole weights are let go"
    if rank == 0:
        alike(saved["shared"][0], saved["whole"][0])
    np.savez(f"{folder}/{rank}.npz", **found)
    world.close()


@pytest.mark.parametrize(("size", "nodes", "name"), [(2, 1, "muon"), (4, 2, "adamw"), (4, 2, "muon")])
def test_any_mesh_and_optimizer_gives_the_numbers_of_whole_models(size, nodes, name, tmp_path):
    port = forks.free_port()
    ranks = [
        forks.Forked(sharing, rank, size, port, nodes, name, str(tmp_path), out=tmp_path / str(rank))
        for rank in range(size)
    ]
    assert forks.ends(ranks) == [0] * size, "".join(rank.said() for rank in ranks)[-4000:]
    for rank in range(size):
        found = np.load(tmp_path / f"{rank}.npz")
        assert np.abs(found["whole losses"] - found["shared losses"]).max() <= 1e-6
        assert (
            found["shared norms"] == pytest.approx(found["whole norms"], rel=1e-5) and found["whole norms"].min() > 0.3
        )
        np.testing.assert_array_equal(found["whole model"], np.load(tmp_path / "0.npz")["whole model"])


def planned(size, nodes, ranks, folder):
    """gpt2-xl shared out among many ranks that are not there, without memory."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    shape = GPTConfig(n_layer=48, n_head=25, n_embd=1600)
    whole = {name: p.shape for name, p in GPT(shape, device="meta").named_parameters()}
    each, kinds = size // nodes, 0
    for rank in ranks:
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        model = GPT(shape, device="meta")
        shard(LossModule(model), make_mesh("cpu", size, nodes, timedelta(seconds=60)))
        for name, parameter in model.named_parameters():
            own, rows = local(parameter), whole[name][0]
            most = -(-rows // each)
            first, stop = (min((rank % each + i) * most, rows) for i in range(2))
            assert own.is_meta and parameter.shape == whole[name] and own.shape == (stop - first, *whole[name][1:])
            assert dealt_rows(parameter) == (first, stop, most), "where a checkpoint has them"
        kinds = len(list(model.named_parameters()))
        dist.destroy_process_group()
    np.savez(f"{folder}/parts.npz", kinds=kinds)


@pytest.mark.parametrize(("nodes", "ranks"), [(128, [1015]), (1, [1023])], ids=["hsdp 128 x 8", "fsdp2 of 1,024"])
def test_a_plan_of_1024_ranks_shares_gpt2_xl_evenly(nodes, ranks, tmp_path):
    """The ranks' rows are those of `torch.chunk`, so that all together have each row once."""
    fork = forks.Forked(planned, 1024, nodes, ranks, str(tmp_path), out=tmp_path / "out")
    assert fork.wait() == 0, fork.said()
    assert np.load(tmp_path / "parts.npz")["kinds"] == 580


def choice(*words, **changes):
    given = {"ranks": 8, "local_ranks": 8, "device": "cuda", "precision": "bf16", "gpu_bytes": 80 * 10**9} | changes
    return parallel_choice(load_config("gpt2-xl", overrides=list(words)), 50257, **given)


def test_auto_shares_a_model_only_where_a_gpu_cannot_hold_it_whole():
    assert choice()[:3] == ("ddp", 1, 1)
    small = choice(gpu_bytes=24 * 10**9)
    assert small[:3] == ("fsdp2", 8, 1) and "24" in small.why
    assert choice(gpu_bytes=24 * 10**9, ranks=1).kind == "alone"
    assert choice(gpu_bytes=None, device="cpu").kind == "ddp"
    assert choice("--train.parallel", "hsdp", ranks=1024)[:3] == ("hsdp", 8, 128)
    with pytest.raises(UserError, match="do not divide 12"):
        choice("--train.parallel", "hsdp", ranks=12)


def test_a_shared_model_needs_less_of_each_gpu():
    config = load_config("gpt2-xl")
    given = {"micro_batch": 1, "accumulation": 1, "ranks": 8, "device": "cuda", "precision": "bf16"}
    whole, shared = (rank_memory(config, 50257, **given, shards=shards) for shards in (1, 8))
    assert shared.parts["optimizer"].size * 8 == pytest.approx(whole.parts["optimizer"].size, abs=8)
    assert shared.peak < 20e9 < whole.peak


def test_ranks_that_share_a_large_model_each_keep_a_copy_of_their_part_while_it_is_saved():
    def copies(*words, shards=8):
        config = load_config("gpt2-xl", overrides=list(words))
        parts = host_parts(config, 1_557_611_200, 50257, 8, None, shards)
        one = Figure("memory.process", "", sum(part.size for part in parts), "B", "")
        return parts[0].size, all_ranks(one, parts, 8).value - 8 * sum(part.size for part in parts[1:])

    whole, of_all = copies(shards=1)
    assert whole == of_all and whole > 12e9
    assert copies() == (whole // 8, whole // 8 * 8)
    assert copies("--checkpoint.sharded", "off") == (whole, whole)
    small = load_config("gpt2", overrides=[])
    assert [in_parts(small, size) for size in (10**9, 5 * 10**9)] == [False, True]
