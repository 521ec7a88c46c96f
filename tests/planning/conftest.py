"""Run folders as a trainer leaves them, and a machine of a known size."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.config.schema import RunConfig
from mygpt2.files import read_json, replace_json
from mygpt2.planning.machine import Machine
from mygpt2.run_dir import RunDir, RunWriter, write_rank

SMALL = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 32, "data.tokenizer": "gpt2:512",
    "train.batch_tokens": 512, "train.steps": 100, "schedule.warmup_steps": 10, "train.precision": "fp32",
}  # fmt: skip


@pytest.fixture
def machine() -> Machine:
    return Machine(host_free=16 * 10**9, host_total=32 * 10**9, gpus=())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config_of(**changes: Any) -> RunConfig:
    """The small configuration with dotted settings changed: config_of(**{"train.steps": 7})."""
    return load_config(overrides=SMALL | changes)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., RunDir]:
    """Makes the folder of a run that took one step at each of the given speeds, in tokens/s."""

    def make(
        name: str,
        config: RunConfig,
        speeds: list[float],
        *,
        ranks: int = 1,
        host: str | None = None,
        epoch: float = 0.0,
    ) -> RunDir:
        run = RunDir.create(tmp_path / "runs", name)
        with RunWriter(run, 1) as writer:
            writer.config(to_toml(config))
            for step, speed in enumerate(speeds, 1):
                tokens = step * config.train.batch_tokens
                writer.metrics(
                    step=step, tokens=tokens, loss=1.0, tokens_per_second=speed, epoch=epoch * step / len(speeds)
                )
        write_rank(run, 0, world_size=ranks, device="cpu", attempt=1)
        replace_json(run.rank_file(0), {**(read_json(run.rank_file(0)) or {}), "host": host or socket.gethostname()})
        return run

    return make
