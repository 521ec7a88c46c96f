"""Files of a run folder, opened so that the folder cannot lead a reader or a writer elsewhere, nor hold it up.

A run folder may come from somebody else. A name in it that is a link out of the folder, a pipe, a device or a socket is
an OSError with a sentence, like a missing file; so is a file larger than its reader wants. Links that stay inside are
followed. The folder itself may be a link: whoever owns the folder of the runs put it there.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

SMALL_BYTES = 1 << 20  # a record or a configuration; what holds more was not written by a trainer
DOCUMENT_BYTES = 64 << 20  # the largest document that a run holds is a checkpoint's state.json


def open_inside(path: Path, root: Path | None = None, *, most: int | None = None) -> BinaryIO:
    """Opens a file for reading. `root` is the run's folder, unset: the file's own; `most`: bytes it may hold."""
    descriptor = _open(path, root, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"holds {size:,} bytes, at most {most:,} are read", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_inside(path: Path, root: Path | None = None, *, most: int = DOCUMENT_BYTES) -> bytes:
    """The whole of a small file."""
    with open_inside(path, root, most=most) as file:
        return file.read(most)  # no more of it, should it be growing


def append_inside(path: Path, root: Path | None = None) -> int:
    """A descriptor that reads and appends; the file is made, for its owner only, where there is none."""
    return _open(path, root, os.O_RDWR | os.O_CREAT | os.O_APPEND)


def names_inside(path: Path, root: Path | None = None) -> list[str]:
    """Names in a folder of the run, sorted; OSError as for files."""
    start, parts = _inside(path, path if root is None else root)
    folder = _enter(start, parts, path)
    try:
        return sorted(os.listdir(folder))
    finally:
        os.close(folder)


def _open(path: Path, root: Path | None, flags: int) -> int:
    start, parts = _inside(path, path.parent if root is None else root)
    if not parts:
        raise OSError(errno.EISDIR, "is a folder, not a file", str(path))
    folder = _enter(start, parts[:-1], path)
    try:
        if not flags & os.O_CREAT or _exists(parts[-1], folder):
            _check_regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode, path)
        # The name may have become something else since: never wait for a pipe, and look at what was opened.
        descriptor = os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(folder)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _inside(path: Path, root: Path) -> tuple[str, tuple[str, ...]]:
    """The root, and the names below it that lead to where the path's links end."""
    if (names := _without_links(os.fspath(path), os.fspath(root))) is not None:
        return os.fspath(root), names
    start, real = os.path.realpath(root), os.path.realpath(path)
    if real != start and not real.startswith(start.rstrip("/") + "/"):
        raise OSError(errno.ELOOP, "is a link out of the run's folder, which is not followed", str(path))
    return start, Path(real).relative_to(start).parts


def _without_links(path: str, root: str) -> tuple[str, ...] | None:
    """The names below the root, as nearly always: where none is a link, these are where the path leads.

    Should one become a link now, it is refused as it is entered.
    """
    if not path.startswith(f"{root}/"):
        return None
    names = tuple(path[len(root) + 1 :].split("/"))
    place = root
    for name in names:
        place = f"{place}/{name}"
        if name in ("", ".", "..") or os.path.islink(place):
            return None
    return names


def _enter(start: str, names: tuple[str, ...], path: Path) -> int:
    """A descriptor of a folder, entered name by name without following links: none is left unless it was put there now.

    A link in a circle is what it says of itself.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(start, flags)
    for name in names:
        try:
            below = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(folder)
        folder = below
    return folder


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    raise OSError(errno.EISDIR if kind == "a folder" else errno.EINVAL, f"is {kind}, not a file", str(path))
