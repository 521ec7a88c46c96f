"""Muon: momentum whose matrices are orthogonalised, many at a time, each by one rank.

The update is `torch.optim.Muon`'s (Keller Jordan, kellerjordan.github.io/posts/muon), and so are the names in its
state. The difference is in how it is computed: matrices of one shape go through Newton-Schulz together; in bfloat16
only where the device multiplies that in hardware (emulated it takes three times as long as forward and backward
together); and every rank does a share of the work, after which the ranks exchange their results in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from mygpt2.distributed import gathered, local, own_rows
from mygpt2.model.compiled import compiled

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic that pushes all singular values towards 1
ROUNDS = 5
LEAST_NORM = 1e-7
PILES = 8  # of one shape, at most: enough to deal evenly, few enough to keep a GPU busy

AllGather = Callable[[Tensor, Tensor], None]  # (of all ranks one after the other, this rank's)


def orthogonalise(x: Tensor) -> Tensor:
    """(n, rows, columns), rows <= columns, with every matrix's singular values brought near 1, in x's dtype."""
    for _ in range(ROUNDS):
        gram = x @ x.mT  # (n, rows, rows)
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        x = torch.baddbmm(x, polynomial, x, beta=A)
    return x


class Muon(torch.optim.Optimizer):
    """For 2-D parameters; `rank` of `size` orthogonalises its share, and `gather` brings all shares together.

    A matrix's update depends neither on `size` nor on who computes it: the piles that are worked on together are the
    same for any number of ranks. Where parameters are shared out (FSDP2) momentum is likewise; their
    directions are brought together pile by pile.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        size: int = 1,
        gather: AllGather | None = None,
        compile: bool = False,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        if len(self.param_groups) != 1 or any(p.ndim != 2 for p in self._matrices):
            raise ValueError("Muon takes one group of matrices")
        if size > 1 and gather is None:
            raise ValueError("several ranks must gather their updates")
        self.dtype, self.rank, self.size, self._gather = dtype, rank, size, gather
        self._orthogonalise = compiled(orthogonalise) if compile else orthogonalise
        self.shares = deal(piles(self._matrices), size)

    @property
    def _matrices(self) -> list[Tensor]:
        return cast(list[Tensor], self.param_groups[0]["params"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix. All of them must have a gradient, as they have after a backward pass."""
        group = self.param_groups[0]
        lr, momentum = float(group["lr"]), group["momentum"]
        for p in self._matrices:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [local(self.state[p]["momentum_buffer"]) for p in self._matrices]
        torch._foreach_lerp_(buffers, [local(cast(Tensor, p.grad)) for p in self._matrices], 1 - momentum)
        torch._foreach_mul_([local(p) for p in self._matrices], 1 - lr * group["weight_decay"])
        if self.size == 1:
            for pile in self.shares[0]:
                self._apply(pile, self._update(self._directions(pile, momentum)), lr)
            return
        for pile, update in self._exchanged(momentum):
            self._apply(pile, update, lr)

    def _directions(self, pile: list[Tensor], momentum: float) -> Tensor:
        """(n, rows, columns): one pile's Nesterov momentum. Where parameters are shared out, by all ranks at once."""
        gradients = [cast(Tensor, p.grad) for p in pile]
        both = zip(gradients, (self.state[p]["momentum_buffer"] for p in pile), strict=True)
        return torch.stack([gathered(gradient.lerp(buffer, momentum)) for gradient, buffer in both])

    def _update(self, x: Tensor) -> Tensor:
        """(n, rows, columns) in `dtype`: the directions orthogonalised, lying as they did."""
        x.div_(x.norm(dim=(1, 2), keepdim=True).clamp_(min=LEAST_NORM))
        tall = x.shape[1] > x.shape[2]
        x = self._orthogonalise((x.mT if tall else x).to(self.dtype).contiguous())
        return x.mT if tall else x

    def _exchanged(self, momentum: float) -> Iterable[tuple[list[Tensor], Tensor]]:
        """Every rank's updates, after one exchange: a rank's are laid end to end in a buffer of the largest share."""
        room = max(sum(p.numel() for pile in share for p in pile) for share in self.shares)
        device = self._matrices[0].device
        mine = torch.zeros(room, dtype=self.dtype, device=device)
        shared_out = local(self._matrices[0]) is not self._matrices[0]
        for rank, share in enumerate(self.shares):
            if rank == self.rank:
                for pile, place in _places(share, mine):
                    place.copy_(self._update(self._directions(pile, momentum)))
            elif shared_out:
                for pile in share:
                    self._directions(pile, momentum)  # this rank's parts, for the one who needs them whole
        everyones = torch.empty(self.size * room, dtype=self.dtype, device=device)
        cast(AllGather, self._gather)(everyones, mine)
        for share, part in zip(self.shares, everyones.split(room), strict=True):
            yield from _places(share, part)

    def _apply(self, pile: list[Tensor], update: Tensor, lr: float) -> None:
        rows, columns = pile[0].shape
        parts = [own_rows(whole, p) for whole, p in zip(update.unbind(), pile, strict=True)]
        torch._foreach_add_([local(p) for p in pile], parts, alpha=-lr * math.sqrt(max(1.0, rows / columns)))


def piles(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    """The matrices of each shape in at most `PILES` piles, in their order: a function of the model alone."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for p in matrices:
        by_shape.setdefault(p.shape, []).append(p)
    found = []
    for same in by_shape.values():
        each = -(-len(same) // PILES)
        found += [same[i : i + each] for i in range(0, len(same), each)]
    return found


def deal(stack: list[list[Tensor]], size: int) -> list[list[list[Tensor]]]:
    """One share of the piles for each rank, the largest first to whoever has least: the same on every rank."""
    shares: list[list[list[Tensor]]] = [[] for _ in range(size)]
    load = [0.0] * size
    for pile in sorted(stack, key=_work, reverse=True):
        least = load.index(min(load))
        shares[least].append(pile)
        load[least] += _work(pile)
    return shares


def _work(pile: list[Tensor]) -> float:
    """Multiplications of a round: gram, its square, and the product with the matrix."""
    short, long = sorted(pile[0].shape)
    return len(pile) * (2 * short * short * long + short**3)


def _places(share: list[list[Tensor]], buffer: Tensor) -> Iterable[tuple[list[Tensor], Tensor]]:
    """Each pile of a share with its place (n, rows, columns) in the share's buffer."""
    at = 0
    for pile in share:
        shape = (len(pile), *pile[0].shape)
        yield pile, buffer[at : at + math.prod(shape)].view(shape)
        at += math.prod(shape)
