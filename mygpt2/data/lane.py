"""A lane's windows: the documents of a few blocks at a time, in the order in which they are trained on.

A window's documents are permuted, and then its rows, keyed by (seed, epoch, lane, window): nothing to save. For study
they come in file order, or through a rolling buffer.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np

from mygpt2.data.blocks import BlockMaker, BlockPool, FirstBlock
from mygpt2.data.order import BlockOrder, permutation, random_words
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.tokenize import TokenBlock, left_out_of
from mygpt2.errors import UserError

FRUITLESS_EPOCHS = 1000  # a lane that meets only empty blocks this often in a row will not meet another


@dataclass(frozen=True)
class Window:
    """The documents of a few blocks in the order in which they are trained on; left-out ones stay with length 0."""

    epoch: int
    window: int
    tokens: np.ndarray  # (tokens,) in training order
    ends: np.ndarray  # (documents,) int64, cumulative: document i is tokens[ends[i - 1]:ends[i]]
    blocks: np.ndarray  # (documents,) int32
    documents: np.ndarray  # (documents,) int32, the number within the block
    left_out: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[int, str] = field(default_factory=dict)  # blocks met up to here, with the reason
    met: int = 0  # documents met up to here, left out or not, those of windows without tokens before it included
    row_key: tuple[int | str, ...] | None = None  # of the order of its rows; None: as they come


class Windows(Iterator[Window]):
    """The windows of a lane from a cursor on, endlessly; the next one is made while one is used.

    One without tokens comes out as well, and what was left out of it once more with the first that has some.
    """

    def __init__(
        self,
        order: BlockOrder,
        lane: int,
        cursor: Sequence[int] | np.ndarray,
        maker: BlockMaker,
        pool: BlockPool,
        buffer: Buffer | None = None,
        *,
        name: str = "",
        first: int = 0,
    ) -> None:
        """Asks for the first blocks at once. `name` is what a mixture calls the source, `first` the number that its
        block 0 has there."""
        self._order, self._lane, self._maker, self._pool, self._buffer = order, lane, maker, pool, buffer
        self._name, self._first = name, first
        self._parted: dict[int, FirstBlock] = {}
        begin = int(cursor[0]), int(cursor[1])
        self._asked = deque([self._ask(*begin)])
        self._restore = begin if buffer is not None else None  # the place at which the buffer is to be as it was
        self._empty: Window | None = None  # the windows before the next one, where they had no tokens
        self._fruitful = begin[0]  # the last epoch with tokens

    @property
    def at_hand(self) -> bool:
        """The next window has tokens and nobody would wait for it. Always False for a buffer, which is filled first."""
        futures = self._asked[0][2]
        if self._buffer is not None or not all(future.done() for future in futures):
            return False
        return not any(f.exception() for f in futures) and any(len(f.result().ids) for f in futures)

    def __next__(self) -> Window:
        """UserError when no block of the source has a training document: the lane would look for one for ever."""
        if self._buffer is not None and self._restore is not None:
            place, self._restore = self._restore, None
            self._buffer.restore(*place, lambda blocks: [self._pool.submit(self._maker.make, b) for b in blocks])
        self._asked.append(self._ask(*self._order.following(self._lane, *self._asked[-1][:2])))
        found = self._arranged(*self._asked.popleft())  # the blocks that it was made of are forgotten here
        if self._empty is not None:
            found = replace(
                found,
                left_out=Counter(self._empty.left_out) + Counter(found.left_out),
                quarantined={**self._empty.quarantined, **found.quarantined},
                met=self._empty.met + found.met,
            )
        if len(found.tokens):
            self._empty, self._fruitful = None, found.epoch
            return found
        self._empty = found
        fruitless = found.epoch - self._fruitful > (FRUITLESS_EPOCHS if self._order.shuffled else 1)
        if fruitless or self._maker.all_empty:
            raise UserError(
                f"{f'source {self._name} of data.mix' if self._name else 'data.source'} has no training document for "
                f"lane {self._lane}: each is empty, not text, too long, filtered, "
                "held out or unreadable; give another data.source, fewer data.lanes or a lower "
                "data.validation_fraction"
            )
        return found

    def _ask(self, epoch: int, window: int) -> tuple[int, int, list[Future[TokenBlock]]]:
        blocks = self._order.window_blocks(self._lane, epoch, window)
        if self._order.part_of(epoch, window) is None:
            self._parted.clear()
            return epoch, window, [self._pool.submit(self._maker.make, block) for block in blocks]
        for block in blocks:
            self._parted.setdefault(block, FirstBlock(self._maker, block, self._order.parts))
        return epoch, window, [self._pool.submit(self._parted[block].part, window) for block in blocks]

    def _arranged(self, epoch: int, window: int, futures: list[Future[TokenBlock]]) -> Window:
        parts = [future.result() for future in futures]
        if self._buffer is not None:
            found = self._buffer.arrange(epoch, window, parts)
        else:
            order = self._order
            found = arrange(epoch, window, parts, (order.seed, epoch, self._lane, window) if order.shuffled else None)
        if not self._first:
            return found
        bad = {block + self._first: why for block, why in found.quarantined.items()}
        return replace(found, blocks=found.blocks + np.int32(self._first), quarantined=bad)


def arrange(epoch: int, window: int, parts: Sequence[TokenBlock], key: tuple[int | str, ...] | None) -> Window:
    """The documents of `parts`, permuted by `key`, and its rows by another one of it; None: as they come."""
    lengths = np.concatenate([p.lengths for p in parts]) if parts else np.empty(0, np.int64)
    which = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    numbers = np.concatenate([p.first + np.arange(len(p)) for p in parts]) if parts else np.empty(0, np.int64)
    starts = np.concatenate([np.cumsum(p.lengths) - p.lengths for p in parts]) if parts else np.empty(0, np.int64)
    if key is not None:
        order = permutation(len(lengths), "documents", *key)
        lengths, which, numbers, starts = lengths[order], which[order], numbers[order], starts[order]
    places = zip(which.tolist(), starts.tolist(), (starts + lengths).tolist(), strict=True)
    pieces = [parts[i].ids[a:b] for i, a, b in places if a < b]
    blocks = np.array([p.block for p in parts], np.int32)[which]
    found = _window(epoch, window, parts, pieces, lengths, blocks, numbers.astype(np.int32))
    return found if key is None else replace(found, row_key=("rows", *key))


def _window(
    epoch: int,
    window: int,
    parts: Sequence[TokenBlock],
    pieces: Sequence[np.ndarray],
    lengths: np.ndarray,
    blocks: np.ndarray,
    documents: np.ndarray,
) -> Window:
    """The window of documents with those tokens and names, and what was left out of the blocks that it is made of."""
    dtype = parts[0].ids.dtype if parts else np.dtype(np.uint16)
    tokens = np.concatenate(pieces) if pieces else np.empty(0, dtype)
    bad = {p.block: p.unreadable for p in parts if p.unreadable is not None}
    met = sum(len(part) for part in parts)
    return Window(epoch, window, tokens, np.cumsum(lengths), blocks, documents, left_out_of(parts), bad, met)


class Buffer:
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

    def restore(self, epoch: int, window: int, load: Callable[[list[int]], list[Future[TokenBlock]]]) -> None:
        """Take the state that the buffer had before the given window."""
        self._held, self._tokens = [], {}
        for earlier in range(window):
            for block in self._order.window_blocks(self._lane, epoch, earlier):
                rows = -1 if self._manifest.pieces else int(self._manifest.blocks["rows"][block])
                if block in self._quarantine:
                    rows = 0
                elif rows < 0:
                    rows = len(load([block])[0].result())
                self._pass_through(epoch, earlier, [(block, i) for i in range(rows)])
        for future in load(sorted({block for block, _ in self._held})):
            part = future.result()
            self._keep(part, [document for block, document in self._held if block == part.block])

    def arrange(self, epoch: int, window: int, parts: Sequence[TokenBlock]) -> Window:
        """The documents that the blocks of the next window push out."""
        for part in parts:
            self._keep(part, range(len(part)))
        emitted = self._pass_through(epoch, window, [(part.block, i) for part in parts for i in range(len(part))])
        if self._order.following(self._lane, epoch, window)[0] != epoch:
            order = permutation(len(self._held), "drain", self._order.seed, epoch, self._lane)
            emitted += [self._held[i] for i in order.tolist()]
            self._held = []
        pieces = [self._tokens.pop(name) for name in emitted]
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        names = np.array(emitted, dtype=np.int32).reshape(-1, 2)
        return _window(epoch, window, parts, pieces, lengths, names[:, 0].copy(), names[:, 1].copy())

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
