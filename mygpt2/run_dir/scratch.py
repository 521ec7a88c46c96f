"""Folders of work that is not kept: gone when it ends, and where it was killed, with the next work of the same kind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mygpt2.run_dir.process import signature


@contextmanager
def scratch(kind: str, folder: Path | None = None) -> Iterator[Path]:
    """A folder in `folder` (unset: the system's for temporary files) that is gone afterwards.

    It is named mygpt2-<kind>-<host>-<pid>-<start>-<unique>, so that what a killed process left is known for that and
    goes first. OSError where no folder can be made. What cannot be deleted at the end is left to the next sweep.
    """
    place = Path(folder or tempfile.gettempdir())
    sweep(kind, place)
    name = f"{_ours(kind)}{os.getpid()}-{signature(os.getpid())}-"
    with tempfile.TemporaryDirectory(prefix=name, dir=place, ignore_cleanup_errors=True) as path:
        yield Path(path)


def sweep(kind: str, place: Path) -> None:
    """Deletes such folders of this user whose process was one of this machine and is no more, as far as it can.

    Those of other machines, which may share the place, stay: their processes are not to be seen from here.
    """
    left = re.compile(rf"{re.escape(_ours(kind))}([1-9]\d*)-([0-9a-f]+)-\w+")
    with contextlib.suppress(OSError):  # there is no such place, which whoever wants a folder there is told
        for entry in list(os.scandir(place)):
            match = left.fullmatch(entry.name)
            if match and signature(int(match[1])) != match[2] and _folder_of_this_user(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _ours(kind: str) -> str:
    return f"mygpt2-{kind}-{socket.gethostname()}-"


def _folder_of_this_user(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid()
    except OSError:  # it has just gone
        return False
