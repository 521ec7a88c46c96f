"""Locks that one waits for, and that the system drops with the process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


def held(folder: Path) -> AbstractContextManager[None]:
    """Nobody else who asks, thread or process, changes names in the folder meanwhile. OSError where there is none.

    The lock is on the folder itself, so that no file is left behind.
    """
    return held_at(folder, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def held_at(path: Path, flags: int) -> Iterator[None]:
    """The lock of what `path` is, opened with these flags.

    A file system without flock gives no such promise: every single change there is one rename all the same.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
