"""Reading many blocks in a given order, some ahead, through outages: what preparing and validation have in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Protocol, TypeVar

from mygpt2.data.faults import Clock, Outage, OutageClock, Unreadable
from mygpt2.errors import TryAgain

T = TypeVar("T")


class Reader(Protocol):
    """What is needed of a source: the documents of block i, as texts or, for a pre-tokenized source, as ids."""

    def read(self, block: int, /) -> list[Any]: ...


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

    `work` runs in the threads that read. Raises TryAgain when the source is out for longer than its budget.
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
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _read(reader: Reader, block: int, source: str, outage_minutes: float, clock: Clock, stop: Event) -> list[Any]:
    outage = OutageClock(outage_minutes * 60, clock.now)
    while True:
        try:
            return reader.read(block)
        except Outage as fault:
            outage.failed(fault.reason)
            if outage.expired or clock.wait(stop, outage.pause_s(fault.retry_after)):
                raise TryAgain(
                    f"source={source} stayed out of reach for {outage_minutes:g} minutes ({fault.reason}); "
                    "start the same command again later, or raise data.outage_minutes"
                ) from fault
