"""Names inside checkpoints/, and the file system that a checkpoint is written through, so that tests can break it.

step-00001200                       a checkpoint
.tmp-<pid>-<start>-<unique>         one being built by that process
.trash-<pid>-<start>-<unique>       one being deleted by that process
.replaced-step-00001200-<unique>    an older one of the same step; still counts until the new one has the name
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
from pathlib import Path

from mygpt2.run_dir.process import signature

_STEP = re.compile(r"step-(\d{8,})")
_REPLACED = re.compile(r"\.replaced-(step-\d{8,})-[0-9a-f]+")
_SCRATCH = re.compile(r"\.(?:tmp|trash)-(\d+)-([0-9a-f]+)-[0-9a-f]+")


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def replaced_name(name: str) -> str:
    return f".replaced-{name}-{secrets.token_hex(6)}"


def scratch_name(kind: str) -> str:
    """A name no other process uses and that tells who made it."""
    return f".{kind}-{os.getpid()}-{signature(os.getpid())}-{secrets.token_hex(6)}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder name, replaced ones included."""
    match = _STEP.fullmatch(original_of(name) or name)
    return int(match[1]) if match else None


def original_of(name: str) -> str | None:
    """The name a replaced checkpoint had."""
    match = _REPLACED.fullmatch(name)
    return match[1] if match else None


def is_leftover(name: str) -> bool:
    """Whether a scratch folder's process is gone, so nobody will finish it."""
    match = _SCRATCH.fullmatch(name)
    return match is not None and signature(int(match[1])) != match[2]


class FileSystem:
    """The real file system. A method is one system call (or one that must not be divided)."""

    def mkdir(self, path: Path) -> None:
        os.mkdir(path, 0o700)

    def link(self, path: Path, to: Path) -> None:
        """The same file under another name too."""
        os.link(path, to, follow_symlinks=False)

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
