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
PRELOADED = [
    "mygpt2.__main__", "mygpt2.train.attempt", "mygpt2.plots", "tests.life.test_failures", "tests.warm",
    "torch._dynamo", "torch._inductor.config", "torch.distributed.launcher.api", "safetensors.torch", "tiktoken",
    "pyarrow.parquet", "pyarrow.compute", "pandas", "huggingface_hub.hf_api", "matplotlib.figure",
    "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PpmImagePlugin",
]  # fmt: skip
FORKS.set_forkserver_preload(PRELOADED)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Forked:
    """`function(*given)` in a process of its own, with the methods of Popen that tests use."""

    def __init__(self, function: Callable[..., None], *given: Any, out: Path | str) -> None:
        """What it and its children print goes to the files `out`-out and -err.

        The environment and the working directory are those of now; a fork's would be of when its parent began.
        """
        self._files = [Path(f"{out}-{stream}") for stream in ("out", "err")]
        self._process = FORKS.Process(target=_main, args=(function, given, self._files, dict(os.environ), os.getcwd()))
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 300.0) -> int:
        """The exit code; a process that hangs is killed and fails the test."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"it hangs; it said: {self.said()[-3000:]}")
        return self._process.exitcode

    def said(self, *, errors_only: bool = False) -> str:
        return "".join(file.read_text() for file in self._files[errors_only:])


def _main(
    function: Callable[..., None], given: tuple[Any, ...], files: list[Path], env: dict[str, str], folder: str
) -> None:
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.clear()
    os.environ |= env
    os.chdir(folder)
    function(*given)


def call(words: list[str], meddle: tuple[str, ...]) -> int:
    """`python -m mygpt2 ...` in this process, which was forked for it, after what `meddle` changes in it.

    That is (module, function, arguments ...) of a function that takes the rank first.
    """
    import torch

    from mygpt2.__main__ import main

    torch.set_num_threads(1)
    if meddle:
        module, function, *arguments = meddle
        getattr(importlib.import_module(module), function)(int(os.environ.get("RANK", "0")), *arguments)
    code = main(words)
    sys.stdout.flush()
    return code


def start(words: list[str], out: Path, *, size: int = 2, nodes: int = 1, meddle: tuple[str, ...] = ()) -> list[Forked]:
    """The ranks of `mygpt2 ...` without a launcher; what they print goes to files `out`-<rank>-out and -err."""
    port = free_port()
    return [Forked(rank_main, rank, size, nodes, port, words, meddle, out=f"{out}-{rank}") for rank in range(size)]


def rank_main(rank: int, size: int, nodes: int, port: int, words: list[str], meddle: tuple[str, ...]) -> None:
    each = size // nodes
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank % each), "LOCAL_WORLD_SIZE": str(each),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if nodes > 1:  # of which all are this machine
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os._exit(call(words, meddle))


def ends(ranks: list[Forked], timeout: float = 120.0) -> list[int]:
    """The exit codes; all are killed when one hangs."""
    try:
        return [rank.wait(timeout) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


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
    if code := call(words, meddle):
        os._exit(code)
    return code  # to the agent, which waits for an answer
