"""The pool that makes token blocks ahead of their use: cache, or read and tokenize, in threads.

Threads, not processes: Arrow, the encoders and the checksums release the interpreter's lock, and an array can be handed
over as it is. What is wanted soonest is made first.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mygpt2.config.schema import DataConfig
from mygpt2.data.cache import TokenCache
from mygpt2.data.checked import BlockChecks, content_check
from mygpt2.data.heldout import hashes_of
from mygpt2.data.packing import REFERENCE, TokenBlock, quarantined_block
from mygpt2.data.scan import BlockReader, Stopped, patiently
from mygpt2.data.sources.faults import Clock, OutageClock, Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.tokenize import BlockTokenizer, fast_name

CLOSE_S = 5.0  # for which the end of a loader waits for reads under way
CHANGED = (
    "its text is not the one that was read before: the file was changed or is damaged; restore it, or take it as it is "
    "with --data.fork true"
)


@dataclass(frozen=True)
class ReadBlock:
    """The documents of a block, or of a part of it, and the hash of each."""

    documents: Sequence[Any]
    hashes: Sequence[int | None]

    def part(self, start: int, stop: int) -> ReadBlock:
        return ReadBlock(self.documents[start:stop], self.hashes[start:stop])


class BlockMaker:
    """Makes one token block, from the cache or from the source, whatever it takes within the outage budget."""

    def __init__(
        self,
        manifest: Manifest,
        reader: BlockReader,
        tokenizer: BlockTokenizer,
        data: DataConfig,
        cache: TokenCache | None,
        clock: Clock,
        stop: threading.Event,
        known_bad: Iterable[int] = (),
        checks: BlockChecks | None = None,
    ) -> None:
        self._manifest, self._reader, self._tokenizer, self._data = manifest, reader, tokenizer, data
        self._cache, self._clock, self._stop = cache, clock, stop
        self._checks = checks or BlockChecks(manifest.fingerprint)
        self._outages: set[OutageClock] = set()
        # Blocks without a training document, not worth reading again; those in quarantine from the start.
        self._empty = {b: quarantined_block(b, "in quarantine", tokenizer.tokenizer.dtype) for b in known_bad}

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
        if not isinstance(found, TokenBlock):
            found = self.tokenize(block, found)
            self.keep(found)
        return found

    def find_or_read(self, block: int) -> TokenBlock | ReadBlock:
        """The tokens where they are known (cached, or none at all), else the block's documents."""
        if block in self._empty:
            return self._empty[block]
        found = self._cached(block)
        if found is None:
            read = self._read(block)
            if not isinstance(read, TokenBlock) and read.documents:
                return read
            none = TokenBlock(block, np.empty(0, self._tokenizer.tokenizer.dtype), np.empty(0, np.int64))
            found = read if isinstance(read, TokenBlock) else none
        if not len(found.ids):
            self._empty[block] = found
        return found

    def tokenize(self, block: int, read: ReadBlock, first: int = 0) -> TokenBlock:
        """The tokens of documents of a block, from number `first` on."""
        kind = self._tokenizer.token_documents if self._manifest.kind == "tokens" else self._tokenizer.texts
        return replace(kind(block, read.documents, read.hashes), first=first)

    def keep(self, made: TokenBlock) -> None:
        """Put a whole tokenized block into the cache."""
        if not len(made.ids):
            self._empty[made.block] = made
        if self._cache is not None:
            self._cache.put(self._key(made.block, made.encoder), replace(made, check=self._checks.get(made.block)))

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
        rules = [data.validation_fraction, data.max_document_chars]
        return TokenCache.key(self._manifest.block_identity(block), tokenizer.fingerprint, encoder, rules)

    def _read(self, block: int) -> TokenBlock | ReadBlock:
        """The documents of a block, or what stands for an unreadable one."""
        try:
            return patiently(
                lambda: self._checked(block), self._manifest, self._data, self._clock, self._stop, self._outages
            )
        except Unreadable as fault:
            return quarantined_block(block, fault.reason, self._tokenizer.tokenizer.dtype)

    def _checked(self, block: int) -> ReadBlock:
        """The documents of a block. Unreadable when they are not those that were read before, twice."""
        for _ in range(2):  # the way here may have damaged them, once
            documents = self._reader.read(block)
            hashes = hashes_of(documents)
            if self._checks.agrees(block, content_check(hashes)):
                return ReadBlock(documents, hashes)
        raise Unreadable(block, CHANGED)


class BlockPool:
    """Worker threads over a queue ordered by need."""

    def __init__(self, threads: int) -> None:
        self._wanted: list[tuple[float, int, Callable[[], TokenBlock], Future[TokenBlock]]] = []
        self._condition = threading.Condition()
        self._closed = False
        self._number = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"data-{i}", daemon=True) for i in range(max(1, threads))
        ]
        for thread in self._threads:
            thread.start()

    def request(self, make: Callable[[], TokenBlock], need: float) -> Future[TokenBlock]:
        """Make a block; of all that are asked for, those with the smallest `need` first."""
        future: Future[TokenBlock] = Future()
        with self._condition:
            if self._closed:
                future.set_exception(Stopped())
            else:
                heapq.heappush(self._wanted, (need, self._number, make, future))
                self._number += 1
                self._condition.notify()
        return future

    def close(self) -> None:
        """Drop what was not begun and wait for the threads."""
        with self._condition:
            self._closed = True
            dropped = [future for *_, future in self._wanted]
            self._wanted.clear()
            self._condition.notify_all()
        for future in dropped:
            future.set_exception(Stopped())
        until = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))  # a read that hangs ends with the process

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._wanted and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                _, _, make, future = heapq.heappop(self._wanted)
            try:
                future.set_result(make())
            except BaseException as error:  # handed over to whoever waits for the block
                future.set_exception(error)
