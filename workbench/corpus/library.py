"""Opened sources: resolved once, read block by block, a few of them kept so that paging costs one block at most."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.scan import BlockReader
from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.filters import Filters
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import hub_cache
from mygpt2.data.sources.hub.parquet import Footers, HubParquetReader
from mygpt2.data.sources.local.unpack import compression_of
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import MixedReader, Mixture
from mygpt2.data.sources.resolve import open_reader, open_settled, resolve_data
from mygpt2.errors import UserError
from mygpt2.machine import cache_folder
from mygpt2.tokenizer import Tokenizer

KEPT_SOURCES = 4
KEPT_BLOCKS = 6
LOOK_SECONDS = 0.3  # between two words on how far an opening is
PATIENCE_MINUTES = 0.5  # someone is waiting in front of the page
MOST_COMPRESSED = 64 << 20  # a compressed file can only be read whole
Progress = Callable[[int, int], None]


class Opened:
    """A source with its reader. `read` gives the documents of a block; those of the last few blocks are kept."""

    def __init__(self, manifest: Manifest, cache_dir: Path, tokenizer: Tokenizer | None = None) -> None:
        self.manifest, self.cache_dir, self.tokenizer = manifest, cache_dir, tokenizer
        self.client: HubClient | None = None
        self.footers: Footers | None = None
        several = manifest.parts if isinstance(manifest, Mixture) else ()
        self._parts = [Opened(part.manifest, cache_dir, tokenizer) for part in several]
        self._reader = MixedReader(manifest, self._parts) if isinstance(manifest, Mixture) else self._open()
        self._blocks: OrderedDict[int, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, block: int) -> tuple[Opened, int]:
        """The one source that a block is of, and the block's number there."""
        if not isinstance(self.manifest, Mixture):
            return self, block
        number = self.manifest.part_of(block)
        return self._parts[number], block - self.manifest.parts[number].first

    def _open(self) -> BlockReader:
        if self.manifest.revision is None:
            eot = self.tokenizer.eot_id if self.tokenizer else 0
            return open_reader(self.manifest, cache_dir=self.cache_dir, eot_id=eot)
        self.client = HubClient()
        self.footers = Footers(hub_cache(self.cache_dir), self.client)
        return HubParquetReader(self.manifest, self.client, self.footers)

    def read(self, block: int) -> list[Any]:
        """The documents of a block, ids for a pre-tokenized source. UserError for what cannot be read now."""
        if self._parts:
            own, within = self.at(block)
            return own.read(within)
        with self._lock:
            if block in self._blocks:
                self._blocks.move_to_end(block)
                return self._blocks[block]
        self._check_size(block)
        where = self.manifest.describe(block)
        try:
            found = self._reader.read(block)
        except Unreadable as fault:
            raise UserError(
                f"{where} cannot be read: {fault.reason}; repair the file, or open the source again"
            ) from None
        except Outage as fault:
            raise UserError(f"{where}: the source does not answer ({fault.reason}); try again in a while") from None
        with self._lock:
            self._blocks[block] = found
            while len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return found

    def text(self, block: int, number: int) -> str | None:
        """One document as text; None for what is not text."""
        found = self.read(block)[number]
        return self.as_text(found)

    def as_text(self, found: Any) -> str | None:
        if isinstance(found, np.ndarray):
            return self.tokenizer.decode(found) if self.tokenizer else None
        return found if isinstance(found, str) else None

    def _check_size(self, block: int) -> None:
        file = self.manifest.file_of(block)
        if compression_of(file.name) and file.size > MOST_COMPRESSED:
            raise UserError(
                f"{file.name} is compressed and has {file.size >> 20} MB: all of it would have to be unpacked "
                "to show a part; unpack it, or convert it to parquet"
            )

    def close(self) -> None:
        with suppress(Exception):
            self._reader.close()


class Library:
    """Sources by name and text column, the last few. Usable from any thread."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        self.cache_dir = cache_dir or cache_folder()
        self._opened: OrderedDict[tuple[str, str], Opened] = OrderedDict()
        self._lock = threading.Lock()

    def open(
        self,
        data: DataConfig,
        tokenizer: Tokenizer | None = None,
        progress: Progress | None = None,
        fresh: bool = False,
    ) -> Opened:
        """The source of a configuration; `fresh` resolves it again. The first time may take long, see `progress`.

        TryAgain and UserError as `resolve` has them.
        """
        text = f"{data.model_dump_json(include={'source', 'mix', 'text_column'})} {Filters.of(data) or ''}"
        key = text, tokenizer.fingerprint if tokenizer else ""
        with self._lock:
            if key in self._opened and not fresh:
                self._opened.move_to_end(key)
                return self._opened[key]
        impatient = data.model_copy(update={"outage_minutes": PATIENCE_MINUTES})
        manifest = resolve_data(impatient, cache_dir=self.cache_dir, progress=progress)
        if manifest.revision is None:
            with suppress(UserError):  # without a document of text there is nothing to settle, and much to look at
                eot = tokenizer.eot_id if tokenizer else 0
                manifest, reader = open_settled(manifest, data, cache_dir=self.cache_dir, eot_id=eot)
                reader.close()
        return self._keep(key, Opened(manifest, self.cache_dir, tokenizer))

    def of_manifest(self, manifest: Manifest, tokenizer: Tokenizer) -> Opened:
        """The data that a run's trace refers to."""
        key = f"{manifest.fingerprint} {manifest.files[0].location}", tokenizer.fingerprint
        with self._lock:
            if key in self._opened:
                return self._opened[key]
        return self._keep(key, Opened(manifest, self.cache_dir, tokenizer))

    def _keep(self, key: tuple[str, str], opened: Opened) -> Opened:
        with self._lock:
            self._opened[key] = opened
            gone = [self._opened.popitem(last=False)[1] for _ in range(len(self._opened) - KEPT_SOURCES)]
        for old in gone:
            old.close()
        return opened


def opening(library: Library, data: DataConfig, tokenizer: Tokenizer | None, fresh: bool) -> Iterator[str | Opened]:
    """What is being done, as long as it lasts, then the source: harvesting text, or reading footers, takes a while.

    Raises what `Library.open` raises.
    """
    at = (0, 0)
    ended: list[Opened | BaseException] = []

    def advance(done: int, total: int) -> None:
        nonlocal at
        at = done, total

    def work() -> None:
        try:
            ended.append(library.open(data, tokenizer, advance, fresh))
        except BaseException as error:  # raised again by whoever waits
            ended.append(error)

    thread = threading.Thread(target=work, name=f"open {data.source}", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        if thread.is_alive():
            yield f"resolving {data.source}" + (f": {at[0]:,} of {at[1]:,} parts" if at[1] else "")
    found = ended[0]
    if isinstance(found, BaseException):
        raise found
    yield found
