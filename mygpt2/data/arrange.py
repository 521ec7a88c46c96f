"""How the documents of a lane are ordered: shuffled (training), or in file order or by a rolling buffer (study)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from mygpt2.data.order import BlockOrder, permutation, random_words
from mygpt2.data.packing import TokenBlock, Window, arrange, incidents
from mygpt2.data.sources.manifest import Manifest

Load = Callable[[Iterable[int]], dict[int, TokenBlock]]


class Arranger(Protocol):
    """Turns the blocks of a lane's windows into windows, called in the order of the windows."""

    def restore(self, epoch: int, window: int, load: Load) -> None:
        """Take the state that the arranger had before the given window."""

    def arrange(self, epoch: int, window: int, parts: Sequence[TokenBlock]) -> Window: ...


class Shuffled:
    """A window's documents permuted, and then its rows, keyed by (seed, epoch, lane, window): nothing to save."""

    def __init__(self, seed: int, lane: int) -> None:
        self._seed, self._lane = seed, lane

    def restore(self, epoch: int, window: int, load: Load) -> None:
        """A window depends on no other."""

    def arrange(self, epoch: int, window: int, parts: Sequence[TokenBlock]) -> Window:
        documents = sum(len(part.lengths) for part in parts)
        key = self._seed, epoch, self._lane, window
        return arrange(epoch, window, parts, permutation(documents, "documents", *key), ("rows", *key))


class InOrder:
    """Documents as they come."""

    def restore(self, epoch: int, window: int, load: Load) -> None:
        """A window depends on no other."""

    def arrange(self, epoch: int, window: int, parts: Sequence[TokenBlock]) -> Window:
        return arrange(epoch, window, parts, None)


class ReplaceOne:
    """The classic shuffle buffer: a new document takes the place of a random held one, which is emitted.

    The buffer fills first and is drained in random order at the end of a lane's epoch. It cannot be addressed:
    `restore` replays which documents it held from the epoch's start (counts come from the manifest where it has them)
    and reads the blocks of the held ones again. That is the weaker mode of this order; the result is exact all the
    same.
    """

    def __init__(self, order: BlockOrder, lane: int, size: int, manifest: Manifest, quarantine: Iterable[int]) -> None:
        self._order, self._lane, self._size, self._manifest = order, lane, max(1, size), manifest
        self._quarantine = frozenset(quarantine)
        self._held: list[tuple[int, int]] = []  # (block, document)
        self._tokens: dict[tuple[int, int], np.ndarray] = {}

    def restore(self, epoch: int, window: int, load: Load) -> None:
        self._held = []
        for earlier in range(window):
            for block in self._order.window_blocks(self._lane, epoch, earlier):
                self._pass_through(epoch, earlier, [(block, i) for i in range(self._count(block, load))])
        loaded = load(sorted({block for block, _ in self._held}))
        self._tokens = {}
        for part in loaded.values():
            self._keep(part, [document for block, document in self._held if block == part.block])

    def arrange(self, epoch: int, window: int, parts: Sequence[TokenBlock]) -> Window:
        arrivals = [(part.block, i) for part in parts for i in range(len(part.lengths))]
        for part in parts:
            self._keep(part, range(len(part.lengths)))
        emitted = self._pass_through(epoch, window, arrivals)
        if self._order.following(self._lane, epoch, window)[0] != epoch:
            emitted += self._drain(epoch)
        pieces = [self._tokens.pop(name) for name in emitted]
        dtype = parts[0].ids.dtype if parts else np.dtype(np.uint16)
        names = np.array(emitted, dtype=np.int32).reshape(-1, 2)
        return Window(
            epoch,
            window,
            np.concatenate([np.empty(0, dtype), *pieces]),
            np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
            names[:, 0].copy(),
            names[:, 1].copy(),
            *incidents(parts),
            len(arrivals),
        )

    def _count(self, block: int, load: Load) -> int:
        if block in self._quarantine:
            return 0
        rows = -1 if self._manifest.pieces else int(self._manifest.blocks["rows"][block])
        return rows if rows >= 0 else len(load([block])[block].lengths)

    def _keep(self, part: TokenBlock, documents: Iterable[int]) -> None:
        ends = np.cumsum(part.lengths)
        for i in documents:  # copies, so that a held document does not keep its block in memory
            self._tokens[part.block, i] = part.ids[ends[i] - part.lengths[i] : ends[i]].copy()

    def _pass_through(self, epoch: int, window: int, arrivals: list[tuple[int, int]]) -> list[tuple[int, int]]:
        words = random_words(len(arrivals), "buffer", self._order.seed, epoch, self._lane, window)
        slots = (words % np.uint64(self._size)).tolist()
        emitted = []
        for name, slot in zip(arrivals, slots, strict=True):
            if len(self._held) < self._size:
                self._held.append(name)
            else:
                emitted.append(self._held[slot])
                self._held[slot] = name
        return emitted

    def _drain(self, epoch: int) -> list[tuple[int, int]]:
        order = permutation(len(self._held), "drain", self._order.seed, epoch, self._lane)
        emitted = [self._held[i] for i in order.tolist()]
        self._held = []
        return emitted
