"""Token blocks, made ahead of their use: from the cache, or read and tokenized, in threads.

Threads, not processes: Arrow, the encoders and the checksums release the interpreter's lock, and an array can be handed
over as it is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from mygpt2.config.data import DataConfig
from mygpt2.data.cache import TokenCache
from mygpt2.data.checked import BlockChecks, content_check
from mygpt2.data.heldout import hashes_of
from mygpt2.data.scan import BlockReader, Stopped, patiently
from mygpt2.data.sources.faults import Clock, OutageClock, Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.tokenize import REFERENCE, BlockTokenizer, TokenBlock, fast_name, joined

CLOSE_S = 5.0  # for which the end of a loader waits for reads under way
CHANGED = (
    "its text is not the one that was read before: the file was changed or is damaged; restore it, or take it as it is "
    "with --data.fork true"
)


@dataclass(frozen=True)
class ReadBlock:
    """The documents of a block, and the hash of each."""

    documents: Sequence[Any]
    hashes: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.documents)


class BlockMaker:
    """Makes one token block, from the cache or from the source, whatever it takes within the outage budget."""

    def __init__(
        self,
        manifest: Manifest,
        reader: BlockReader,
        tokenizer: BlockTokenizer,
        data: DataConfig,
        cache: TokenCache | None,
        checks: BlockChecks,
        clock: Clock,
        stop: threading.Event,
        known_bad: Iterable[int] = (),
    ) -> None:
        self._manifest, self._reader, self._tokenizer, self._data = manifest, reader, tokenizer, data
        self._cache, self._checks, self._clock, self._stop = cache, checks, clock, stop
        self._outages: set[OutageClock] = set()
        # Blocks without a training document, not worth reading again; those in quarantine from the start.
        self._empty = {block: tokenizer.nothing(block, "in quarantine") for block in known_bad}

    @property
    def waiting(self) -> str | None:
        """The longest outage at present."""
        outages = self._outages.copy()
        return str(max(outages, key=lambda outage: outage.spent_s)) if outages else None

    @property
    def all_empty(self) -> bool:
        """Every block of the source was read and none has a training document."""
        return len(self._empty) == len(self._manifest)

    def make(self, block: int) -> TokenBlock:
        """The tokens of a block; an unreadable one comes back without documents and with the reason."""
        found = self.find_or_read(block)
        return found if isinstance(found, TokenBlock) else self.keep(self.tokenize(block, found, 0, len(found)))

    def find_or_read(self, block: int) -> TokenBlock | ReadBlock:
        """The tokens where they are known (cached, or none at all), else the block's documents."""
        found = self._empty.get(block)
        if found is None:
            found = self._cached(block)
        if found is None:
            try:
                read = patiently(
                    lambda: self._checked(block), self._manifest, self._data, self._clock, self._stop, self._outages
                )
                if read.documents:
                    return read
                found = self._tokenizer.nothing(block)
            except Unreadable as fault:
                found = self._tokenizer.nothing(block, fault.reason)
        if not len(found.ids):
            self._empty[block] = found
        return found

    def tokenize(self, block: int, read: ReadBlock, start: int, stop: int) -> TokenBlock:
        """The tokens of the documents [start, stop) of a block."""
        return self._tokenizer.tokens(block, read.documents[start:stop], read.hashes[start:stop], start)

    def keep(self, made: TokenBlock) -> TokenBlock:
        """Put a whole tokenized block into the cache."""
        if not len(made.ids):
            self._empty[made.block] = made
        if self._cache is not None:
            self._cache.put(self._key(made.block, made.encoder), replace(made, check=self._checks.get(made.block)))
        return made

    def forget(self, blocks: Iterable[int]) -> None:
        """Drop the cached tokens of blocks whose text changed."""
        if self._cache is not None:
            for block in blocks:
                for encoder in {REFERENCE, fast_name()}:
                    self._cache.drop(self._key(block, encoder))

    def _cached(self, block: int) -> TokenBlock | None:
        """The tokens of a block as the cache has them, unless they are of another text than was read before."""
        if self._cache is None:
            return None
        for encoder in self._tokenizer.trusted:
            found = self._cache.get(self._key(block, encoder), block)
            if found is not None and found.check is not None and self._checks.agrees(block, found.check):
                return found
        return None

    def _key(self, block: int, encoder: str) -> str:
        data, tokenizer = self._data, self._tokenizer.tokenizer
        rules = [data.validation_fraction, data.max_document_chars, *self._tokenizer.elsewhere]
        return TokenCache.key(self._manifest.block_identity(block), tokenizer.fingerprint, encoder, rules)

    def _checked(self, block: int) -> ReadBlock:
        """The documents of a block. Unreadable when they are not those that were read before, twice."""
        for _ in range(2):  # the way here may have damaged them, once
            documents = self._reader.read(block)
            hashes = hashes_of(documents)
            if self._checks.agrees(block, content_check(hashes)):
                return ReadBlock(documents, hashes)
        raise Unreadable(block, CHANGED)


class FirstBlock:
    """A block that a lane begins with, read once and tokenized in parts: a run's first batch needs the first of them.

    Part i holds the documents from bounds[i] to bounds[i + 1], as shares of bounds[-1]. When all parts are made, they
    are put together for the cache.
    """

    def __init__(self, maker: BlockMaker, block: int, bounds: Sequence[int]) -> None:
        self._maker, self._block, self._bounds = maker, block, bounds
        self._lock = threading.Lock()
        self._found: TokenBlock | ReadBlock | None = None
        self._made: dict[int, TokenBlock] = {}

    def part(self, index: int) -> TokenBlock:
        """Thread-safe; parts may be asked for in any order."""
        with self._lock:
            if self._found is None:
                self._found = self._maker.find_or_read(self._block)
            found = self._found
            start, stop = (len(found) * bound // self._bounds[-1] for bound in self._bounds[index : index + 2])
            if isinstance(found, TokenBlock):
                return found.part(start, stop)
            made = self._made[index] = self._maker.tokenize(self._block, found, start, stop)
            if len(self._made) == len(self._bounds) - 1:
                self._found = self._maker.keep(joined([self._made[i] for i in sorted(self._made)]))
            return made


class BlockPool:
    """Threads that make blocks in the order in which they were asked for.

    They are daemons, unlike those of an executor: one that hangs in a read does not keep the process from ending.
    """

    def __init__(self, threads: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[TokenBlock], Callable[[int], TokenBlock], int] | None]
        self._jobs, self._lock, self._closed = queue.SimpleQueue(), threading.Lock(), False
        self._threads = [threading.Thread(target=self._work, name=f"data-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, make: Callable[[int], TokenBlock], number: int) -> Future[TokenBlock]:
        """`make(number)` in a thread; Stopped in place of its result when the pool is closed before."""
        future: Future[TokenBlock] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(Stopped())
            else:
                self._jobs.put((future, make, number))
        return future

    def close(self) -> None:
        """Drop what was not begun and wait for the threads."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)
        until = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, make, number = job
            try:
                if self._closed:
                    raise Stopped
                future.set_result(make(number))
            except BaseException as error:  # handed over to whoever waits for the block
                future.set_exception(error)
