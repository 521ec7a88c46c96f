"""Disk use against checkpoints as they are really written and rotated."""

from __future__ import annotations

import pytest
import torch

from mygpt2.checkpoint import write
from mygpt2.checkpoint.store import prune, size_bytes, steps
from mygpt2.config.summary import count_parameters
from mygpt2.model import GPT, GPTConfig, state_for_checkpoint
from mygpt2.planning.host import disk_use
from mygpt2.planning.memory import Shape
from mygpt2.train.optim import Optimizer
from tests.planning.conftest import config_of


def use_of(config, vocab_size=512):
    return disk_use(config, count_parameters(config.model, vocab_size), Shape.of(config.model, vocab_size))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_is_as_large_as_one_that_was_written(optimizer, tmp_path):
    config = config_of(**{"optimizer.name": optimizer, "model.n_embd": 128})
    m = config.model
    model = GPT(GPTConfig(m.n_layer, m.n_head, m.n_embd, m.block_size, 500))
    trained = Optimizer(model, config.optimizer, torch.device("cpu"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trained.step()
    written = size_bytes(write(tmp_path, 1, state_for_checkpoint(model), trained.state_tensors(), {}))
    assert use_of(config, 500).checkpoint == pytest.approx(written, rel=0.02)


@pytest.mark.parametrize(
    ("length", "interval", "keep_last", "keep_every", "keep_best"),
    [
        (100, 10, 2, 0, True),
        (100, 10, 1, 30, False),
        (95, 10, 2, 0, False),
        (10, 100, 3, 0, True),
        (20, 10, 5, 0, True),
    ],
)
def test_as_many_checkpoints_as_rotation_keeps(length, interval, keep_last, keep_every, keep_best, tmp_path):
    config = config_of(**{
        "train.steps": length, "schedule.warmup_steps": 1, "checkpoint.interval": interval,
        "checkpoint.keep_last": keep_last, "checkpoint.keep_every": keep_every, "checkpoint.keep_best": keep_best,
    })  # fmt: skip
    most = 0
    best = interval if keep_best else None  # the first stays the best: the most that can be kept
    for step in sorted({*range(interval, length, interval), length}):
        write(tmp_path, step, {}, {}, {})
        most = max(most, len(steps(tmp_path)))
        prune(tmp_path, keep_last, keep_every, best if best in steps(tmp_path) else None)
    use = use_of(config)
    assert use.kept == len(steps(tmp_path))
    assert most <= use.most <= most + 1  # one too many where the newest is also kept for ever
    assert use.peak == use.most * use.checkpoint + use.logs
