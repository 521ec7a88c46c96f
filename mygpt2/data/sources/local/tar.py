"""Tars of texts, as WebDataset writes them: members KEY.txt, or KEY.json with the text under a key; read in place.

Members that follow one another and have the same name but for its ending are one document. Of its members the .txt is
read, else the .json; others (.jpg, .cls) are passed over. A tar is never extracted: a name is only a key, and links,
devices and sparse files are nothing to read. Source of the layout: POSIX.1-2024, pax, "ustar Interchange Format" and
"pax Interchange Format"; GNU tar's manual, "Basic Tar Format", for long names and large sizes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mygpt2.data.checked import keep_checked, load_checked
from mygpt2.data.sources.filters import Filtered
from mygpt2.data.sources.local.encoding import as_utf8, text_of
from mygpt2.data.sources.local.formats import LocalReader, json_text
from mygpt2.data.sources.local.textfiles import LONGEST_LINE
from mygpt2.data.sources.local.unpack import CHUNK, Damaged, whole
from mygpt2.data.sources.manifest import SourceFile

INDEX = 1  # part of the cache's key: a change of how members become documents raises it
MANY = 5_000  # documents, from where on a tenth of a second is saved
RECORD = 512  # bytes: of a head, and of what bodies are filled up to
TEXTS = (".txt", ".json")  # endings of members with text, the first one wins
LONGEST_ENDING = 12  # characters behind a dot that tell a format
LONGEST_NAME = 1 << 20  # bytes of a head's extension
NO_TEXT = Filtered("no text member")
TOO_LONG = Filtered(f"text member of more than {LONGEST_LINE >> 20} MB")

_FILES, _FOLDER, _EXTENSION, _NAME, _OLD_SPARSE = b"0\x007", b"5", b"x", b"L", b"S"
_NOTHING = b"gK"  # defaults of all members, and where a link leads
_KINDS = {b"1": "links", b"2": "links", b"3": "devices", b"4": "devices", b"6": "pipes", b"S": "sparse files"}


class Member(NamedTuple):
    """A member of a tar: its head is in [start, body), with what extends it, its content in [body, body + size)."""

    name: str
    start: int
    body: int
    size: int
    stop: int  # where the next one begins
    special: str = ""  # what it is, where it is no plain file

    @property
    def parted(self) -> tuple[str, str]:
        """(key, ending) of the name."""
        key, dot, ending = self.name.rpartition(".")
        short = dot and len(ending) <= LONGEST_ENDING and "/" not in ending
        return (key, f".{ending.lower()}") if short else (self.name, "")


class Sample(NamedTuple):
    """The members of one document: [start, stop) of all, the one that holds its text with its ending, and what else."""

    start: int
    stop: int
    text: Member | None
    ending: str
    passed_over: list[str]  # an ending, or what it is


@dataclass(frozen=True)
class Contents:
    """What a tar holds. `samples`: (n, 3) int64 of first byte, last + 1, and bytes of the text. `passed_over`: members
    by ending or kind. `first`: the first .json that has to hold a text. `ended`: whether the tar says where it ends."""

    samples: np.ndarray
    passed_over: Counter[str]
    first: Member | None
    ended: bool

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; `from_json` gives equal contents back."""
        packed = zlib.compress(np.diff(self.samples, axis=0, prepend=0).astype("<i8").tobytes(), 1)
        return {
            "samples": base64.b85encode(packed).decode(), "passed_over": dict(self.passed_over),
            "first": self.first, "ended": self.ended,
        }  # fmt: skip

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Contents:
        steps = np.frombuffer(zlib.decompress(base64.b85decode(d["samples"])), "<i8").reshape(-1, 3)
        first = Member(*d["first"]) if d["first"] else None
        return cls(np.cumsum(steps, axis=0), Counter(d["passed_over"]), first, d["ended"])


def kept_contents(file: SourceFile, cache_dir: Path | None) -> Contents:
    """`contents_of` a file, read once and then from the cache where it has many members."""
    if cache_dir is None:
        return contents_of(file.location)
    what = repr((INDEX, file.size, file.identity, file.mtime_ns))
    path = cache_dir / "tars" / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.json"
    known = load_checked(path)
    if known is not None:
        return Contents.from_json(known)
    found = contents_of(file.location)
    if len(found.samples) >= MANY:
        keep_checked(path, found.to_json(), cache_dir)
    return found


def contents_of(path: str) -> Contents:
    """The contents of a tar, of which only heads are read. Damaged where it is none, or not whole."""
    found: list[tuple[int, int, int]] = []
    passed_over: Counter[str] = Counter()
    first = None
    with open(path, "rb") as f:
        end = size = os.fstat(f.fileno()).st_size
        for sample in samples(members(f, 0, size)):
            end = sample.stop
            found.append((sample.start, end, sample.text.size if sample.text else 0))
            passed_over.update(sample.passed_over)
            first = first or (sample.text if sample.ending == ".json" else None)
        if found:
            check_end(f, end)
    return Contents(np.array(found, np.int64).reshape(-1, 3), passed_over, first, end < size)


def check_end(f: BinaryIO, at: int) -> None:
    """Damaged when anything but zeros follows the end of a tar."""
    f.seek(at)
    while chunk := f.read(CHUNK):
        if chunk.count(0) < len(chunk):
            raise Damaged(f"something follows its end at byte {at:,}, as where tars were put one behind the other")


def samples(found: Iterator[Member]) -> Iterator[Sample]:
    """The documents that members are of."""
    for _, group in groupby(((*member.parted, member) for member in found), key=itemgetter(0)):
        start, stop = -1, 0
        held: dict[str, Member] = {}
        others: list[str] = []
        for _, ending, member in group:
            start, stop = member.start if start < 0 else start, member.stop
            if ending in TEXTS and not member.special and ending not in held:
                held[ending] = member
            else:
                others.append(member.special or ending or "without an ending")
        ending = next((ending for ending in TEXTS if ending in held), "")
        others += [other for other in held if other != ending]
        yield Sample(start, stop, held.get(ending), ending, others)


def members(f: BinaryIO, at: int, end: int) -> Iterator[Member]:
    """The members in [at, end) of an open tar, folders aside, up to its mark of the end. Damaged for what is no tar."""
    start, name, size, sparse = at, "", -1, False
    while at < end:
        f.seek(at)
        head = f.read(RECORD)
        if len(head) < RECORD:
            raise Damaged(f"it ends within the head at byte {at:,}, as a file that was not written to its end")
        if head.count(0) == RECORD:
            return
        kind, stored = head[156:157], _number(head[124:136], at)
        if not _fits(head):
            raise Damaged(f"there is no head of a tar's member at byte {at:,}")
        body = at + RECORD
        if kind == _OLD_SPARSE:
            body = _behind_map(f, head[482] != 0, body)
        if kind in (_EXTENSION, _NAME):
            content = _extension(f, body, stored, end)
            if kind == _NAME:
                name = _word(content)
            else:
                more = _records(content, at)
                name = more.get("path", name)
                size = _whole(more["size"], at) if "size" in more else size
                sparse = sparse or any(key.startswith("GNU.sparse.") for key in more)
            at = body - -stored // RECORD * RECORD
            continue
        if kind in _NOTHING:
            at = body - -stored // RECORD * RECORD
            continue
        special = _KINDS.get(kind, "" if kind in _FILES else f"members of the kind {kind!r}")
        held = 0 if special in ("links", "devices", "pipes") or kind == _FOLDER else size if size >= 0 else stored
        stop = body - -held // RECORD * RECORD
        member = Member(name or _name(head), start, body, held, stop, special or "sparse files" * sparse)
        if stop > end:
            raise Damaged(
                f"it ends within the member at byte {start:,}, which is to have {held:,} bytes, as a file that was not "
                "written to its end"
            )
        if kind != _FOLDER and not member.name.endswith("/"):
            yield member
        start = at = stop
        name, size, sparse = "", -1, False


def _fits(head: bytes) -> bool:
    """Whether the checksum of a head holds: the sum of its bytes, its own as blanks; some wrote it of signed bytes."""
    given = head[148:156].strip(b" \0")
    total = sum(head) - sum(head[148:156]) + 8 * 32
    try:
        excess = total - int(given or b"0", 8)
    except ValueError:
        return False
    return not excess or excess == 256 * sum(byte >= 128 for byte in head[:148] + head[156:])


def _number(stored: bytes, at: int) -> int:
    """A number in octal digits, or in binary behind a first bit that is set."""
    if stored[0] & 0x80:
        number = int.from_bytes(stored, "big", signed=True) if stored[0] == 0xFF else int.from_bytes(stored[1:], "big")
    else:
        digits = stored.split(b"\0", 1)[0].strip()
        number = int(digits or b"0", 8) if not digits.strip(b"01234567") else -1
    if not 0 <= number < 1 << 62:
        raise Damaged(f"there is no head of a tar's member at byte {at:,}")
    return number


def _whole(text: str, at: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Damaged(f"the extended head at byte {at:,} gives no size")
    return int(text)


def _extension(f: BinaryIO, at: int, size: int, end: int) -> bytes:
    if size > LONGEST_NAME or at + size > end:
        raise Damaged(f"the extended head at byte {at:,} is to have {size:,} bytes")
    f.seek(at)
    return f.read(size)


def _behind_map(f: BinaryIO, more: bool, at: int) -> int:
    """Where the content of a sparse file of GNU tar begins: behind the records that go on with its map."""
    while more:
        f.seek(at)
        record = f.read(RECORD)
        at += RECORD
        more = len(record) == RECORD and record[504] != 0
    return at


def _records(content: bytes, at: int) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of an extended head."""
    found, place = dict[str, str](), 0
    while place < len(content) and content[place]:
        length, blank, _ = content[place : place + 20].partition(b" ")
        size = int(length) if blank and length.isdigit() else 0
        record = content[place + len(length) + 1 : place + size]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or place + size > len(content):
            raise Damaged(f"the extended head at byte {at:,} cannot be read")
        found[_word(key)] = _word(value[:-1])
        place += size
    return found


def _name(head: bytes) -> str:
    name = _word(head[:100])
    before = _word(head[345:500]) if head[257:263] == b"ustar\0" else ""  # GNU's has other things there
    return f"{before}/{name}" if before else name


def _word(content: bytes) -> str:
    return content.split(b"\0", 1)[0].decode(errors="replace")


class TarReader(LocalReader):
    """Runs of members of a tar, or all of a packed one."""

    def _documents(self, row: np.void) -> list[Any]:
        start, stop = int(row["start"]), int(row["stop"])
        if stop >= 0:
            with open(self._path(row), "rb") as f:
                return [self._document(f, sample) for sample in samples(members(f, start, stop))]
        content = whole(self._path(row))
        with io.BytesIO(content) as held:
            found = list(samples(members(held, 0, len(content))))
            check_end(held, found[-1].stop if found else 0)
            return [self._document(held, sample) for sample in found]

    def _document(self, f: BinaryIO, sample: Sample) -> Any:
        member = sample.text
        if member is None or member.size > LONGEST_LINE:
            return TOO_LONG if member else NO_TEXT
        f.seek(member.body)
        content = f.read(member.size)
        if len(content) != member.size:
            raise Damaged("it is shorter than it was")
        if sample.ending == ".json":
            return json_text(content, self.manifest.text_column)
        try:
            return text_of(as_utf8(content))
        except Damaged:  # not what its byte order mark says
            return None
