"""What was read of files that grow, each as it is now: a memory that does not fill with how they were before."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """What was made of at most `most` files, of each only as it was when it was read last. Usable from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[Path, tuple[tuple[int, int, int], T]] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # of several who ask at once one reads, with the memory that one needs

    def of(self, file: Path, read: Callable[[], T]) -> T:
        """What was read of the file as it is, now if it has changed since. OSError where it is not to be seen."""
        known = self._found(file, _state(file))
        if known is None:
            with self._reading:
                state = _state(file)
                known = self._found(file, state) or self._keep(file, state, read())
        return known[0]

    def _found(self, file: Path, state: tuple[int, int, int]) -> tuple[T] | None:
        with self._lock:
            known = self._known.get(file)
            if known is None or known[0] != state:
                return None
            self._known.move_to_end(file)
            return (known[1],)

    def _keep(self, file: Path, state: tuple[int, int, int], made: T) -> tuple[T]:
        with self._lock:
            self._known[file] = state, made
            self._known.move_to_end(file)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return (made,)


def _state(file: Path) -> tuple[int, int, int]:
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size, found.st_ino
