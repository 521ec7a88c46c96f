"""Ranks as forks of one parent that has imported everything: a run of two ranks in a second."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

from tests.life import harness

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["mygpt2.train.attempt", "mygpt2.plots", "pyarrow.parquet", "torch._inductor", "tests.life.test_failures"]
)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def settings(source: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    small = {
        "data.source": str(source), "data.cache_dir": str(cache), "model.n_layer": 1, "model.n_embd": 32,
        "optimizer.name": "adamw", "train.steps": 6, "schedule.warmup_steps": 2, "schedule.name": "cosine",
        "eval.interval": 3, "eval.yardstick": "off", "checkpoint.interval": 2, "sample.interval": 4,
        "sample.prompts": '["lo"]', "log.plot_interval": 0,
    }  # fmt: skip
    return {**harness.SETTINGS, **small, **{key.replace("__", "."): value for key, value in changes.items()}}


def rank_main(
    rank: int, size: int, port: int, values: dict[str, Any], runs: Path, name: str, meddle: tuple[str, ...], out: Path
) -> None:
    """One rank's whole process: what it prints goes to files `out`-<rank>-out and -err, `meddle` is called first."""
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{out}-{rank}-{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    if size == 1:
        del os.environ["RANK"]
    import torch

    from mygpt2.cli import guarded
    from mygpt2.config import load_config
    from mygpt2.train import attempt

    torch.set_num_threads(1)
    if meddle:
        module, function, *arguments = meddle
        getattr(importlib.import_module(module), function)(rank, *arguments)
    config = load_config("tiny", None, values)
    code = guarded(lambda: attempt.main(config, name, runs, "auto", ["train"]))
    sys.stdout.flush()
    os._exit(code)


def start(
    values: dict[str, Any], runs: Path, name: str, out: Path, *, size: int = 2, meddle: tuple[str, ...] = ()
) -> list[Any]:
    port = free_port()
    ranks = [
        FORKS.Process(target=rank_main, args=(rank, size, port, values, runs, name, meddle, out))
        for rank in range(size)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def ends(ranks: list[Any], timeout: float = 60.0) -> list[int | None]:
    """The exit codes; a rank that hangs is killed and fails the test."""
    try:
        for rank in ranks:
            rank.join(timeout)
        return [rank.exitcode for rank in ranks]
    finally:
        for rank in ranks:
            if rank.is_alive():
                rank.kill()
                rank.join()
