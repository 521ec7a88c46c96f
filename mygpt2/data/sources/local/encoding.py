"""What a file holds, by its bytes and whatever its name says: text in UTF-8, text in something else, or no text.

A byte order mark makes an encoding certain, and such text is decoded. Anything else that is not UTF-8 could be one of
dozens of encodings, which nobody can tell apart for sure: the person is told, with the file's name.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from mygpt2.data.sources.local.unpack import Damaged

UNIT = 8192  # bytes of plain text that are judged together: about what becomes a document
HEAD = 1 << 16
# Shares above which a file is not text: of control characters at its beginning, of zero bytes anywhere.
MOST_CONTROL, MOST_ZEROS = 0.1, 0.1

_MARKS = (  # the longer ones first: UTF-16's begins UTF-32's
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_CHECKPOINT = "a PyTorch checkpoint, which holds weights and no data; `python -m mygpt2 import` takes it"
_PICKLE = (
    "a pickle, which is never opened as data; `python -m mygpt2 import` takes checkpoints, write anything else as "
    "parquet or jsonl"
)
_PACKED = (
    (rb"version https://git-lfs\.", "a Git LFS pointer, not the file it stands for; run `git lfs pull`"),
    (rb"PK\x03\x04", "a zip archive; unpack it"),
    (rb"\x1f\x8b\x08", "gzip data; let its name end in .gz, or unpack it"),
    (rb"\x28\xb5\x2f\xfd", "zstd data; let its name end in .zst, or unpack it"),
    (rb"BZh[1-9]1AY&SY", "bzip2 data; unpack it"),
    (rb"\xfd7zXZ\0", "xz data; unpack it"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", _CHECKPOINT),  # older than the zip archives
    (rb"\x80[\x04\x05]\x95.{6}\0\0", _PICKLE),
    (rb"PAR1[\x15\x00]", "parquet; let its name end in .parquet"),
    (rb"GGUF[\1-\x0f]\0\0\0", "a GGUF model, which holds no text"),
    (rb"ARROW1\0\0", "an Arrow file; let its name end in .arrow"),
)
_NO_TEXT = (
    (rb"\x93NUMPY", "a numpy array; let its name end in .npy"),
    (rb"%PDF-\d", "a PDF; convert it to plain text"),
    (rb"\x7fELF", "a program, not text"),
    (rb"\x89PNG|\xff\xd8\xff", "a picture, not text"),
    (rb"SQLite format 3\0", "a database; export its text"),
)
_LLM_C = {
    20240326: "a model of llm.c, which holds weights and no data",
    20240327: "a debugging file of llm.c, which holds no data",
    20240328: "a tokenizer of llm.c, which holds no data",
    20240522: "an evaluation set of llm.c, which is not training data",
}
_CONTROL = bytes({*range(0, 32), 127} - {*b"\t\n\v\f\r\b\x1b"})
_PRINTABLE = bytes([*range(32, 127), *b"\t\n\r"])
_SHIFTED = (  # encodings that spell Japanese, Korean and Chinese in ASCII bytes
    ("ISO-2022-JP", re.compile(rb"\x1b\$[@B]|\x1b\([JI]")),
    ("ISO-2022-KR", re.compile(rb"\x1b\$\)C")),
    ("ISO-2022-CN", re.compile(rb"\x1b\$\)[AG]")),
)


def foreign(head: bytes, kind: str) -> str | None:
    """What a file of another format is and what to do, by how it begins; None where nothing speaks against `kind`."""
    if kind == "tokens" and len(head) >= 4 and (magic := struct.unpack("<i", head[:4])[0]) in _LLM_C:
        return f"{_LLM_C[magic]}; give the files of tokens"
    if kind == "tokens" and head.startswith(b"PK\x03\x04"):
        return _CHECKPOINT
    # Ids may look like most things, two of them like %PDF.
    known = _PACKED if kind == "tokens" else (*_PACKED, *_NO_TEXT)
    found = next((what for mark, what in known if re.match(mark, head, re.DOTALL)), None)
    if found is None and kind == "tokens" and len(head) >= 32 and not head[:4096].translate(None, _PRINTABLE):
        return f"text ({head[:40].decode()!r}...), not ids; let its name end in .txt"
    return found


def mark_of(head: bytes) -> str:
    """The encoding that a byte order mark at the beginning names; "" without one."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "")


def as_utf8(content: bytes) -> bytes:
    """A whole file's text as UTF-8 without a byte order mark. Damaged where it is not what its mark says."""
    name = mark_of(content[:4])
    if not name:
        return content
    if name == "utf-8-sig":
        return content[3:]
    try:
        return content.decode(name).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        raise Damaged(f"its byte order mark says {name.upper()}, and it is not: {error}") from error


def text_of(piece: bytes) -> str | None:
    """UTF-8 as a string; None for what is not UTF-8."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


@dataclass
class TextCheck:
    """How much of a file is UTF-8 text, by stretches of it: lines, or pieces of about a document's size."""

    by_line: bool
    units: int = 0
    bad: int = 0
    first: str = ""  # the first byte that is not UTF-8, and where
    zeros: int = 0
    size: int = 0
    no_text: str = field(default="", init=False)

    def add(self, stretch: bytes, at: int, last: bool) -> None:
        """Look at the bytes from `at` on, `last` to the file's end; a character cut elsewhere is nobody's fault."""
        if at == 0:
            self._look_at_head(stretch[:HEAD])
        self.size += len(stretch)
        self.zeros += stretch.count(0)
        start, stop = _whole_characters(stretch, at > 0, not last)
        whole = stretch[start:stop]
        units = whole.count(b"\n") + 1 if self.by_line else -(-len(whole) // UNIT)
        self.units += units
        try:
            whole.decode()
        except UnicodeDecodeError as error:
            self.first = self.first or f"byte 0x{whole[error.start]:02x} at {at + start + error.start:,}"
            cut = whole.split(b"\n") if self.by_line else [whole[i : i + UNIT] for i in range(0, len(whole), UNIT)]
            rest = len(cut) - 1
            self.bad += sum(
                text_of(unit[slice(*_whole_characters(unit, i > 0, i < rest))]) is None for i, unit in enumerate(cut)
            )

    def _look_at_head(self, head: bytes) -> None:
        if shifted := next((name for name, escape in _SHIFTED if escape.search(head)), None):
            self.no_text = f"written in {shifted}; save it as UTF-8, with `iconv -f {shifted} -t UTF-8`"
        elif (wide := _wide(head)) is not None:
            self.no_text = (
                f"not UTF-8 text: it looks like {wide} without a byte order mark; save it as UTF-8, with "
                f"`iconv -f {wide} -t UTF-8`"
            )
        elif head and (len(head) - len(head.translate(None, _CONTROL))) / len(head) > MOST_CONTROL:
            self.no_text = "binary data, not text; give a file of text"

    @property
    def hopeless(self) -> str:
        """Why none of the file is text and what to do; "" where it may be."""
        if self.zeros > MOST_ZEROS * self.size and not self.no_text:
            return (
                f"no text, {self.zeros / self.size:.0%} of it are zero bytes: binary data, or a file that was not "
                "written to its end; write it again"
            )
        return self.no_text

    @property
    def lost(self) -> bool:
        """Most of the file would be left out."""
        return self.bad > 0 and 2 * self.bad >= self.units

    @property
    def complaint(self) -> str:
        """What a file is that holds other bytes than UTF-8 and what to do."""
        return (
            f"not UTF-8 ({self.first}); save it as UTF-8, with `iconv -f WINDOWS-1252 -t UTF-8` for instance if that "
            "is what it was written in"
        )


def _whole_characters(stretch: bytes, cut_before: bool, cut_behind: bool) -> tuple[int, int]:
    """[start, stop) of a stretch without the rest of a character at its beginning or the first of one at its end."""
    start, stop = 0, len(stretch)
    while cut_before and start < min(3, stop) and stretch[start] & 0xC0 == 0x80:
        start += 1
    for back in range(1, min(4, stop - start + 1)) if cut_behind else ():
        byte = stretch[stop - back]
        if byte >= 0xC0:  # leads a character of 2, 3 or 4 bytes
            return start, stop - back if 2 + (byte >= 0xE0) + (byte >= 0xF0) > back else stop
        if byte < 0x80:
            break
    return start, stop


def _wide(head: bytes) -> str | None:
    """The encoding of two or four bytes a character that the zero bytes of a file's beginning tell of."""
    if len(head) < 8 or head.count(0) <= 0.01 * len(head):
        return None
    places = [head[i::4].count(0) * 4 / max(1, len(head)) for i in range(4)]
    if min(places[1:]) > 0.5 > places[0] or min(places[:3]) > 0.5 > places[3]:
        return "UTF-32LE" if places[0] < places[3] else "UTF-32BE"
    odd, even = (places[1] + places[3]) / 2, (places[0] + places[2]) / 2
    if max(odd, even) > 0.2 and min(odd, even) < 0.1 * max(odd, even):
        return "UTF-16LE" if odd > even else "UTF-16BE"
    return None
