"""A log's text: in the encoding that it is written in, line by line, with limits that no log meets."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mygpt2.errors import UserError

FORMATS = (
    "a run folder, .csv, .json, .jsonl, build-nanogpt's log.txt, what a training program wrote to its console, or a "
    "TensorBoard event file or folder"
)
MOST_BYTES = 2 << 30
LONGEST_LINE = 1 << 16  # characters; what is beyond is not looked at in a console's lines
_HEAD = 1 << 16
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip (or a spreadsheet)", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
           b"\xfd7zXZ": "xz"}  # fmt: skip


def checked_file(path: Path) -> int:
    """The bytes of a file. UserError unless it is a plain file that can be read whole."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_why(error)}; give {FORMATS}") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is not a plain file; give {FORMATS}")
    if found.st_size > MOST_BYTES:
        raise UserError(
            f"{path} has {found.st_size / 1e9:,.1f} GB; at most {MOST_BYTES / 1e9:,.1f} GB are read; give a log with "
            "step and loss alone"
        )
    return found.st_size


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The text of a file, whose lines end with \\n, \\r or both and with nothing else: U+2028 is a character.

    UserError for what cannot be read or is not text.
    """
    checked_file(path)
    try:
        with path.open("rb") as raw:
            head = raw.read(_HEAD)
        with path.open(encoding=_encoding(path, head), errors="replace", newline=None) as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read: {_why(error)}; give {FORMATS}") from None


def _encoding(path: Path, head: bytes) -> str:
    for mark, name in _PACKED.items():
        if head.startswith(mark):
            raise UserError(f"{path} is packed with {name}; unpack it, and give {FORMATS}")
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if b"\0" not in head:
        return "utf-8"
    even, odd = head[::2], head[1::2]
    for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if len(head) >= 16 and zeros.count(0) > 0.9 * len(zeros) and not others.count(0):
            return name  # as PowerShell's > writes it, without its mark
    raise UserError(f"{path} is not text; give {FORMATS}")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
