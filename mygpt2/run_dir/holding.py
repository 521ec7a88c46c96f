"""Locks on folders themselves, for changes of names in them: no file is left behind, and the system drops them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Nobody else who asks, thread or process, changes names in the folder meanwhile. OSError where there is none.

    A file system without flock gives no such promise: every single change there is one rename all the same.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
