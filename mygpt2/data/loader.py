"""The loader: an endless, exactly resumable sequence of batches, made ahead of their use.

The batches are a pure function of the manifest, the tokenizer, the seed, the lanes, the batch size, the block size,
and the order's settings. Ranks, threads, prefetch depth, micro-batch and cache state never enter: worker threads only
make token blocks, and one assembling thread asks for them and builds the batches in order. The global batch of step s
has in slot j the row s*G/V + floor(j/V) of lane j mod V; rank r owns the lanes l = r (mod R).
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.schema import DataConfig
from mygpt2.data.arrange import Arranger, InOrder, ReplaceOne, Shuffled
from mygpt2.data.batch import Batch, check_state, starting_cursor
from mygpt2.data.blocks import BlockMaker, BlockPool
from mygpt2.data.cache import TokenCache
from mygpt2.data.checked import BlockChecks
from mygpt2.data.conveyor import Conveyor
from mygpt2.data.heldout import settled
from mygpt2.data.lane import LaneFeed, TokenEstimate
from mygpt2.data.order import BlockOrder
from mygpt2.data.packing import LaneStream, TokenBlock, Window
from mygpt2.data.scan import BlockReader, Stopped
from mygpt2.data.shape import block_order, choose_shape
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
    """One rank's batches. Make it with `open`, ask with `poll`, end it with `close` (or use it in a `with`)."""

    @classmethod
    def open(
        cls,
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
    ) -> Loader:
        """Resolve the source and start making batches, from `state` where there is one.

        UserError when the shape is impossible or `state` belongs to other data; `fork` (or data.fork) then starts a new
        order on purpose. `manifest`, `reader` and `clock` stand in for those that the source would give. `checks_file`
        keeps the checksums of the blocks with the run, as the cache folder does. `watch` knows which text changed since
        it was read before, and is closed with the loader.
        """
        if manifest is None:
            manifest = resolve(data.source, data, cache_dir=cache_dir)
        if reader is None:
            reader = open_reader(
                manifest, cache_dir=cache_dir, eot_id=tokenizer.eot_id, outage_minutes=data.outage_minutes
            )
        return cls(
            data, manifest, reader, tokenizer, block_size, batch_sequences, seed, rank, world_size, cache_dir, state,
            fork or data.fork, clock or Clock(), checks_file, watch,
        )  # fmt: skip

    def __init__(
        self,
        data: DataConfig,
        manifest: Manifest,
        reader: BlockReader,
        tokenizer: TokenizerLike,
        block_size: int,
        batch_sequences: int,
        seed: int,
        rank: int,
        world_size: int,
        cache_dir: Path,
        state: dict[str, Any] | None,
        fork: bool,
        clock: Clock,
        checks_file: Path | None,
        watch: SourceWatch | None,
    ) -> None:
        data = settled(data, manifest)
        self.data, self.manifest = data, manifest
        self._watch = watch
        self._reader, self._block_size, self._rank, self._world_size = reader, block_size, rank, world_size
        shape = choose_shape(data, manifest, batch_sequences, world_size)
        self.lanes = shape.lanes
        self._rows = batch_sequences // self.lanes  # per lane and step
        self._dtype = np.dtype(tokenizer.dtype)
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
        check_state(state, self.fingerprint, fork)
        cursor, quarantine = starting_cursor(state, self.fingerprint)
        self._left_out: Counter[str] = Counter()  # of the windows that the batches made so far need
        self._entered: dict[int, tuple[int, int]] = {}  # the newest of those windows, by this rank's lanes
        self.quarantine_reasons = dict.fromkeys(quarantine, EARLIER)
        self._bad = set(quarantine)

        self._stop = threading.Event()
        self._ready: Conveyor[Batch] = Conveyor(max(2, data.prefetch_steps))
        self.cache = TokenCache(cache_dir / "tokens", int(data.cache_gb * 1e9)) if data.token_cache else None
        self.checks = BlockChecks(manifest.fingerprint, cache_dir, checks_file)
        changed = watch.blocks() if watch else []
        if fork or changed:
            self.checks.forget(files=rank == 0)
        self._tokenizer = BlockTokenizer(tokenizer, data, hurry=not cursor.any())
        self._maker = BlockMaker(
            manifest, reader, self._tokenizer, data, self.cache, clock, self._stop, quarantine, self.checks
        )
        self._maker.forget(changed)
        self._pool = BlockPool(data.threads or default_threads())
        order = block_order(data, manifest, shape, seed)
        estimate = TokenEstimate()
        self._feeds = [
            LaneFeed(
                lane,
                order,
                self._arranger(order, lane),
                LaneStream(cursor[lane], block_size),
                self._pool,
                self._maker,
                estimate,
            )
            for lane in range(rank, self.lanes, world_size)
        ]
        self._order = order
        self._slots, self._slot_lanes = self._places()
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
        return self._ready.get(timeout_s)

    def close(self) -> None:
        """Stop the threads. Safe to call twice, and while blocks are being read."""
        self._stop.set()
        self._reader.close()  # first: a hub's reader may be waiting for minutes, and this ends it
        self._ready.close()
        self._pool.close()
        self._thread.join(timeout=5.0)  # a read that hangs in the network ends with the process
        self._tokenizer.close()
        if self._watch:
            self._watch.close()

    def _arranger(self, order: BlockOrder, lane: int) -> Arranger:
        if self.data.order == "lanes":
            return Shuffled(order.seed, lane)
        if self.data.order == "sequential":
            return InOrder()
        return ReplaceOne(order, lane, self.data.buffer_documents // self.lanes, self.manifest, self._bad)

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Global slot and lane of each of this rank's rows."""
        own = np.arange(self._rank, self.lanes, self._world_size)
        slots = (np.arange(self._rows)[:, None] * self.lanes + own).ravel()
        lanes = np.tile(own, self._rows)
        slots.flags.writeable = lanes.flags.writeable = False
        return slots, lanes

    def _run(self) -> None:
        try:
            for feed in self._feeds:
                feed.restore(self._load_now)
            steps = 1  # the first batch as soon as may be, then more and more at once
            while not self._stop.is_set():
                ready = self._fill(steps)
                for batch in self._assemble(min(ready, steps)):
                    self._ready.put(batch)
                    self._tokenizer.hurry_over()
                steps = min(2 * steps, self._most_steps())
        except Stopped:
            return
        except BaseException as error:  # raised to the caller by poll
            self._ready.fail(error)

    def _most_steps(self) -> int:
        """Steps that may be cut at once."""
        step_bytes = self._rows * len(self._feeds) * (self._block_size + 1) * self._dtype.itemsize
        return max(1, min(STEPS_AT_ONCE, ROWS_AT_ONCE // self._rows, BYTES_AT_ONCE // step_bytes))

    def _load_now(self, blocks: Iterable[int]) -> dict[int, TokenBlock]:
        futures = {block: self._pool.request(partial(self._maker.make, block), -1.0) for block in blocks}
        return {block: future.result() for block, future in futures.items()}

    def _fill(self, steps: int) -> int:
        """Wait until every lane can give one step, take what is ready for up to `steps`; returns what all can give."""
        rows = self._rows
        ahead = rows * self._block_size * (steps + self.data.prefetch_steps) + 1
        for feed in self._feeds:
            feed.ask(ahead)
        possible = steps
        for feed in self._feeds:
            while feed.stream.ready < rows or (feed.stream.ready < rows * steps and feed.ready):
                needed = feed.stream.ready < rows  # the next batch cannot be without this window
                window = feed.load()
                self.quarantine_reasons = {**window.quarantined, **self.quarantine_reasons}
                if needed:
                    self._check_quarantine(self._bad | window.quarantined.keys())
                feed.ask(ahead)
            possible = min(possible, feed.stream.ready // rows)
        return possible

    def _assemble(self, steps: int) -> Iterable[Batch]:
        """The next `steps` batches, from tokens that are loaded."""
        rows, lanes = self._rows, len(self._feeds)
        tokens = np.empty((steps * rows, lanes, self._block_size + 1), self._dtype)
        taken = [feed.stream.take(steps, rows, tokens[:, i]) for i, feed in enumerate(self._feeds)]
        cursors = np.stack([t.cursors for t in taken], axis=1)  # (steps, lanes, 5)
        news: list[list[Window]] = [[] for _ in range(steps)]  # the windows that each step is the first to need
        for feed, t in zip(self._feeds, taken, strict=True):
            for step, window in t.entered:
                if self._entered.get(feed.lane, (-1, -1)) < (window.epoch, window.window):
                    self._entered[feed.lane] = window.epoch, window.window
                    news[min(step, steps - 1)].append(window)
        pieces, shares = tuple(t.pieces for t in taken), np.stack([t.shares for t in taken], axis=1)  # (steps, lanes)
        by_step = tokens.reshape(steps, rows * lanes, self._block_size + 1)
        for step in range(steps):
            self._note(news[step])
            yield Batch(
                tokens=by_step[step],
                slots=self._slots,
                lanes=self._slot_lanes,
                cursor=cursors[step],
                quarantine=sorted(self._bad),
                left_out=self._left_out,
                _order=self._order,
                _shares=shares[step],
                _pieces=pieces,
                _rows=range(step * rows, (step + 1) * rows),
            )

    def _note(self, windows: Iterable[Window]) -> None:
        """What was left out of windows that the next batch is the first to need. UserError when that is too much."""
        for window in windows:
            self._left_out = self._left_out + Counter({**window.left_out, "met": window.met})
            self._bad.update(window.quarantined)
        self._check_quarantine(self._bad)

    def _check_quarantine(self, bad: set[int]) -> None:
        """UserError when this rank alone leaves out too much; what all ranks leave out, the trainer adds up."""
        reasons = {block: self.quarantine_reasons[block] for block in bad}
        check_quarantine(self.manifest, self.data.max_quarantine, reasons)


def default_threads() -> int:
    """One per core of this process's share, at least two so that reading and tokenizing overlap, at most 16."""
    return max(2, min(16, available_cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))
