"""Where the weights of a run are: whole on every rank, or shared out among the ranks (FSDP2).

`Weights` is what the rest of a run sees of that. Shared out, every rank keeps one part of each parameter, of its
gradient and of its optimizer state; a block's parameters are brought together for its own forward and backward pass.
A checkpoint holds whole tensors, or those parts in files of their own (`checkpoint.parts`); runs of every kind and
count of ranks read either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from mygpt2.checkpoint.parts import Part, Share
from mygpt2.checkpoint.stored import Stored
from mygpt2.distributed import World, dealt_rows, gathered, local
from mygpt2.model import GPT, GPTConfig, LossModule, state_for_checkpoint
from mygpt2.model.gpt import PADDED, check_state, without_padding
from mygpt2.train.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Tensors = dict[str, Tensor]


class Weights:
    """Whole on every rank: by itself, or under DDP. `view` is the model that is measured and sampled within `whole`."""

    shared_out = False

    def __init__(self, model: GPT, world: World | None = None) -> None:
        self.model = self.view = model
        self._world = world

    @contextmanager
    def whole(self) -> Iterator[GPT]:
        """`view` with all its weights, by all ranks at once."""
        yield self.view

    def tensors(self, optimizer: Optimizer) -> tuple[Tensors, Tensors]:
        """What a checkpoint holds of model and optimizer, by all ranks at once; of use on rank 0 alone. Views."""
        return state_for_checkpoint(self.model), optimizer.state_tensors()

    def load_optimizer(self, optimizer: Optimizer, files: Sequence[Path]) -> None:
        """Restores the optimizer of a checkpoint, which is verified already. Rank 0 reads it and sends it to the
        others. UserError for what does not fit, before anything changes."""
        world = self._world
        stored = Stored(files) if world is None or world.lead else None
        if stored and (world is None or world.size == 1):
            optimizer.load_state_tensors(stored.all(), copy=False)
            return
        assert world is not None
        told = json.loads(world.text_from_lead(lambda: json.dumps(_told(stored))))
        optimizer.check_state_tensors(_shapes(told))
        state: Tensors = {}
        for key, size, kind, value in told:
            if value is not None:
                state[key] = torch.tensor(value, dtype=getattr(torch, kind))
                continue
            one = stored.whole(key) if stored else torch.empty(size, dtype=getattr(torch, kind))
            state[key] = one.to(world.device)
            world.broadcast(state[key])
        optimizer.load_state_tensors(state, copy=False)


class SharedWeights(Weights):
    """One part of every parameter on each rank. Build the optimizer after it: parameters are other tensors then.

    The first rank's `initial` weights go to the others in parts, so nobody else needs room for the whole model.
    """

    shared_out = True

    def __init__(
        self, shape: GPTConfig, world: World, nodes: int, compile: bool, residual: torch.dtype | None,
        initial: Callable[[], GPT] | Sequence[Path],
    ) -> None:  # fmt: skip
        super().__init__(GPT(shape, device="meta"), world)
        self.nodes, self._ranks = nodes, world
        self.module = shard(LossModule(self.model, compile, residual), world.mesh(nodes))
        self.model.to_empty(device=world.device)
        self.view = GPT(shape, device="meta")
        with torch.no_grad():
            if not callable(initial):
                self._read(Stored(initial))
                return
            source = dict(initial().named_parameters()) if world.lead else {}
            for name, parameter in self.model.named_parameters():
                local(parameter).copy_(local(self._dealt(source.pop(name, None), parameter)))

    def _read(self, stored: Stored) -> None:
        """Each rank's rows of the weights of a checkpoint."""
        whole = GPT(self.model.config, device="meta")
        check_state(whole, {name: torch.empty(t.shape, device="meta") for name, t in stored.tensors.items()})
        for name, parameter in self.model.named_parameters():
            self._fill(local(parameter), stored, name, parameter)

    def _fill(self, own: Tensor, stored: Stored, name: str, like: Tensor) -> None:
        """Reads this rank's rows of a tensor that is laid out as `like`; padding is 0. Of ranks with the same rows one
        reads them."""
        first, stop, _ = dealt_rows(like)
        laid_out = _laid_out(like)
        again = laid_out.device_mesh.ndim == 2 and laid_out.device_mesh.get_local_rank(0) > 0
        if not again:
            found = stored.rows(name, first, stop).to(own.device, own.dtype)
            own[: len(found)].copy_(found)
            own[len(found) :].zero_()
        if laid_out.device_mesh.ndim == 2:
            dist.broadcast(own, group=laid_out.device_mesh.get_group(0), group_src=0)

    @contextmanager
    def whole(self) -> Iterator[GPT]:
        self.view.load_state_dict({n: gathered(p) for n, p in self.model.named_parameters()}, assign=True)
        try:
            yield self.view
        finally:
            self.view.to("meta")

    def tensors(self, optimizer: Optimizer) -> tuple[Tensors, Tensors]:
        """As of whole weights, but copies on the host: one tensor after the other is brought together."""
        model, state = dict(self.model.named_parameters()), optimizer.state_tensors()
        return without_padding(self._on_host(model), self.model.config.vocab_size), self._on_host(state)

    def _on_host(self, tensors: Mapping[str, Tensor]) -> Tensors:
        found: Tensors = {}
        for name, tensor in tensors.items():
            one = gathered(tensor)
            if self._ranks.lead:
                found[name] = one.to("cpu", copy=True)
        return found

    def share(self, optimizer: Optimizer) -> Share:
        """This rank's part of a checkpoint, by itself. Views; scalars are in the first part."""
        world, count = self._ranks, self._ranks.size // self.nodes
        names = {name: parameter for parameter, name in optimizer.names.items()}  # as they are shared out, always
        cut = self.model.config.vocab_size
        model = {name: (p, cut if name == PADDED else p.shape[0]) for name, p in names.items()}
        state = {key: (t, t.shape[0] if t.ndim else 0) for key, t in optimizer.state_tensors().items()}
        index = world.rank % count
        return Share(index, count, _part(model, index), _part(state, index))

    def total_bytes(self, optimizer: Optimizer) -> int:
        """Of the tensors of a checkpoint, all parts together."""
        return sum(t.numel() * t.element_size() for t in (*optimizer.names, *optimizer.state_tensors().values()))

    def load_optimizer(self, optimizer: Optimizer, files: Sequence[Path]) -> None:
        """As of whole weights, but each rank reads its own rows."""
        stored = Stored(files)
        told = _told(stored)
        optimizer.check_state_tensors(_shapes(told))
        owner = {name: parameter for parameter, name in optimizer.names.items()}
        state: Tensors = {}
        for key, _, kind, value in told:
            if value is not None:
                state[key] = torch.tensor(value, dtype=getattr(torch, kind))
                continue
            state[key] = torch.empty_like(owner[key.rpartition("/")[0]], dtype=getattr(torch, kind))
            self._fill(local(state[key]), stored, key, state[key])
        optimizer.load_state_tensors(state, copy=False)

    def _dealt(self, whole: Tensor | None, parameter: Tensor) -> Tensor:
        """Rank 0's whole tensor as `parameter` is laid out."""
        from torch.distributed.tensor import distribute_tensor

        like = _laid_out(parameter)
        if whole is None:
            whole = torch.empty(like.shape, dtype=like.dtype, device=self._ranks.device)
        return distribute_tensor(whole.detach().to(self._ranks.device, like.dtype), like.device_mesh, like.placements)


def shard(module: LossModule, mesh: Any) -> LossModule:
    """Shares out the parameters of a loss module, by block and the rest at once, over the last dimension of `mesh`."""
    from torch.distributed.fsdp import fully_shard

    for block in module.model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def _part(tensors: Mapping[str, tuple[Tensor, int]], index: int) -> Part:
    """This rank's rows of tensors, of each so many of which a file has so many."""
    found: Tensors = {}
    rows: dict[str, tuple[int, int]] = {}
    for name, (tensor, count) in tensors.items():
        if tensor.ndim == 0:
            found |= {name: tensor} if index == 0 else {}
            continue
        first, _, each = dealt_rows(tensor)
        own = local(tensor).detach()[: max(0, count - first)]
        rows[name] = (count, each)
        if len(own) or index == 0:
            found[name] = own
    return Part(found, rows)


def _told(stored: Stored | None) -> list[tuple[str, tuple[int, ...], str, float | None]]:
    """Key, shape, dtype and, of a single number, the value of each tensor: what all must know to have parts."""
    found = stored.tensors if stored else {}
    return [
        (
            key,
            t.shape,
            str(t.dtype).removeprefix("torch."),
            float(stored.whole(key)) if stored and not t.shape else None,
        )
        for key, t in found.items()
    ]


def _shapes(told: Iterable[tuple[str, Sequence[int], str, float | None]]) -> Tensors:
    return {key: torch.empty(tuple(size), dtype=getattr(torch, kind), device="meta") for key, size, kind, _ in told}


def _laid_out(tensor: Tensor) -> DTensor:
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return tensor
