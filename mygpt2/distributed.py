"""One process or many: who this process is, how it joins the others, and the few exchanges they need.

A single process needs no process group: every exchange is then the identity, and the training code above is the same.
Small exchanges (flags, losses, cursors) go over gloo on the host, so a rank that waits for data never holds a device
collective open.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mygpt2.errors import EXIT_DEFECT, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where this process stands, as torchrun (or SLURM's srun with the same variables) says."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restart: int = 0
    elastic: bool = False

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Place:
        if "RANK" not in env or "WORLD_SIZE" not in env:
            return cls()
        try:
            size = int(env["WORLD_SIZE"])
            return cls(
                rank=int(env["RANK"]),
                size=size,
                local_rank=int(env.get("LOCAL_RANK", "0")),
                local_size=int(env.get("LOCAL_WORLD_SIZE", str(size))),
                restart=int(env.get("MYGPT2_RESTART") or env.get("TORCHELASTIC_RESTART_COUNT", "0")),
                elastic="TORCHELASTIC_RUN_ID" in env,
            )
        except ValueError as problem:
            raise UserError(
                f"RANK, WORLD_SIZE, LOCAL_RANK and the restart counts must be integers ({problem}); "
                "start the ranks with torchrun or ./launch_train.sh"
            ) from None


def choose_device(requested: str, place: Place) -> torch.device:
    """The device of this rank. `auto` takes CUDA, then MPS (one process only), then the CPU."""
    if requested in ("auto", "cuda") and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if place.local_rank >= count:
            raise UserError(
                f"{place.local_size} processes were started on this machine but it has {count} CUDA devices; "
                f"use --nproc {count} or --train.device cpu"
            )
        return torch.device("cuda", place.local_rank)
    mps = torch.backends.mps.is_available()
    if requested == "mps" and place.size > 1:
        raise UserError(f"train.device=mps trains in one process, not {place.size}; use --nproc 1")
    if requested in ("auto", "mps") and mps and place.size == 1:
        return torch.device("mps")
    if requested in ("cuda", "mps"):
        raise UserError(f"train.device={requested} is not available here; use --train.device auto or cpu")
    return torch.device("cpu")


def die_with_launcher() -> None:
    """Ends this process when its parent does: torchrun killed by SIGKILL would otherwise leave its ranks behind.

    On Linux the kernel does it (PR_SET_PDEATHSIG = 1, prctl(2)); elsewhere a thread watches the parent's pid.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()


def _store(place: Place, env: Mapping[str, str], timeout: timedelta) -> dist.Store:
    """The rendezvous store with a prefix per attempt.

    torchrun keeps one store over its in-place restarts, and gloo finds the dead attempt's addresses in it
    (pytorch/pytorch#135712): without the prefix about half of the restarts fail.
    """
    agent = env.get("TORCHELASTIC_USE_AGENT_STORE", "") == "True"
    base = dist.TCPStore(
        env["MASTER_ADDR"],
        int(env["MASTER_PORT"]),
        place.size,
        is_master=not agent and place.rank == 0,
        timeout=timeout,
        multi_tenant=True,
    )
    return dist.PrefixStore(f"attempt{place.restart}", base)


class World:
    """The ranks of a run and what passes between them."""

    def __init__(self, place: Place, device: torch.device, *, timeout_s: float, env: Mapping[str, str] = os.environ):
        self.place, self.device = place, device
        self.rank, self.size = place.rank, place.size
        self._control: Any = None
        if place.size == 1:
            return
        timeout = timedelta(seconds=timeout_s)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            backend, store=_store(place, env, timeout), rank=place.rank, world_size=place.size, timeout=timeout
        )
        self._control = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=timeout)

    @property
    def lead(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def sum(self, values: list[float] | list[int], dtype: torch.dtype = torch.float64) -> list[Any]:
        """Element-wise sums over the ranks; the same numbers on every rank."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=dtype)
        dist.all_reduce(tensor, group=self._control)
        return tensor.tolist()

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """The int64 arrays of all ranks, which may differ in length but not in their other dimensions."""
        if self.size == 1:
            return [array]
        lengths = [
            int(n) for n in self.sum([len(array) if r == self.rank else 0 for r in range(self.size)], torch.int64)
        ]
        padded = torch.zeros((max(lengths), *array.shape[1:]), dtype=torch.int64)
        padded[: len(array)] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self._control)
        return [part[:n].numpy() for part, n in zip(parts, lengths, strict=True)]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self._control)

    def lead_first(self, work: Callable[[], T]) -> T:
        """Runs `work` on rank 0, then on the others, who find its result in the cache.

        A failure on rank 0 must end the others too, and with the same kind of exit: they are told before they start.
        """
        result: T | None = None
        problem: Exception | None = None
        if self.lead:
            try:
                result = work()
            except Exception as caught:
                problem = caught
        code = 0 if problem is None else getattr(problem, "exit_code", EXIT_DEFECT)
        failed = self.sum([code], torch.int64)[0]
        if problem is not None:
            raise problem
        if failed:
            raise PeerFailed(failed)
        if not self.lead:
            result = work()
        self.barrier()
        return result  # type: ignore[return-value]

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass sums gradients over the ranks (DDP divides by their number)."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


class PeerFailed(Exception):
    """Another rank met a problem and reported it; this one ends quietly with the same code."""

    def __init__(self, exit_code: int):
        super().__init__(f"another rank ended with code {exit_code}; its message says why")
        self.exit_code = exit_code


def no_sync(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Holds back the gradient exchange until the last micro-batch. It must cover the forward pass as well."""
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()
