"""One source as a loader reads it, and a lane as it is put together from one or several of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.batch import LaneRows
from mygpt2.data.blocks import BlockMaker, BlockPool
from mygpt2.data.cache import TokenCache
from mygpt2.data.checked import BlockChecks
from mygpt2.data.lane import Buffer, Window, windows
from mygpt2.data.packing import LaneStream
from mygpt2.data.scan import BlockReader
from mygpt2.data.shape import Shape, block_order
from mygpt2.data.sources.faults import Clock
from mygpt2.data.sources.mixture import Part
from mygpt2.data.tokenize import BlockTokenizer, TokenizerLike


class Source:
    """The blocks of one source: their order, and who makes their tokens. Blocks are numbered as in the mixture outside,
    and from 0 on inside."""

    def __init__(
        self,
        part: Part,
        data: DataConfig,
        shape: Shape,
        seed: int,
        tokenizer: TokenizerLike,
        reader: BlockReader,
        checks: BlockChecks,
        *,
        cache: TokenCache | None,
        clock: Clock,
        stop: threading.Event,
        pool: BlockPool,
        quarantine: Iterable[int],
        changed: Iterable[int],
    ) -> None:
        """`data`: the source's own settings. `changed`: blocks of which the text is another now."""
        self._part, self._data, self._pool = part, data, pool
        self._quarantine = self._within(quarantine)
        self.order = block_order(data, part.manifest, shape, seed)
        self.tokenizer = BlockTokenizer(tokenizer, data, part.elsewhere)
        self.maker = BlockMaker(
            part.manifest, reader, self.tokenizer, data, cache, checks, clock, stop, self._quarantine
        )
        self.maker.forget(self._within(changed))

    def windows(self, lane: int, cursor: Sequence[int] | np.ndarray) -> Iterator[Window]:
        """The windows of a lane, endlessly. Asks for the first blocks at once."""
        buffer = None
        if self._data.order == "buffer":
            size = self._data.buffer_documents // self.order.lanes
            buffer = Buffer(self.order, lane, size, self._part.manifest, self._quarantine)
        found = windows(self.order, lane, cursor, self.maker, self._pool, buffer, self._part.name)
        return map(self._numbered, found) if self._part.first else found

    def _within(self, blocks: Iterable[int]) -> list[int]:
        first = self._part.first
        return [block - first for block in blocks if first <= block < first + len(self._part.manifest)]

    def _numbered(self, window: Window) -> Window:
        first = self._part.first
        bad = {block + first: why for block, why in window.quarantined.items()}
        return replace(window, blocks=window.blocks + np.int32(first), quarantined=bad)


def checks_of(run_file: Path | None, part: Part) -> Path | None:
    """Where a run keeps the checksums of a source's blocks: of a mixture, each source has a file of its own."""
    return run_file.with_stem(f"{run_file.stem}-{part.name}") if run_file and part.name else run_file


@dataclass(frozen=True)
class TakenRows:
    """What `Lane.take` tells about the rows it filled."""

    rows: LaneRows
    cursors: np.ndarray  # (steps, 5 S) int64 after each step
    shares: np.ndarray  # (steps, S) how much of the cursor's windows is behind it


@dataclass
class Lane:
    """The loaded part of one lane: a stream for each source, and which row comes next."""

    number: int
    row: int  # of the lane, since its order began
    streams: list[tuple[LaneStream, Iterator[Window]]]
    coming: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # the sources of the next rows

    def take(self, steps: int, rows: int, out: np.ndarray) -> TakenRows:
        """Fill `out` (steps*rows, T+1) with the next rows and move on by as many."""
        count = steps * rows
        sources, places = self.coming[:count], np.empty(count, np.int64)
        taken = []
        for number, (stream, _) in enumerate(self.streams):
            own = np.flatnonzero(sources == number)
            places[own] = np.arange(len(own))
            taken.append(stream.take(np.bincount(own // rows, minlength=steps), out, own))
        self.row += count
        found = LaneRows([each.pieces for each in taken], sources, places)
        return TakenRows(found, np.hstack([t.cursors for t in taken]), np.column_stack([t.shares for t in taken]))
