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


def train(values: dict[str, Any], runs: Path, name: str) -> list[str]:
    """The words of `mygpt2 train`."""
    options = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    return ["train", "--preset", "tiny", "--runs", str(runs), "--run", name, *options]


def rank_main(rank: int, size: int, port: int, words: list[str], out: Path, meddle: tuple[str, ...]) -> None:
    """One rank's whole process: what it prints goes to files `out`-<rank>-out and -err, `meddle` is called first."""
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{out}-{rank}-{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    import torch

    from mygpt2.__main__ import main

    torch.set_num_threads(1)
    if meddle:
        module, function, *arguments = meddle
        getattr(importlib.import_module(module), function)(rank, *arguments)
    code = main(words)
    sys.stdout.flush()
    os._exit(code)


def start(words: list[str], out: Path, *, size: int = 2, meddle: tuple[str, ...] = ()) -> list[Any]:
    rest = size, free_port(), words, out, meddle
    ranks = [FORKS.Process(target=rank_main, args=(rank, *rest)) for rank in range(size)]
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
