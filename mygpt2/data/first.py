"""A block that a lane begins with, made in parts, so that a run's first batch does not wait for whole blocks.

It is read once. When all parts are made, they are put together for the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from mygpt2.data.blocks import BlockMaker, ReadBlock
from mygpt2.data.packing import REFERENCE, TokenBlock


class FirstBlock:
    """One block by parts; part i holds the documents from bounds[i] to bounds[i + 1], as shares of bounds[-1]."""

    def __init__(self, maker: BlockMaker, block: int, bounds: Sequence[int]) -> None:
        self._maker, self._block, self._bounds = maker, block, bounds
        self._lock = threading.Lock()
        self._read: ReadBlock | None = None
        self._whole: TokenBlock | None = None  # from the cache, or without documents
        self._made: dict[int, TokenBlock] = {}

    def part(self, index: int) -> TokenBlock:
        """Thread-safe; parts may be asked for in any order, and each again."""
        with self._lock:
            if self._whole is None and self._read is None:
                found = self._maker.find_or_read(self._block)
                if isinstance(found, TokenBlock):
                    self._whole = found
                else:
                    self._read = found
            if self._whole is not None:
                return cut(self._whole, *self._range(index, len(self._whole.lengths)), last=self._is_last(index))
            if index not in self._made:
                assert self._read is not None
                start, stop = self._range(index, len(self._read.documents))
                self._made[index] = self._maker.tokenize(self._block, self._read.part(start, stop), start)
                if len(self._made) == len(self._bounds) - 1:
                    self._maker.keep(join([self._made[i] for i in range(len(self._made))]))
                    self._read = self._read.part(0, 0)  # the text is done with
            return self._made[index]

    def _range(self, index: int, documents: int) -> tuple[int, int]:
        start, stop = (documents * bound // self._bounds[-1] for bound in self._bounds[index : index + 2])
        return start, stop

    def _is_last(self, index: int) -> bool:
        return index == len(self._bounds) - 2


def cut(whole: TokenBlock, start: int, stop: int, last: bool) -> TokenBlock:
    """The documents [start, stop) of a block; what was left out of it is told with the last part."""
    ends = np.concatenate([[0], np.cumsum(whole.lengths)])
    ids = whole.ids[ends[start] : ends[stop]]
    return TokenBlock(
        whole.block, ids, whole.lengths[start:stop], whole.left_out if last else {}, whole.unreadable, first=start
    )


def join(parts: Sequence[TokenBlock]) -> TokenBlock:
    """The block that consecutive parts make."""
    left_out: dict[str, int] = {}
    for part in parts:
        for reason, count in part.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    ids, lengths = np.concatenate([p.ids for p in parts]), np.concatenate([p.lengths for p in parts])
    encoder = next((part.encoder for part in parts if part.encoder != REFERENCE), REFERENCE)
    return TokenBlock(parts[0].block, ids, lengths, left_out, encoder=encoder)
