"""Files that someone brings along: where they go, what they may be called and hold, and when they are there.

    UPLOADS/.incoming/<batch>/   what is under way; nothing there is ever listed
    UPLOADS/book.txt             a single file, once it is whole
    UPLOADS/my-books/            several files of one batch, once all are

A file is written under a number beside its name, judged, and then renamed; the whole batch is renamed once more when
it is complete. Whatever is killed in the middle leaves nothing but a folder in .incoming, which is swept later.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import stat
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mygpt2.data.sources.local.find import kind_of
from mygpt2.errors import UserError
from mygpt2.format import file_size
from workbench.picker.contents import judge
from workbench.picker.kinds import Kind
from workbench.picker.places import STAGING, all_places, place_of

BATCH = re.compile(r"[0-9a-f]{32}")
MOST_BYTES = 4 * 10**9  # of one batch
MOST_TOGETHER = 100 * 10**9  # of all uploads
MOST_FILES = 2000  # of one batch
RESERVE = 500 * 10**6  # bytes of the disk that uploads leave free: runs and their checkpoints need some
MOST_NAME = 120  # bytes of a file's name
STALE_SECONDS = 6 * 3600.0  # after which a batch that nobody ended is swept
PART = ".part"


class Incoming:
    """The uploads of one server, for its runs and roots. Usable from any thread. UserError for what cannot be taken."""

    def __init__(self, runs: Path, roots: Sequence[Path]) -> None:
        self._runs, self._roots = runs.resolve(), tuple(root.resolve() for root in roots)
        self._before: dict[str, int] = {}  # by batch: bytes of all uploads as it began, counted once and not per file

    def place(self) -> Path:
        """The folder of uploads, made if need be."""
        return place_of(self._runs, self._roots)

    def open(self, batch: str, kind: Kind, name: str, size: int | None) -> Part:
        """A file about to arrive. `size` in bytes, None where nobody knows. What can be refused now is refused now."""
        name = allowed_name(name, kind)
        if not (self._batches() / _batch(batch)).exists():
            self.sweep()
        folder = self._folder(batch)
        there = self._check(folder, name, size)
        return Part(folder, name, kind, MOST_BYTES - there)

    def finish(self, batch: str, kind: Kind, name: str) -> Path:
        """Puts a complete batch to its place: a single file under its own name, several in a folder of this name."""
        folder = self._folder(batch)
        files = sorted(path for path in folder.iterdir() if not path.name.endswith(PART))
        if not files:
            self.drop(batch)
            raise UserError("nothing was uploaded; choose the files again")
        target = self.place()
        if len(files) == 1 and kind.name != "model":
            found = _put_file(files[0], target)
        else:
            found = _put_folder(folder, target, clean(name) or "upload")
        self.drop(batch)
        return found

    def drop(self, batch: str) -> None:
        """Forgets a batch, whatever of it is there."""
        self._before.pop(batch, None)
        shutil.rmtree(self._batches() / _batch(batch), ignore_errors=True)

    def remove(self, path: Path) -> None:
        """Deletes an upload for good. UserError for what is none: only what lies directly in a folder of uploads is."""
        places = all_places(self._runs, self._roots)
        if path.parent not in places or path.name.startswith(".") or path.is_symlink() or not path.exists():
            raise UserError(f"{path} is not an upload, so it is not removed here; delete it where it lies")
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise told(error, path.parent) from None

    def sweep(self) -> None:
        """Removes batches that nobody went on with."""
        now = time.time()
        for folder in self._batches().glob("*"):
            times = [path.lstat().st_mtime for path in (folder, *folder.glob("*")) if path.exists()]
            if not times or now - max(times) > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _batches(self) -> Path:
        """What is under way. UserError for a link, as a folder of data from elsewhere may hold: it is swept."""
        found = self.place() / STAGING
        if found.is_symlink():
            raise UserError(f"{found} is a link to another place, so nothing is uploaded there; remove the link")
        return found

    def _folder(self, batch: str) -> Path:
        folder = self._batches() / _batch(batch)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "is a link, not a folder")
        except OSError as error:
            raise told(error, folder.parent) from None
        return folder

    def _check(self, folder: Path, name: str, size: int | None) -> int:
        """Bytes of the batch so far. UserError for what is too much, before any of it arrives."""
        files, there = _inventory(folder)
        if there + (size or 0) > MOST_BYTES:
            raise too_large(name)
        if files >= MOST_FILES:
            raise UserError(
                f"more than {MOST_FILES:,} files at once; upload them in parts, or put the folder in a root"
            )
        free = shutil.disk_usage(folder).free - RESERVE
        if (size or 0) > free:
            raise full(name, size or 0, max(free, 0))
        if folder.name not in self._before:
            places = (self.place(), *self.place().iterdir())
            self._before[folder.name] = sum(_inventory(path)[1] for path in places if path.is_dir())
        together = self._before[folder.name] + there
        if together + (size or 0) > MOST_TOGETHER:
            raise UserError(
                f"the uploads hold {file_size(together)} of at most {file_size(MOST_TOGETHER)}; remove some of them "
                f"from {self.place()}, then upload {name}"
            )
        return there


class Part:
    """A file that is arriving. Either `keep` or `discard` ends it; nothing is there before."""

    def __init__(self, folder: Path, name: str, kind: Kind, room: int) -> None:
        self.name, self._kind, self._room, self._folder = name, kind, room, folder
        self._path = folder / f"{os.urandom(8).hex()}{PART}"
        self._written = 0
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise told(error, folder) from None
        self._file: BinaryIO = os.fdopen(descriptor, "wb", buffering=1 << 20)

    def write(self, chunk: bytes) -> None:
        """UserError when it becomes too large, or the disk is full."""
        self._written += len(chunk)
        if self._written > self._room:
            raise too_large(self.name)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise told(error, self._folder) from None

    def keep(self, expected: int | None) -> str:
        """Judges the whole file and gives it its name, another where it is taken; that name."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise told(error, self._folder) from None
        finally:
            self._file.close()
        if expected is not None and self._written != expected:
            raise UserError(f"{self.name} ended after {self._written:,} of {expected:,} bytes; upload it again")
        judge(self._path, self.name, self._kind.advice)
        return _put_file(self._path, self._folder, self.name).name

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def allowed_name(name: str, kind: Kind) -> str:
    """A cleaned file name. UserError for a kind of file that the field does not take, with what it does."""
    cleaned = clean(name)
    if not cleaned:
        raise UserError(f"a file named {ascii(name)[:80]} cannot be kept; give it a name of letters and digits")
    lower = cleaned.lower()
    ending = next((e for e in kind.endings if lower == e or (e.startswith(".") and lower.endswith(e))), None)
    if ending is None or (kind.name == "data" and kind_of(Path(cleaned)) is None):
        allowed = ", ".join(kind.endings)
        raise UserError(f"{cleaned} is not a file that can be used here; allowed: {allowed}; {kind.advice}")
    return cleaned


def clean(name: str) -> str:
    """The last part of a path as a name that file systems take and no reader passes over; "" if nothing is left."""
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    plain = re.sub(r"[^\w.()+-]+", "-", last).lstrip("._-")
    stem, dot, ending = plain.partition(".")
    while len(f"{stem}{dot}{ending}".encode()) > MOST_NAME and stem:
        stem = stem[:-1]
    while len(f"{stem}{dot}{ending}".encode()) > MOST_NAME:
        ending = ending[1:]
    return f"{stem}{dot}{ending}".rstrip(".-") if stem else ""


def too_large(name: str) -> UserError:
    return UserError(
        f"{name} is too large to upload: at most {file_size(MOST_BYTES)} at once; put it in one of the workbench's "
        "folders (--data-root) and choose it there"
    )


def full(name: str, size: int, free: int) -> UserError:
    return UserError(
        f"{name} has {file_size(size)} and the disk has room for {file_size(free)}; make room, then try again"
    )


def told(error: OSError, folder: Path) -> UserError:
    """Why a file cannot be written, for a person."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"the disk of {folder} is full; make room, then upload again")
    return UserError(f"{folder} cannot be written to ({error.strerror or error}); see who may write there")


def _batch(batch: str) -> str:
    if not BATCH.fullmatch(batch):
        raise UserError("an upload has a number of 32 hexadecimal digits; load the page again")
    return batch


def _inventory(folder: Path) -> tuple[int, int]:
    """How many names lie directly in a folder, and the bytes of the files among them."""
    names = total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            names += 1
            with contextlib.suppress(FileNotFoundError):  # finished or given up meanwhile
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return names, total


def _put_file(path: Path, target: Path, name: str = "") -> Path:
    """Moves a whole file into a folder under its name, or the first free one after it; never over another."""
    for candidate in _names(name or path.name):
        place = target / candidate
        try:
            os.link(path, place)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EXDEV):
                raise told(error, target) from None
            if not _moved(path, place):  # a file system without links
                continue
        path.unlink(missing_ok=True)
        return place
    raise AssertionError("names do not end")


def _moved(path: Path, place: Path) -> bool:
    """Takes a name that must be free, then the file goes there; False where it is taken."""
    try:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        os.replace(path, place)
    except FileExistsError:
        return False
    except OSError as error:
        raise told(error, place.parent) from None
    return True


def _put_folder(folder: Path, target: Path, name: str) -> Path:
    """Moves a batch into a folder of this name, or the first free one after it: an empty one is made, then replaced."""
    for part in folder.glob(f"*{PART}"):
        part.unlink(missing_ok=True)
    for candidate in _names(name, whole=True):
        place = target / candidate
        try:
            place.mkdir(mode=0o700)
            os.rename(folder, place)
        except FileExistsError:
            continue
        except OSError as error:
            raise told(error, target) from None
        return place
    raise AssertionError("names do not end")


def _names(name: str, whole: bool = False) -> Iterator[str]:
    """book.txt, book-2.txt, book-3.txt, ..."""
    stem, dot, ending = (name, "", "") if whole else name.partition(".")
    yield name
    for number in itertools.count(2):
        yield f"{stem}-{number}{dot}{ending}"
