"""Files that are always whole: written beside, then renamed over."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mygpt2.errors import TryAgain, UserError, too_long
from mygpt2.inside import DOCUMENT_BYTES, read_inside
from mygpt2.records import tame

FULL = (errno.ENOSPC, errno.EDQUOT)
AWAY = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENFILE, errno.EMFILE, errno.ETIMEDOUT)
WAIT_AND_SEE = FULL + AWAY  # a disk that is full, sick or gone just now: the same command may succeed later


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replaces a file in one step: a reader sees the old bytes or the new ones. OSError leaves the old ones.

    `durable` also survives a power cut, at the price of a sync.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(scratch, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise


def replace_json(path: Path, value: Mapping[str, Any], *, durable: bool = False) -> None:
    """`replace_file` of a JSON document; non-finite numbers become null."""
    replace_file(path, encode_json(value), durable=durable)


def encode_json(value: Mapping[str, Any]) -> bytes:
    """A JSON document as run folders hold it."""
    return json.dumps(finite(value), indent=1).encode() + b"\n"


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to say of a file that had to be written and was not: TryAgain where the disk may be better later."""
    what = f"cannot write {path}: {error.strerror or error}"
    if error.errno in FULL:
        return TryAgain(f"{what}; free some space, then run the same command")
    if error.errno in AWAY:
        return TryAgain(f"{what}; run the same command when the file system answers again")
    return UserError(f"{what}; check who owns the folder, or choose another one")


def refused(error: BaseException) -> UserError | None:
    """What to say of a problem that is the system's and not the program's: a path that is too long, a disk that is full
    or away; else None."""
    if problem := too_long(error):
        return problem
    if isinstance(error, OSError) and error.errno in WAIT_AND_SEE:
        return cannot_write(Path(str(error.filename or "a file")), error)
    return None


def check_output(option: str, path: Path | None) -> None:
    """UserError for a file that a command is to write and could not, before it does its work."""
    if path is not None and not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it or choose another")
    if path is not None and path.is_dir():
        raise UserError(f"{option} {path} is a folder; give a file in it")


def write_output(option: str, path: Path, data: bytes) -> None:
    """`replace_file` of what a command was asked to write; UserError says why it cannot be."""
    try:
        replace_file(path, data)
    except OSError as error:
        raise UserError(f"cannot write {option} {path}: {error.strerror or error}; choose another file") from error


def overwrite(path: Path, data: bytes) -> None:
    """Writes JSON into the room that a file has already, padded with spaces: possible on a full disk, not atomic."""
    with open(path, "r+b", buffering=0) as file:
        file.write(data.ljust(os.fstat(file.fileno()).st_size))


def finite(value: Any) -> Any:
    """The same value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read_json(path: Path, root: Path | None = None, *, most: int = DOCUMENT_BYTES) -> dict[str, Any] | None:
    """A JSON object of the run folder `root` (unset: the file's own), as `tame` leaves it.

    None if it is missing, unreadable, larger than `most` bytes, not inside the folder, or something else.
    """
    try:
        value = json.loads(read_inside(path, root, most=most))
    except (OSError, ValueError, RecursionError):
        return None
    return tame(value) if isinstance(value, dict) else None


def hub_checksum(path: Path, like: str) -> str:
    """SHA-256 of a file as for Git LFS, or git's SHA-1 of a blob, whichever has the length of `like`."""
    size = path.stat().st_size

    def begin() -> Any:
        return hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size)

    with open(path, "rb") as f:
        return hashlib.file_digest(f, begin).hexdigest()
