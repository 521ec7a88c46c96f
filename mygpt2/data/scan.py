"""Reading many blocks in a given order, some ahead, through outages: what preparing and validation have in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Protocol, TypeVar

from mygpt2.data.sources.faults import Clock, Outage, OutageClock, Unreadable
from mygpt2.data.sources.local.unpack import Changed
from mygpt2.data.sources.manifest import Manifest
from mygpt2.errors import TryAgain, shown

T = TypeVar("T")


class Reader(Protocol):
    """What is needed of a source: the documents of block i, as texts or, for a pre-tokenized source, as ids."""

    def read(self, block: int, /) -> list[Any]: ...


class Dependable:
    """A reader for choices that are kept: one failed reading must not make another validation set for good.

    A block is read again before it counts as unreadable. What the system refuses, or a file that was changed, is no
    property of the data: TryAgain.
    """

    def __init__(self, reader: Reader, manifest: Manifest) -> None:
        self._reader, self._manifest = reader, manifest

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
    reader: Reader,
    blocks: Iterable[int],
    work: Callable[[int, list[Any]], T],
    *,
    source: str,
    outage_minutes: float,
    threads: int,
    clock: Clock | None = None,
) -> Iterator[tuple[int, T | Unreadable]]:
    """(block, `work(block, documents)`) in the order of `blocks`, or (block, why it is unreadable).

    `work` runs in the threads that read. Raises TryAgain when the source is out for longer than its budget. What ends
    it before its time (a stop, Ctrl-C, an outage) closes the reader: a process cannot end while a thread waits for it.
    """
    clock, stop = clock or Clock(), Event()

    def one(block: int) -> T | Unreadable:
        try:
            return work(block, _read(reader, block, source, outage_minutes, clock, stop))
        except Unreadable as fault:
            return fault

    pool = ThreadPoolExecutor(threads, thread_name_prefix="scan")
    pending: deque[tuple[int, Future[T | Unreadable]]] = deque()
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
        getattr(reader, "close", _nothing)()
        raise
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _nothing() -> None:
    """What closing a reader means that has nothing to close."""


def _read(reader: Reader, block: int, source: str, outage_minutes: float, clock: Clock, stop: Event) -> list[Any]:
    outage = OutageClock(outage_minutes * 60, clock.now)
    while True:
        try:
            return reader.read(block)
        except Outage as fault:
            outage.failed(fault.reason, fault.began)
            if outage.expired or clock.wait(stop, outage.pause_s(fault.retry_after)):
                raise TryAgain(
                    f"source={source} stayed out of reach for {outage_minutes:g} minutes ({fault.reason}); "
                    "start the same command again later, or raise data.outage_minutes"
                ) from fault
