"""Processes forked from one parent that has imported everything: a run of two ranks in a second.

They are real processes, groups of them real groups, killed by real signals. What a fork leaves out is what comes before
the imports of `python -m mygpt2 train` and torchrun's command line: one test of tests/life/test_ranks.py and those of
tests/workbench/jobs/test_life.py start these.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "mygpt2.__main__", "mygpt2.train.attempt", "mygpt2.plots", "tests.life.test_failures",
        "torch._dynamo", "torch._inductor.config", "torch.distributed.launcher.api", "safetensors.torch", "tiktoken",
        "pyarrow.parquet", "pyarrow.compute", "pandas", "huggingface_hub.hf_api", "matplotlib.figure",
        "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PpmImagePlugin",
    ]
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def print_to(out: str) -> None:
    """What this process prints goes to the files `out`-out and `out`-err from here on."""
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{out}-{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)


def call(words: list[str]) -> int:
    """`python -m mygpt2 ...` in this process, which was forked for it."""
    import torch

    from mygpt2.__main__ import main

    torch.set_num_threads(1)
    code = main(words)
    sys.stdout.flush()
    return code


def rank_main(rank: int, size: int, port: int, words: list[str], out: Path, meddle: tuple[str, ...]) -> None:
    """One rank's whole process: what it prints goes to files `out`-<rank>-out and -err, `meddle` is called first."""
    print_to(f"{out}-{rank}")
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    _meddle(rank, meddle)
    os._exit(call(words))


def start(words: list[str], out: Path, *, size: int = 2, meddle: tuple[str, ...] = ()) -> list[Any]:
    """Ranks without a launcher."""
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


class Forked:
    """`function(*given)` in a process of its own, with the methods of Popen that tests use."""

    def __init__(self, function: Callable[..., None], *given: Any, out: Path) -> None:
        """What it and its children print goes to the files `out`-out and -err."""
        self._process, self._out = FORKS.Process(target=_main, args=(function, given, str(out))), out
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 300.0) -> int:
        (code,) = ends([self._process], timeout)
        assert code is not None
        return code

    def said(self, *streams: str) -> str:
        """What was printed so far, to `out` and `err` or to the one given."""
        return "".join(Path(f"{self._out}-{stream}").read_text() for stream in streams or ("out", "err"))


def _main(function: Callable[..., None], given: tuple[Any, ...], out: str) -> None:
    print_to(out)
    function(*given)


def launch(words: list[str], out: Path, size: int = 1, *, restarts: int = 0, meddle: tuple[str, ...] = ()) -> Forked:
    """`mygpt2 ...` as one rank by itself, or under torchrun's agent."""
    return Forked(agent_main, size, restarts, words, meddle, out=out)


def agent_main(size: int, restarts: int, words: list[str], meddle: tuple[str, ...]) -> None:
    """One rank by itself, or torchrun's agent, which forks its ranks from this process and starts them again."""
    if size == 1:
        os._exit(launched_rank(words, meddle))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    alone = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=size, run_id="forked", rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", max_restarts=restarts, start_method="fork",
        rdzv_configs={"is_host": True},
    )  # fmt: skip
    try:
        elastic_launch(alone, launched_rank)(words, meddle)
    except ChildFailedError:
        os._exit(1)


def launched_rank(words: list[str], meddle: tuple[str, ...]) -> int:
    """A rank under a launcher: it is to die with it."""
    from mygpt2 import early

    early.prepare()
    _meddle(int(os.environ.get("RANK", "0")), meddle)
    if code := call(words):
        os._exit(code)
    return code


def _meddle(rank: int, meddle: tuple[str, ...]) -> None:
    """Calls (module, function, arguments ...) with the rank first: what a test changes in its process."""
    if meddle:
        module, function, *arguments = meddle
        getattr(importlib.import_module(module), function)(rank, *arguments)
