"""Where the weights of a run are: whole on every rank, or shared out among the ranks (FSDP2).

`Weights` is what the rest of a run sees of that. Shared out, every rank keeps one part of each parameter, of its
gradient and of its optimizer state; a block's parameters are brought together for its own forward and backward pass.
Files do not show it: a checkpoint holds whole tensors, so runs of every kind and count of ranks exchange them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mygpt2.distributed import World, gathered, local
from mygpt2.model import GPT, GPTConfig, LossModule, state_for_checkpoint
from mygpt2.model.gpt import without_padding
from mygpt2.train.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Tensors = dict[str, Tensor]


class Weights:
    """Whole on every rank: by itself, or under DDP. `view` is the model that is measured and sampled within `whole`."""

    shared_out = False

    def __init__(self, model: GPT) -> None:
        self.model = self.view = model

    @contextmanager
    def whole(self) -> Iterator[GPT]:
        """`view` with all its weights, by all ranks at once."""
        yield self.view

    def tensors(self, optimizer: Optimizer) -> tuple[Tensors, Tensors]:
        """What a checkpoint holds of model and optimizer, by all ranks at once; of use on rank 0 alone. Views."""
        return state_for_checkpoint(self.model), optimizer.state_tensors()

    def load_optimizer(self, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
        """Restores what a checkpoint holds. UserError for what does not fit, before anything changes."""
        optimizer.load_state_tensors(tensors)


class SharedWeights(Weights):
    """One part of every parameter on each rank. Build the optimizer after it: parameters are other tensors then.

    The first rank's `initial` weights go to the others in parts, so nobody else needs room for the whole model.
    """

    shared_out = True

    def __init__(
        self, shape: GPTConfig, world: World, nodes: int, compile: bool, residual: torch.dtype | None,
        initial: Callable[[], GPT],
    ) -> None:  # fmt: skip
        self._world = world
        self.model = GPT(shape, device="meta")
        self.module = shard(LossModule(self.model, compile, residual), world.mesh(nodes))
        self.model.to_empty(device=world.device)
        self.view = GPT(shape, device="meta")
        source = dict(initial().named_parameters()) if world.lead else {}
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                local(parameter).copy_(local(self._dealt(source.pop(name, None), parameter)))

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
            if self._world.lead:
                found[name] = one.to("cpu", copy=True)
        return found

    def load_optimizer(self, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
        """`tensors` count on rank 0 alone, which has read them; of the others each gets its part."""
        told = json.loads(self._world.text_from_lead(lambda: json.dumps(_told(tensors))))
        shapes = {key: torch.empty(size, dtype=getattr(torch, kind), device="meta") for key, size, kind, _ in told}
        optimizer.check_state_tensors(shapes)
        owner = {name: parameter for parameter, name in optimizer.names.items()}
        state: Tensors = {}
        for key, _, kind, value in told:
            if value is not None:
                state[key] = torch.tensor(value, dtype=getattr(torch, kind))
                continue
            parameter = owner[key.rpartition("/")[0]]
            state[key] = self._dealt(tensors.get(key), parameter)
        optimizer.load_state_tensors(state)

    def _dealt(self, whole: Tensor | None, parameter: Tensor) -> Tensor:
        """Rank 0's whole tensor as `parameter` is laid out."""
        from torch.distributed.tensor import distribute_tensor

        like = _laid_out(parameter)
        if whole is None:
            whole = torch.empty(like.shape, dtype=like.dtype, device=self._world.device)
        return distribute_tensor(whole.detach().to(self._world.device, like.dtype), like.device_mesh, like.placements)


def shard(module: LossModule, mesh: Any) -> LossModule:
    """Shares out the parameters of a loss module, by block and the rest at once, over the last dimension of `mesh`."""
    from torch.distributed.fsdp import fully_shard

    for block in module.model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def _told(tensors: Mapping[str, Tensor]) -> list[tuple[str, list[int], str, float | None]]:
    """Key, shape, dtype and, of a single number, the value of each tensor: what all must know to deal parts."""
    return [
        (key, list(t.shape), str(t.dtype).removeprefix("torch."), None if t.ndim else float(t))
        for key, t in tensors.items()
    ]


def _laid_out(tensor: Tensor) -> DTensor:
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return tensor
