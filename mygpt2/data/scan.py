"""Reading blocks: one through outages, and many in a given order, some ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Protocol, TypeVar

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.faults import Clock, Outage, OutageClock, Unreadable
from mygpt2.data.sources.local.unpack import Changed
from mygpt2.data.sources.manifest import Manifest
from mygpt2.errors import TryAgain, shown

T = TypeVar("T")


class BlockReader(Protocol):
    """Reads the documents of a block: texts, or arrays of ids for the kind `tokens`. Thread-safe.

    Raises Unreadable for permanent faults, Outage when the source does not answer.
    """

    def read(self, block: int, /) -> list[Any]: ...

    def close(self) -> None: ...


class Stopped(Exception):
    """Nobody waits for the result any more."""


def patiently(
    read: Callable[[], T],
    manifest: Manifest,
    data: DataConfig,
    clock: Clock,
    stop: Event,
    outages: set[OutageClock] | None = None,
) -> T:
    """What `read` returns, tried again while the source is out of reach; `outages` holds the one that is waited out.

    TryAgain when it lasts longer than data.outage_minutes, Stopped when `stop` is set meanwhile.
    """
    outage = OutageClock(data.outage_minutes * 60.0, clock)
    try:
        return outage.wait_out(read, stop, outages)
    except Outage as fault:
        if not outage.expired:
            raise Stopped from fault
        raise TryAgain(
            f"{manifest.source}: {fault.reason}, out of reach for {outage.spent_s:.0f} s; "
            f"data.outage_minutes={data.outage_minutes:g} allows no more; start the same command again "
            "when the source answers, or raise data.outage_minutes"
        ) from fault


class Dependable:
    """A reader for choices that are kept: one failed reading must not make another validation set for good.

    A block is read again before it counts as unreadable. What the system refuses, or a file that was changed, is no
    property of the data: TryAgain.
    """

    def __init__(self, reader: BlockReader, manifest: Manifest) -> None:
        self._reader, self._manifest, self.close = reader, manifest, reader.close

    def read(self, block: int) -> list[Any]:
        try:
            return self._reader.read(block)
        except Unreadable as fault:
            if _of_the_file(fault.__cause__):
                raise
        try:
            return self._reader.read(block)
        except Unreadable as fault:
            if fault.__cause__ is not None and not _of_the_file(fault.__cause__):
                raise TryAgain(
                    f"{self._manifest.describe(block)} of {shown(self._manifest.source)} cannot be read "
                    f"({fault.reason}), and what is held out for validation depends on it; see to the file, then start "
                    "the same command again"
                ) from fault
            raise


def _of_the_file(cause: BaseException | None) -> bool:
    """A damage that was seen in the bytes; not what the system or the way here may have done."""
    system = isinstance(cause, Changed) or (isinstance(cause, OSError) and cause.errno)
    return cause is not None and not system


def spread(n: int) -> Iterator[int]:
    """0 .. n-1, each once, such that any first few are spread evenly: bit-reversed counting."""
    bits = max(1, (n - 1).bit_length())
    for i in range(1 << bits):
        block = int(f"{i:0{bits}b}"[::-1], 2)
        if block < n:
            yield block


def scan(
    reader: BlockReader,
    manifest: Manifest,
    blocks: Iterable[int],
    data: DataConfig,
    *,
    threads: int,
    work: Callable[[int, list[Any]], Any] = lambda _, documents: documents,
    clock: Clock | None = None,
) -> Iterator[tuple[int, Any]]:
    """(block, `work(block, documents)`) in the order of `blocks`, or (block, the Unreadable that says why not).

    `work` runs in the threads that read. Raises TryAgain when the source is out for longer than its budget. What ends
    it before its time (a stop, Ctrl-C, an outage) closes the reader: a process cannot end while a thread waits for it.
    """
    clock, stop = clock or Clock(), Event()

    def one(block: int) -> Any:
        try:
            return work(block, patiently(lambda: reader.read(block), manifest, data, clock, stop))
        except Unreadable as fault:
            return fault

    pool = ThreadPoolExecutor(threads, thread_name_prefix="scan")
    pending: deque[tuple[int, Future[Any]]] = deque()
    try:
        for block in blocks:
            pending.append((block, pool.submit(one, block)))
            if len(pending) > 2 * threads:
                number, future = pending.popleft()
                yield number, future.result()
        while pending:
            number, future = pending.popleft()
            yield number, future.result()
    except GeneratorExit:  # whoever reads has enough
        raise
    except BaseException:
        reader.close()
        raise
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
