"""A file system that dies, tears, fills up or loses what was not synced, at an operation of the test's choice."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mygpt2.checkpoint.files import FileSystem


class Killed(BaseException):
    """The process is gone. Not an Exception, so no handler in the product can go on after it."""


class DyingFileSystem(FileSystem):
    """Dies at operation number `at` (from 0): before it, or in the middle where it is a write.

    Everything afterwards dies as well, so no clean-up of the product runs. `power_cut` also takes away the content of
    files that were not synced and the names in folders that were not.
    """

    def __init__(self, at: int = 1 << 30, *, torn: bool = False, power_cut: bool = False) -> None:
        self.at, self.torn, self.power_cut = at, torn, power_cut
        self.log: list[str] = []
        self.dead = False
        self._paths: dict[int, Path] = {}
        self._unsynced: set[Path] = set()
        self._renames: list[tuple[Path, Path]] = []

    def _operation(self, name: str, torn: Callable[[], object] | None = None) -> None:
        if self.dead:
            raise Killed
        if len(self.log) == self.at:
            self.dead = True
            if self.torn and torn:
                torn()
            if self.power_cut:
                self._lose()
            raise Killed
        self.log.append(name)

    def _lose(self) -> None:
        """What a power cut does: unsynced renames never happened, unsynced files are empty."""
        for source, target in reversed(self._renames):
            os.rename(target, source)
        for path in self._unsynced:
            if path.exists():
                os.truncate(path, 0)

    def mkdir(self, path: Path) -> None:
        self._operation("mkdir")
        super().mkdir(path)

    def link(self, path: Path, to: Path) -> None:
        self._operation("link")
        super().link(path, to)

    def create(self, path: Path) -> int:
        self._operation(f"create {path.name}")
        descriptor = super().create(path)
        self._paths[descriptor] = path
        self._unsynced.add(path)
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        self._operation("write", lambda: os.write(descriptor, data[: max(1, len(data) // 2)]))
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._operation("fsync")
        super().fsync(descriptor)
        self._unsynced.discard(self._paths[descriptor])

    def close(self, descriptor: int) -> None:
        os.close(descriptor)  # a dead process's files are closed by the system
        self._operation("close")

    def fsync_folder(self, path: Path) -> None:
        self._operation("fsync_folder")
        super().fsync_folder(path)
        self._renames = [(a, b) for a, b in self._renames if b.parent != path]

    def rename(self, source: Path, target: Path) -> None:
        self._operation(f"rename {source.name.split('-')[0]}")
        super().rename(source, target)
        self._renames.append((source, target))

    def unlink(self, path: Path) -> None:
        self._operation("unlink")
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        self._operation("rmdir")
        super().rmdir(path)


class FullFileSystem(FileSystem):
    """Has no room left from write number `at` on; `error` says how it tells."""

    def __init__(self, at: int, error: int = errno.ENOSPC, *, free: int = 1 << 40) -> None:
        self.at, self.error, self.free, self.writes = at, error, free, 0

    def write(self, descriptor: int, data: memoryview) -> int:
        self.writes += 1
        if self.writes > self.at:
            raise OSError(self.error, os.strerror(self.error))
        return super().write(descriptor, data)

    def free_bytes(self, path: Path) -> int:
        return self.free


def tensors(step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A small model and its optimizer state, different at each step."""
    make = torch.Generator().manual_seed(step)
    model = {f"transformer.h.{i}.weight": torch.randn(3, 5, generator=make) for i in range(3)}
    return model, {f"exp_avg.{name}": torch.randn(3, 5, generator=make) for name in model}
