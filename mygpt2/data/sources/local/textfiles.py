"""Byte ranges of text that cut no line and no document, whatever the block size.

A block of a line-based file holds the lines that start in it. A block of a larger text file begins at the first blank
line at or after its nominal start (a line end where there is no blank line, a character where there is neither), and
so ends where the next one begins. Inside it a document is a group of whole paragraphs of some 8 kB.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from mygpt2.data.sources.local.encoding import text_of
from mygpt2.data.sources.local.unpack import Damaged

DOCUMENT_BYTES = 8192  # paragraphs are put together up to this; some 2,000 tokens
LONGEST_PARAGRAPH = 8 * DOCUMENT_BYTES  # a text without blank lines is cut at line ends after this
LONGEST_LINE = 256 << 20  # bytes; every block of a longer line would have to look for its end
STEP = 1 << 16

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n\s*")


def line_range(file: BinaryIO, start: int, stop: int) -> bytes:
    """The lines of an open binary file that start in [start, stop)."""
    begin, end = _line_start(file, start), _line_start(file, stop)
    file.seek(begin)
    return file.read(max(0, end - begin))


def _line_start(file: BinaryIO, at: int) -> int:
    """The first line start at or after `at`; the end of the file where there is none."""
    if at == 0:
        return 0
    file.seek(at - 1)
    if len(file.readline(LONGEST_LINE)) >= LONGEST_LINE:
        raise Damaged(f"a line of more than {LONGEST_LINE >> 20} MB; write shorter documents")
    return file.tell()


def text_range(file: BinaryIO, start: int, stop: int) -> bytes:
    """The text of the block [start, stop) of an open binary file."""
    size = file.seek(0, 2)
    begin = _boundary(file, start, stop, size)
    end = _boundary(file, stop, 2 * stop - start, size)
    file.seek(begin)
    return file.read(end - begin)


def _boundary(file: BinaryIO, at: int, limit: int, size: int) -> int:
    """Where the block with the nominal start `at` begins: a function of the file alone, and at most `limit`."""
    if at == 0 or at >= size:
        return min(at, size)
    seen = b""
    file.seek(at)
    while at + len(seen) < min(limit, size):
        seen += file.read(min(STEP, min(limit, size) - at - len(seen)))
        blank = _BLANK_LINE.search(seen)
        if blank and blank.end() < len(seen):
            return at + blank.end()
    newline = seen.find(b"\n")
    if newline >= 0:
        return at + newline + 1
    skip = 0
    while skip < min(4, len(seen)) and seen[skip] & 0xC0 == 0x80:  # inside a UTF-8 character
        skip += 1
    return at + skip


def split_text(content: bytes) -> list[str | None]:
    """Documents of a run of text: whole paragraphs, together DOCUMENT_BYTES or more; None for what is not UTF-8."""
    documents: list[str | None] = []
    start = 0
    while start < len(content):
        blank = _BLANK_LINE.search(content, start + DOCUMENT_BYTES)
        stop = blank.end() if blank else len(content)
        if stop - start > LONGEST_PARAGRAPH:
            newline = content.find(b"\n", start + LONGEST_PARAGRAPH, stop)
            stop = newline + 1 if newline >= 0 else stop
        piece = content[start:stop]
        if not piece.isspace():
            documents.append(text_of(piece))
        start = stop
    return documents
