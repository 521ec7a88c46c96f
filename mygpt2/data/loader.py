"""The loader: an endless, exactly resumable sequence of batches, made ahead of their use.

The batches are a pure function of the manifest, the tokenizer, the seed, the lanes, the batch size, the block size,
and the order's settings. Ranks, threads, prefetch depth, micro-batch and cache state never enter: worker threads only
make token blocks, and one assembling thread asks for them and builds the batches in order. The global batch of step s
has in slot j the row s*G/V + floor(j/V) of lane j mod V; rank r owns the lanes l = r (mod R). Of more ranks than
lanes R/V neighbours share the rows of one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.batch import CURSOR_FIELDS, EPOCH_UNITS, Batch, starting_point
from mygpt2.data.blocks import BlockMaker, BlockPool
from mygpt2.data.cache import TokenCache
from mygpt2.data.checked import BlockChecks
from mygpt2.data.heldout import settled
from mygpt2.data.lane import Buffer, Window, windows
from mygpt2.data.packing import LaneStream
from mygpt2.data.scan import BlockReader, Stopped
from mygpt2.data.shape import block_order, choose_shape, owned
from mygpt2.data.sources.faults import Clock
from mygpt2.data.sources.local.watch import SourceWatch
from mygpt2.data.sources.manifest import EARLIER, Manifest, check_quarantine
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.data.tokenize import BlockTokenizer, TokenizerLike
from mygpt2.machine import available_cores

ROWS_AT_ONCE = 64  # per lane: cutting rows for several steps together makes the cost per row negligible,
STEPS_AT_ONCE = 64
BYTES_AT_ONCE = 16_000_000  # and this bounds what lies ready in that way


class Loader:
    """One rank's batches: ask with `poll`, end it with `close` (or use it in a `with`)."""

    def __init__(
        self,
        data: DataConfig,
        *,
        tokenizer: TokenizerLike,
        block_size: int,
        batch_sequences: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        cache_dir: Path,
        state: dict[str, Any] | None = None,
        fork: bool = False,
        manifest: Manifest | None = None,
        reader: BlockReader | None = None,
        clock: Clock | None = None,
        checks_file: Path | None = None,
        watch: SourceWatch | None = None,
    ) -> None:
        """Resolve the source and start making batches, from `state` where there is one.

        UserError when the shape is impossible or `state` belongs to other data; `fork` (or data.fork) then starts a new
        order on purpose. `manifest`, `reader` and `clock` stand in for those that the source would give. `checks_file`
        keeps the checksums of the blocks with the run, as the cache folder does. `watch` knows which text changed since
        it was read before, and is closed with the loader.
        """
        if manifest is None:
            manifest = resolve(data.source, data, cache_dir=cache_dir)
        if reader is None:
            eot_id, minutes = tokenizer.eot_id, data.outage_minutes
            reader = open_reader(manifest, cache_dir=cache_dir, eot_id=eot_id, outage_minutes=minutes)
        data, fork = settled(data, manifest), fork or data.fork
        shape = choose_shape(data, manifest, batch_sequences, world_size)
        self.fingerprint = {
            "data": manifest.fingerprint,
            "tokenizer": tokenizer.fingerprint,
            "block_size": block_size,
            "batch_sequences": batch_sequences,
            "lanes": shape.lanes,
            "window": shape.window,
            "first": shape.first,
            "share": shape.share,
            "seed": seed,
            "order": f"buffer of {data.buffer_documents}" if data.order == "buffer" else data.order,
            "validation": data.validation_fraction,
            "max_document_chars": data.max_document_chars,
        }
        cursor, quarantine = starting_point(state, self.fingerprint, fork)
        self.data, self.manifest, self.lanes = data, manifest, shape.lanes
        self.quarantine_reasons = dict.fromkeys(quarantine, EARLIER)  # of what the batches made so far need
        self._left_out: Counter[str] = Counter()  # the same
        self._rows = batch_sequences // shape.lanes  # per lane and step
        self._block_size, self._dtype = block_size, np.dtype(tokenizer.dtype)

        self.cache = TokenCache(cache_dir / "tokens", int(data.cache_gb * 1e9)) if data.token_cache else None
        self._checks = BlockChecks(manifest.fingerprint, cache_dir, checks_file)
        changed = watch.blocks() if watch else []
        if fork or changed:
            self._checks.forget(files=rank == 0)
        self._stop, self._reader, self._watch = threading.Event(), reader, watch
        self._tokenizer = BlockTokenizer(tokenizer, data)
        self._maker = BlockMaker(
            manifest, reader, self._tokenizer, data, self.cache, self._checks, clock or Clock(), self._stop, quarantine
        )
        self._maker.forget(changed)
        self._pool = BlockPool(data.threads or default_threads())

        self._order = block_order(data, manifest, shape, seed)
        self.owned = owned(shape.lanes, rank, world_size)
        own, self._mine = self.owned.lanes, self.owned.rows(self._rows)
        self._streams = [LaneStream(cursor[lane], block_size) for lane in own]
        self._windows = [self._windows_of(lane, cursor[lane], quarantine) for lane in own]
        self._slots = np.add.outer(np.asarray(self._mine) * shape.lanes, own).ravel()
        self._slot_lanes = np.tile(own, len(self._mine))
        self._slots.flags.writeable = self._slot_lanes.flags.writeable = False
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(max(2, data.prefetch_steps))
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="data-assemble", daemon=True)
        self._thread.start()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> str | None:
        """Why the next batch is late, while a source is out of reach; else None."""
        return self._maker.waiting

    @property
    def encoder_name(self) -> str:
        return self._tokenizer.encoder_name

    def poll(self, timeout_s: float) -> Batch | None:
        """The next batch, or None when it is not ready within the time.

        What went wrong is raised here, after the batches made before it: TryAgain for an outage beyond its budget,
        UserError for what the person has to change.
        """
        if self._failure is None:
            try:
                found = self._ready.get(timeout=max(0.0, timeout_s))
            except queue.Empty:
                return None
            if isinstance(found, Batch):
                return found
            self._failure = found
        raise self._failure

    def places(self, batch: Batch | None) -> np.ndarray:
        """(V, 6) int64: cursor and progress, in EPOCH_UNITS, of this rank's lanes after a batch, 0 for all others: the
        sum over the ranks is all's. Of ranks that share a lane one speaks for it."""
        full = np.zeros((self.lanes, len(CURSOR_FIELDS) + 1), np.int64)
        if batch is not None and self.owned.part == 0:
            own = full[self.owned.lanes.start : self.owned.lanes.stop : self.owned.lanes.step]
            own[:, :-1], own[:, -1] = batch.cursor, batch.progress * EPOCH_UNITS
        return full

    def close(self) -> None:
        """Stop the threads. Safe to call twice, and while blocks are being read."""
        self._stop.set()
        self._reader.close()  # first: a hub's reader may be waiting for minutes, and this ends it
        self._pool.close()
        with contextlib.suppress(queue.Empty):  # the assembling thread may wait for room
            while True:
                self._ready.get_nowait()
        self._thread.join(timeout=5.0)  # a read that hangs in the network ends with the process
        if self._watch:
            self._watch.close()

    def _windows_of(self, lane: int, cursor: np.ndarray, quarantine: list[int]) -> Iterator[Window]:
        """Asks for the lane's first blocks at once."""
        buffer = None
        if self.data.order == "buffer":
            size = self.data.buffer_documents // self.lanes
            buffer = Buffer(self._order, lane, size, self.manifest, quarantine)
        return windows(self._order, lane, cursor, self._maker, self._pool, buffer)

    def _run(self) -> None:
        try:
            for batch in self._batches():
                self._ready.put(batch)
                if self._stop.is_set():
                    return
        except Stopped:
            return
        except BaseException as error:  # raised to the caller by poll
            self._ready.put(error)

    def _batches(self) -> Iterator[Batch]:
        """The first batch as soon as may be, then more and more cut at once."""
        step_bytes = self._rows * len(self._streams) * (self._block_size + 1) * self._dtype.itemsize
        most = max(1, min(STEPS_AT_ONCE, ROWS_AT_ONCE // self._rows, BYTES_AT_ONCE // step_bytes))
        steps = 1
        while True:
            for stream, windows_of in zip(self._streams, self._windows, strict=True):
                while stream.ready < self._rows:  # the next batch cannot be without the next window
                    self._enter(stream, next(windows_of))
            yield from self._cut(min(steps, *(stream.ready // self._rows for stream in self._streams)))
            steps = min(2 * steps, most)

    def _enter(self, stream: LaneStream, window: Window) -> None:
        """Add a window that the next batch needs. UserError when this rank alone leaves out too many blocks.

        What all ranks leave out, the trainer adds up.
        """
        stream.append(window)
        if len(window.tokens) and self.owned.part == 0:  # those who share the lane have left out the same
            self._left_out = self._left_out + Counter({**window.left_out, "met": window.met})
        self.quarantine_reasons = {**window.quarantined, **self.quarantine_reasons}
        check_quarantine(self.manifest, self.data.max_quarantine, self.quarantine_reasons)

    def _cut(self, steps: int) -> Iterator[Batch]:
        """The next `steps` batches, from tokens that are loaded."""
        rows, lanes, quarantine = self._rows, len(self._streams), sorted(self.quarantine_reasons)
        tokens = np.empty((steps * rows, lanes, self._block_size + 1), self._dtype)
        taken = [stream.take(steps, rows, tokens[:, i]) for i, stream in enumerate(self._streams)]
        cursors = np.stack([t.cursors for t in taken], axis=1)  # (steps, lanes, 5)
        shares = np.stack([t.shares for t in taken], axis=1)  # (steps, lanes)
        pieces, by_step = tuple(t.pieces for t in taken), tokens.reshape(steps, rows, lanes, self._block_size + 1)
        for step in range(steps):
            mine = by_step[step, self._mine.start : self._mine.stop]
            yield Batch(
                tokens=mine.reshape(-1, self._block_size + 1),
                slots=self._slots,
                lanes=self._slot_lanes,
                cursor=cursors[step],
                quarantine=quarantine,
                left_out=self._left_out,
                _order=self._order,
                _shares=shares[step],
                _pieces=pieces,
                _rows=range(step * rows + self._mine.start, step * rows + self._mine.stop),
            )


def default_threads() -> int:
    """One per core of this process's share, at least two so that reading and tokenizing overlap, at most 16."""
    return max(2, min(16, available_cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))
