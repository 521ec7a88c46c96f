"""One process or many: who this process is, how it joins the others, and the few exchanges they need.

A single process needs no process group: every exchange is then the identity, and the training code above is the same.
Small exchanges (flags, losses, cursors) go over gloo on the host, so a rank that waits for data never holds a device
collective open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mygpt2.board import Board, RankInfo, one_fate
from mygpt2.machine import ELSEWHERE, address_towards

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# PyTorch 2.13's name; before, the function was called otherwise.
all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

T = TypeVar("T")


def interface_towards(host: str, port: int) -> str | None:
    """The network interface by which this machine reaches `host`; None where that cannot be told."""
    import psutil

    own = address_towards(host, port)
    found = psutil.net_if_addrs().items() if own else []
    return next((name for name, addresses in found if any(each.address == own for each in addresses)), None)


def choose_interface(info: RankInfo, env: Mapping[str, str]) -> str | None:
    """Where gloo should listen. By itself it takes the address that the machine's own name stands for, which may be
    none, or one that no other machine reaches (127.0.1.1 in Debian's /etc/hosts)."""
    if info.local_size == info.size:
        return interface_towards("127.0.0.1", 9)
    found = interface_towards(env["MASTER_ADDR"], int(env["MASTER_PORT"]))
    if found is None or found == interface_towards("127.0.0.1", 9):
        return interface_towards(*ELSEWHERE)
    return found


class World:
    """The ranks of a run and what passes between them. `board` is None for a single process."""

    def __init__(
        self,
        info: RankInfo,
        device: torch.device,
        *,
        timeout_s: float,
        env: Mapping[str, str] = os.environ,
        board: Board | None = None,
    ):
        self.info, self.device = info, device
        self.rank, self.size = info.rank, info.size
        self.board = board
        self._control: Any = None  # all ranks, on the host
        self._node: Any = None  # those of this machine
        self._timeout = timedelta(seconds=timeout_s)
        if info.size == 1:
            return
        timeout = self._timeout
        board = self.board = board or Board.join(info, env, timeout, check=lambda: None)
        if "GLOO_SOCKET_IFNAME" not in env and (interface := choose_interface(info, env)):
            os.environ["GLOO_SOCKET_IFNAME"] = interface
        board.connect(lambda: self._connect(timeout))

    def _connect(self, timeout: timedelta) -> None:
        assert self.board is not None
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.set_device(self.device)
        store = self.board.store.clone()  # type: ignore[attr-defined]  # the board's own is not held while this waits
        dist.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=self.rank, world_size=self.size, timeout=timeout
        )
        self._control = self._node = dist.new_group(backend="gloo", timeout=timeout) if cuda else dist.group.WORLD
        if 1 < self.info.local_size < self.size:
            ranks = list(self.info.together)
            self._node = dist.new_group(ranks, timeout, "gloo", use_local_synchronization=True)

    @contextmanager
    def one_fate(self) -> Iterator[None]:
        """What ends one rank in here ends all: the others get PeerFailed with its words, wherever they are."""
        with one_fate(self.board):
            yield

    @property
    def lead(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """What takes long and must not be broken off because another rank fails: a save."""
        if self.board is not None:
            self.board.patient = True
        try:
            yield
        finally:
            if self.board is not None:
                self.board.patient = False

    def sum(self, values: list[float] | list[int], dtype: torch.dtype = torch.float64) -> list[Any]:
        """Element-wise sums over the ranks; the same numbers on every rank."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=dtype)
        dist.all_reduce(tensor, group=self._control)
        return tensor.tolist()

    def sum_on_device(self, tensor: torch.Tensor) -> None:
        """Adds up one tensor over the ranks, in place and where it lies; the host does not wait for a GPU's."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def from_lead(self, work: Callable[[], int]) -> int:
        """The whole number that `work` gives on rank 0, which alone runs it: on every rank."""
        return int(self.sum([work() if self.lead else 0], torch.int64)[0])

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

    def texts(self, text: str) -> list[str]:
        """A text of each rank."""
        everyones = self.gather(np.frombuffer(text.encode(), np.uint8))
        return [each.astype(np.uint8).tobytes().decode() for each in everyones]

    def to_node_lead(self, data: bytes) -> list[bytes]:
        """What the ranks of this machine give, in their order, on the first of them; nothing on the others."""
        ranks = self.info.together
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in ranks]
        dist.all_gather(lengths, torch.tensor([len(data)]), group=self._node)
        most = max(int(length) for length in lengths)
        mine = torch.zeros(most, dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)[: len(data)]
        lead = self.rank == ranks.start
        parts = [torch.empty_like(mine) for _ in ranks] if lead else None
        dist.gather(mine, parts, dst=ranks.start, group=self._node)
        both = zip(parts or (), lengths, strict=False)
        return [part[: int(length)].numpy().tobytes() for part, length in both]

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Rank 0's tensor on every rank, in place and where it lies."""
        if self.size > 1:
            dist.broadcast(tensor, 0)

    def notes(self) -> BoardNotes:
        """What ranks can tell one another while exchanges are in use, or broken."""
        assert self.board is not None, "a single rank has nobody to tell"
        return BoardNotes(self.board)

    def gone(self) -> set[int]:
        """Ranks that are known to be dead, or as good as that."""
        return self.board.gone() if self.board else set()

    def gather_tensors(self, everyones: torch.Tensor, mine: torch.Tensor) -> None:
        """Fills `everyones` with the flat tensors of all ranks, one after the other, on the device: one exchange."""
        all_gather_single(everyones.view(torch.uint8), mine.view(torch.uint8))

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self._control)

    def lead_first(self, work: Callable[[], T]) -> T:
        """Runs `work` on rank 0, then on the others, who find its result in the cache. Where it fails on one rank the
        others do not wait: see `one_fate`."""
        if not self.lead:
            self.barrier()
        result = work()
        if self.lead:
            self.barrier()
        self.barrier()
        return result

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass sums gradients over the ranks (DDP divides by their number)."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)

    def mesh(self, nodes: int) -> DeviceMesh:
        """`make_mesh` of all ranks, once in an attempt."""
        assert self.board is not None, "a single rank has no mesh"
        made: list[DeviceMesh] = []
        self.board.connect(lambda: made.append(make_mesh(self.device.type, self.size, nodes, self._timeout)), "mesh")
        return made[0]

    def text_from_lead(self, work: Callable[[], str]) -> str:
        """The text that `work` gives on rank 0, which alone runs it: on every rank."""
        text = work().encode() if self.lead else b""
        if self.size == 1:
            return text.decode()
        length = self.from_lead(lambda: len(text))
        sent = torch.zeros(length, dtype=torch.uint8)
        sent[: len(text)] = torch.frombuffer(bytearray(text or b"\0"), dtype=torch.uint8)[: len(text)]
        dist.broadcast(sent, 0, group=self._control)
        return sent.numpy().tobytes().decode()

    def close(self) -> None:
        """Leaves the others, once the first rank has ended where a failure ends them all."""
        if self.board is not None:
            self.board.close()
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


class BoardNotes:
    """What ranks leave for one another on the board: `checkpoint.together.Notes`. Of use to several threads."""

    def __init__(self, board: Board) -> None:
        self._board, self._lost = board, False
        store = board.store.clone()  # type: ignore[attr-defined]  # the board's own is not held while this waits
        self._store = dist.PrefixStore("notes", store)

    def write(self, key: str, text: str) -> None:
        with self._unless_lost():
            self._store.set(key, text)

    def read(self, key: str) -> str | None:
        with self._unless_lost():
            return self._store.get(key).decode() if self._store.check([key]) else None
        return None

    def forget(self, key: str) -> None:
        with self._unless_lost():
            self._store.delete_key(key)

    def over(self) -> bool:
        return self._lost or self._board.read() is not None

    @contextmanager
    def _unless_lost(self) -> Iterator[None]:
        """The store may have gone with its host, and whoever waits for a note then waits in vain."""
        try:
            yield
        except (RuntimeError, OSError):
            self._lost = True


def make_mesh(kind: str, size: int, nodes: int, timeout: timedelta) -> DeviceMesh:
    """The ranks in a row where `nodes` is 1, else as (nodes, ranks of a node), with a group for each row and column."""
    from torch.distributed.device_mesh import DeviceMesh  # a second to import, which most runs do without

    if nodes == 1:
        assert dist.group.WORLD is not None
        return DeviceMesh.from_group(dist.group.WORLD, kind, mesh_dim_names=("shard",))
    ranks = torch.arange(size).view(nodes, -1)
    groups = [
        dist.new_subgroups_by_enumeration(dealt, timeout=timeout)[0]
        for dealt in (ranks.T.tolist(), ranks.tolist())  # whoever holds the same part; whoever shares one model
    ]
    return DeviceMesh.from_group(groups, kind, ranks, mesh_dim_names=("replicate", "shard"))


def no_sync(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Holds back the gradient exchange until the last micro-batch. It must cover the forward pass as well."""
    if (hold_back := getattr(module, "set_requires_gradient_sync", None)) is not None:  # FSDP2's
        hold_back(last)
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, which is all of one that is not shared out."""
    own: torch.Tensor = getattr(tensor, "to_local", lambda: tensor)()
    return own


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, by all ranks at once."""
    tensor = tensor.detach()
    whole: torch.Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return whole


def own_rows(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The rows of `whole` of which this rank has `like`'s; all where that is not shared out."""
    first, stop, _ = dealt_rows(like)
    return whole[first:stop]


def dealt_rows(like: torch.Tensor) -> tuple[int, int, int]:
    """(first, stop) of the rows that this rank has of a tensor, and how many a rank has at most: as PyTorch deals them,
    which is like torch.chunk, over the last dimension of the mesh."""
    own, count = local(like), len(like)
    if own is like:
        return 0, count, max(1, count)
    mesh = like.device_mesh  # type: ignore[attr-defined]
    each = max(1, -(-count // mesh.size(mesh.ndim - 1)))
    first = min(mesh.get_local_rank(mesh.ndim - 1) * each, count)
    return first, first + len(own), each
