"""One source as a loader reads it, and a lane as it is put together from one or several of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.batch import LaneRows
from mygpt2.data.blocks import BlockMaker, BlockPool
from mygpt2.data.cache import TokenCache
from mygpt2.data.checked import BlockChecks
from mygpt2.data.lane import Buffer, Windows
from mygpt2.data.mix import MixOrder
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

    def windows(self, lane: int, cursor: Sequence[int] | np.ndarray) -> Windows:
        """The windows of a lane, endlessly. Asks for the first blocks at once."""
        part, buffer = self._part, None
        if self._data.order == "buffer":
            size = self._data.buffer_documents // self.order.lanes
            buffer = Buffer(self.order, lane, size, part.manifest, self._quarantine)
        return Windows(self.order, lane, cursor, self.maker, self._pool, buffer, name=part.name, first=part.first)

    def _within(self, blocks: Iterable[int]) -> list[int]:
        first = self._part.first
        return [block - first for block in blocks if first <= block < first + len(self._part.manifest)]


def block_checks(part: Part, cache_dir: Path, run_file: Path | None, tokenizer: TokenizerLike) -> BlockChecks:
    """What is known of a source's blocks. Pre-tokenized ones are cut into documents by the end-of-text id: what was
    read with another tokenizer, to look at it say, tells nothing of what this one reads."""
    cut = f"-{tokenizer.eot_id}" if part.manifest.kind == "tokens" else ""
    return BlockChecks(part.manifest.fingerprint, cache_dir, checks_of(run_file, part), cut)


def checks_of(run_file: Path | None, part: Part) -> Path | None:
    """Where a run keeps the checksums of a source's blocks: of a mixture, each source has a file of its own."""
    return run_file.with_stem(f"{run_file.stem}-{part.name}") if run_file and part.name else run_file


@dataclass(frozen=True)
class TakenRows:
    """What `Lane.take` tells about the rows it filled."""

    rows: LaneRows
    cursors: np.ndarray  # (steps, 5 S) int64 after each step
    shares: np.ndarray  # (steps, S) how much of the cursor's windows is behind it
    entered: list[tuple[int, Entered]]  # what was met, with the step that needs it


@dataclass(frozen=True)
class Entered:
    """What was met on the way to a window: it counts from the batch on that needs the window, whenever it came."""

    source: int
    row: int  # the first one of the source in this lane that needs it
    left_out: Counter[str]  # and "met": all documents
    quarantined: Mapping[int, str]


class Lane:
    """The loaded part of one lane: a stream for each source, and which row comes next."""

    def __init__(
        self,
        number: int,
        row: int,
        streams: Sequence[LaneStream],
        windows: Sequence[Windows],
        quarantined: Callable[[Mapping[int, str]], None],
    ) -> None:
        """`row`: of the lane, since its order began. `streams` and `windows` by source. `quarantined` is told at once
        of what is met on the way to a window that the next batch needs, even if none is found."""
        self.number, self.row, self._streams, self._windows = number, row, streams, windows
        self._quarantined = quarantined
        self._coming = np.zeros(0, np.int64)  # the sources of the next rows
        self._entered: list[Entered] = []

    def fill(self, mix: MixOrder, steps: int, rows: int) -> int:
        """Enter windows; how many of the next `steps` steps of `rows` rows can be taken now, at least 1.

        The next batch needs its windows. Others come in where they are at hand, so that more can be cut at once.
        """
        known, count = len(self._coming), steps * rows
        if known < count:
            self._coming = np.append(self._coming, mix.sources(self.number, self.row + known, count - known))
        of_steps = self._coming[:count].reshape(-1, rows)
        for number, (stream, windows) in enumerate(zip(self._streams, self._windows, strict=True)):
            needed = np.cumsum((of_steps[:steps] == number).sum(axis=1))
            while True:
                ready = stream.ready
                waits = ready < needed[0] or stream.unopened
                if not waits and (ready >= needed[-1] or not windows.at_hand):
                    break
                window = next(windows)
                if waits:
                    self._quarantined(window.quarantined)
                if len(window.tokens):
                    left_out = Counter({**window.left_out, "met": window.met})
                    self._entered.append(Entered(number, stream.rows + ready, left_out, window.quarantined))
                    stream.append(window)
            steps = int(np.searchsorted(needed, ready, side="right"))
        return steps

    def take(self, steps: int, rows: int, out: np.ndarray) -> TakenRows:
        """Fill `out` (steps*rows, T+1) with the next rows and move on by as many."""
        count = steps * rows
        sources, self._coming = self._coming[:count], self._coming[count:]
        places = np.empty(count, np.int64)
        taken = []
        for number, stream in enumerate(self._streams):
            own = np.flatnonzero(sources == number)
            places[own] = np.arange(len(own))
            taken.append(stream.take(np.bincount(own // rows, minlength=steps), out, own))
        self.row += count
        found = LaneRows([each.pieces for each in taken], sources, places)
        cursors, shares = np.hstack([t.cursors for t in taken]), np.column_stack([t.shares for t in taken])
        needed_at = [
            (int(np.searchsorted(taken[e.source].cursors[:, -1], e.row, side="right")), e) for e in self._entered
        ]
        self._entered = [each for step, each in needed_at if step == steps]
        return TakenRows(found, cursors, shares, [(step, each) for step, each in needed_at if step < steps])
