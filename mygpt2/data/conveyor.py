"""The bounded belt between the thread that builds batches and the loop that trains on them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from mygpt2.data.scan import Stopped

T = TypeVar("T")


class Conveyor(Generic[T]):
    """First in, first out, at most `size` items; an error comes out after the items put before it, and then always."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item, waiting for room. Stopped when the belt was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._size)
            if self._closed:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """No more items will come, because of `error`."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def get(self, timeout_s: float) -> T | None:
        """The next item, None where none comes within the time; the error once all items are out."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._error is not None, max(0.0, timeout_s))
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Forget what lies ready; whoever waits to put something is told."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
