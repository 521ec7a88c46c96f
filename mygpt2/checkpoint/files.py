"""The handful of file operations a save is made of, in one replaceable object.

Every effect of a save goes through here, so that a test can crash, fill the disk or tear a write
between any two of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path


class FileSystem:
    """The real file system. A method is one system call (or one that must not be divided)."""

    def mkdir(self, path: Path) -> None:
        os.mkdir(path, 0o700)

    def create(self, path: Path) -> int:
        """A descriptor of a new file; an existing one is an error, never overwritten."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Bytes written, which may be fewer than given."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Data on the medium, not only in the drive's cache where the system tells the two apart."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def fsync_folder(self, path: Path) -> None:
        """The names in a folder on the medium: a rename is not safe before this."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def free_bytes(self, path: Path) -> int:
        """What an ordinary user may still write on the file system that holds `path`."""
        return shutil.disk_usage(path).free


def write_all(files: FileSystem, descriptor: int, data: memoryview) -> None:
    """The whole buffer, however often the system stops short."""
    while len(data):
        data = data[files.write(descriptor, data) :]


def remove_tree(files: FileSystem, path: Path) -> None:
    """Deletes a folder without following links. Errors end the walk and are the caller's to judge."""
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            remove_tree(files, Path(entry.path))
        else:
            files.unlink(Path(entry.path))
    files.rmdir(path)


def discard(files: FileSystem, path: Path) -> None:
    """Deletes what can be deleted of a folder that nobody counts on; the next sweep tries again."""
    with contextlib.suppress(OSError):
        remove_tree(files, path)
