"""The loader: an endless, exactly resumable sequence of batches, made ahead of their use.

The batches are a pure function of the manifest, the tokenizer, the seed, the lanes, the batch size, the block size,
and the order's settings. Ranks, threads, prefetch depth, micro-batch and cache state never enter: worker threads only
make token blocks, and one assembling thread asks for them and builds the batches in order. The global batch of step s
has in slot j the row s*G/V + floor(j/V) of lane j mod V; rank r owns the lanes l = r (mod R). Of more ranks than
lanes R/V neighbours share the rows of one. A lane of a mixture has a stream for each source, and `MixOrder` says from
which of them each of its rows comes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.batch import (
    CURSOR,
    EPOCH_UNITS,
    Batch,
    earlier,
    fingerprint_of,
    loader_state,
    mean_epoch,
    starting_point,
)
from mygpt2.data.blocks import BlockPool
from mygpt2.data.cache import TokenCache
from mygpt2.data.mix import MixOrder
from mygpt2.data.packing import LaneStream
from mygpt2.data.scan import BlockReader, Stopped
from mygpt2.data.shape import choose_shapes, owned
from mygpt2.data.source import Entered, Lane, Source, block_checks
from mygpt2.data.sources.faults import Clock
from mygpt2.data.sources.local.watch import MixtureWatch, SourceWatch
from mygpt2.data.sources.manifest import EARLIER, Manifest, check_quarantine
from mygpt2.data.sources.mixture import parts_of
from mygpt2.data.sources.resolve import open_reader, resolve_data
from mygpt2.data.tokenize import TokenizerLike
from mygpt2.machine import available_cores

ROWS_AT_ONCE = 64  # per lane and source: cutting rows for several steps together makes the cost per row negligible,
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
        watch: SourceWatch | MixtureWatch | None = None,
    ) -> None:
        """Resolve the source and start making batches, from `state` where there is one.

        UserError when the shape is impossible or `state` belongs to other data; `fork` (or data.fork) then starts a new
        order on purpose. `manifest`, `reader` and `clock` stand in for those that the source would give. `checks_file`
        keeps the checksums of the blocks with the run, as the cache folder does. `watch` knows which text changed since
        it was read before, and is closed with the loader.
        """
        if manifest is None:
            manifest = resolve_data(data, cache_dir=cache_dir)
        if reader is None:
            eot_id, minutes = tokenizer.eot_id, data.outage_minutes
            reader = open_reader(manifest, cache_dir=cache_dir, eot_id=eot_id, outage_minutes=minutes)
        fork = fork or data.fork
        self.parts = parts_of(manifest, data)
        shapes = choose_shapes(data, self.parts, batch_sequences, world_size)
        self.fingerprint = fingerprint_of(
            data, manifest, self.parts, shapes, tokenizer, block_size, batch_sequences, seed
        )
        cursor, quarantine = starting_point(state, self.fingerprint, fork)
        self.before = earlier(state, self.fingerprint)
        self.data, self.manifest, self.lanes = data, manifest, shapes[0].lanes
        self.quarantine_reasons = dict.fromkeys(quarantine, EARLIER)  # of what the batches made so far need
        self._left_out_of: list[Counter[str]] = [Counter() for _ in self.parts]  # the same
        self._rows = batch_sequences // self.lanes  # per lane and step
        self._block_size, self._dtype = block_size, np.dtype(tokenizer.dtype)

        self.cache = TokenCache(cache_dir / "tokens", int(data.cache_gb * 1e9)) if data.token_cache else None
        self._stop, self._reader, self._watch = threading.Event(), reader, watch
        self._pool = BlockPool(data.threads or default_threads())
        changed, readers = watch.blocks() if watch else [], getattr(reader, "readers", (reader,))
        all_checks = [block_checks(part, cache_dir, checks_file, tokenizer) for part in self.parts]
        for checks in all_checks if fork or changed else ():
            checks.forget(files=rank == 0)
        self._sources = [
            Source(
                part, part.own(data), shape, seed, tokenizer, own_reader, checks, cache=self.cache,
                clock=clock or Clock(), stop=self._stop, pool=self._pool, quarantine=quarantine, changed=changed,
            )
            for part, shape, own_reader, checks in zip(self.parts, shapes, readers, all_checks, strict=True)
        ]  # fmt: skip
        self._mix = MixOrder([part.share for part in self.parts], self.lanes, seed)
        self._take_rows(cursor, rank, world_size)
        self._begin(max(2, data.prefetch_steps))

    def _take_rows(self, cursor: np.ndarray, rank: int, world_size: int) -> None:
        """The lanes, and the rows of each, that are this rank's. cursor: (V, 5 S), where every lane stands."""
        self.owned = owned(self.lanes, rank, world_size)
        own, self._mine = self.owned.lanes, self.owned.rows(self._rows)
        self._lanes = [self._lane(lane, cursor[lane].reshape(-1, CURSOR)) for lane in own]
        self._slots = np.add.outer(np.asarray(self._mine) * self.lanes, own).ravel()
        self._slot_lanes = np.tile(own, len(self._mine))
        self._slots.flags.writeable = self._slot_lanes.flags.writeable = False

    def _begin(self, steps: int) -> None:
        """Makes batches from here on, `steps` ahead of the one that is asked for."""
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(steps)
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
        return next((source.maker.waiting for source in self._sources if source.maker.waiting), None)

    @property
    def encoder_name(self) -> str:
        return self._sources[0].tokenizer.encoder_name

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
        """(V, 6 S) int64: cursors, then progress in EPOCH_UNITS, of this rank's lanes after a batch, 0 for all others:
        the sum over the ranks is all's. Of ranks that share a lane one speaks for it."""
        full = np.zeros((self.lanes, len(self.parts) * (CURSOR + 1)), np.int64)
        if batch is not None and self.owned.part == 0:
            own = full[self.owned.lanes.start : self.owned.lanes.stop : self.owned.lanes.step]
            cut = batch.cursor.shape[1]
            own[:, :cut], own[:, cut:] = batch.cursor, batch.progress * EPOCH_UNITS
        return full

    def read_places(self, places: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """(the cursor (V, 5 S) of all lanes, how often each source was gone through), from the sum of all ranks'
        `places`."""
        cut = len(self.parts) * CURSOR
        found = places.reshape(self.lanes, -1)
        return found[:, :cut], [mean_epoch(progress / EPOCH_UNITS) for progress in found[:, cut:].T]

    def epoch(self, epochs: Sequence[float]) -> float:
        """How often what is trained on was gone through: of a mixture, the mean of its sources' epochs by their
        shares."""
        return sum(part.share * epoch for part, epoch in zip(self.parts, epochs, strict=True))

    def state(self, cursor: np.ndarray, quarantine: Sequence[int], epochs: Sequence[float]) -> dict[str, Any]:
        """`loader_state` of a place that `read_places` gave."""
        return loader_state(self.fingerprint, cursor, quarantine, self.before, epochs)

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

    def _lane(self, lane: int, cursor: np.ndarray) -> Lane:
        """A lane at its cursor (S, 5). ValueError where that is no place of the mixture's order."""
        row = int(cursor[:, -1].sum())
        if self._mix.before(lane, row) != cursor[:, -1].tolist():
            raise ValueError(f"lane {lane} has {cursor[:, -1].tolist()} rows of its sources, which its order never has")
        streams = [LaneStream(at, self._block_size) for at in cursor]
        windows = [source.windows(lane, at) for source, at in zip(self._sources, cursor, strict=True)]
        return Lane(lane, row, streams, windows, self._quarantined)

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
        step_bytes = self._rows * len(self._lanes) * (self._block_size + 1) * self._dtype.itemsize
        rows_at_once = ROWS_AT_ONCE * len(self.parts)  # as many of each source
        most = max(1, min(rows_at_once // self._rows, BYTES_AT_ONCE // step_bytes))
        steps = 1
        while True:
            ready = steps
            for lane in self._lanes:
                ready = lane.fill(self._mix, ready, self._rows)
            yield from self._cut(ready)
            steps = min(2 * steps, most)

    def _quarantined(self, met: Mapping[int, str]) -> None:
        """Blocks that the next batch would have needed; UserError when this rank alone leaves out too many of them.

        What all ranks leave out, the trainer adds up.
        """
        self.quarantine_reasons = {**met, **self.quarantine_reasons}
        check_quarantine(self.manifest, self.data.max_quarantine, self.quarantine_reasons)

    def _left_out(self, source: int, met: Counter[str]) -> None:
        """Documents that the next batch's windows left out. Those who share a lane have left out the same."""
        if self.owned.part == 0:
            of_source = self._left_out_of[source] + met
            self._left_out_of = [*self._left_out_of[:source], of_source, *self._left_out_of[source + 1 :]]

    def _cut(self, steps: int) -> Iterator[Batch]:
        """The next `steps` batches, from tokens that are loaded."""
        rows, lanes = self._rows, len(self._lanes)
        tokens = np.empty((steps * rows, lanes, self._block_size + 1), self._dtype)
        taken = [lane.take(steps, rows, tokens[:, i]) for i, lane in enumerate(self._lanes)]
        cursors = np.stack([t.cursors for t in taken], axis=1)  # (steps, lanes, 5 S)
        shares = np.stack([t.shares for t in taken], axis=1)  # (steps, lanes, S)
        sources = np.stack([t.rows.sources for t in taken], axis=1).reshape(steps, rows, lanes)
        of_lanes, by_step = [t.rows for t in taken], tokens.reshape(steps, rows, lanes, self._block_size + 1)
        orders, entered = [source.order for source in self._sources], defaultdict[int, list[Entered]](list)
        for step, each in (found for t in taken for found in t.entered):
            entered[step].append(each)
        quarantine, left_out = sorted(self.quarantine_reasons), sum(self._left_out_of, Counter[str]())
        for step in range(steps):
            for each in entered[step]:
                self._left_out(each.source, each.left_out)
                self._quarantined(each.quarantined)
            if entered[step]:
                quarantine, left_out = sorted(self.quarantine_reasons), sum(self._left_out_of, Counter[str]())
            mine = slice(self._mine.start, self._mine.stop)
            yield Batch(
                tokens=by_step[step, mine].reshape(-1, self._block_size + 1),
                slots=self._slots,
                lanes=self._slot_lanes,
                sources=sources[step, mine].ravel(),
                cursor=cursors[step],
                quarantine=quarantine,
                left_out=left_out,
                left_out_of=self._left_out_of,
                _orders=orders,
                _shares=shares[step],
                _of_lanes=of_lanes,
                _rows=range(step * rows + mine.start, step * rows + mine.stop),
            )


def default_threads() -> int:
    """One per core of this process's share, at least two so that reading and tokenizing overlap, at most 16."""
    return max(2, min(16, available_cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))
