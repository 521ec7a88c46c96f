"""Where the record batches of an Arrow file lie, so that any of them can be read alone.

Both layouts hold the same messages: a stream (what `datasets` writes) one after the other, a file (Feather) behind a
magic word and before a footer. A message is a head, which says what follows and how long it is, and a body; only heads
are read. Source of the layouts: the Arrow columnar format, version 1.5, "Serialization and Interprocess Communication",
and its Message.fbs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from mygpt2.data.sources.local.unpack import ALWAYS_ALLOWED, MOST_RATIO, Damaged

MAGIC, OLD_MAGIC = b"ARROW1", b"FEA1"
MARK = b"\xff\xff\xff\xff"  # before the length of every head
END = MARK + bytes(4)  # of a stream
SCHEMA, DICTIONARY, BATCH = 1, 2, 3  # kinds of messages
LONGEST_HEAD = 256 << 20  # bytes: of a message's head, which grows with the columns


@dataclass(frozen=True)
class Message:
    """A message's place in its file, [start, stop). `rows` of a batch. `id`, `delta` of a dictionary, which a delta
    adds to."""

    kind: int
    start: int
    stop: int
    rows: int = 0
    id: int = 0
    delta: bool = False


@dataclass(frozen=True)
class Layout:
    """What an Arrow file consists of. `batches`: (n, 3) int64 of first byte, last + 1 and rows.

    `ended`: whether it says where it ends; a stream may just stop.
    """

    schema: pa.Schema
    head: bytes  # the message with the schema
    batches: np.ndarray
    dictionaries: tuple[Message, ...]
    in_any_order: bool  # dictionaries may stand behind the batches that need them
    ended: bool

    def messages_for(self, numbers: range) -> list[tuple[int, int]]:
        """Where the batches `numbers` lie and, before each, what makes the dictionaries as they are there."""
        wanted = [(int(start), int(stop)) for start, stop, _ in self.batches[numbers.start : numbers.stop]]
        before: list[Message] = []
        between: list[tuple[int, int]] = []
        for message in self.dictionaries:
            if self.in_any_order or message.start < wanted[0][0]:
                if not message.delta:  # takes the place of an earlier one
                    before = [other for other in before if other.id != message.id]
                before.append(message)
            elif message.start < wanted[-1][0]:
                between.append((message.start, message.stop))
        return [*((m.start, m.stop) for m in before), *sorted([*wanted, *between])]


def layout_of(path: str) -> Layout:
    """The layout of an Arrow file. Damaged where it is none, or not whole; pa.ArrowException for a bad schema."""
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        start, end = _span(f, size)
        found = list(_messages(f, start, end))
        if not found or found[0].kind != SCHEMA:
            raise Damaged("it does not begin with a schema")
        f.seek(found[0].start)
        head = f.read(found[0].stop - found[0].start)
    after = found[-1].stop
    if start == 0 and after + len(END) < size:
        raise Damaged(f"{size - after - len(END):,} bytes follow the end of its stream")
    schema = pa.ipc.open_stream(head + END).schema
    try:
        _ = [f"{field.name} {field.type}" for field in schema]
    except UnicodeDecodeError as error:
        raise Damaged("the name of a column is not UTF-8") from error
    batches = [(m.start, m.stop, m.rows) for m in found if m.kind == BATCH]
    return Layout(
        schema, head, np.array(batches, np.int64).reshape(-1, 3),
        tuple(m for m in found if m.kind == DICTIONARY), start > 0, start > 0 or after < size,
    )  # fmt: skip


def _span(f: BinaryIO, size: int) -> tuple[int, int]:
    """First byte and last + 1 of the messages."""
    begin = f.read(8)
    if begin.startswith(MAGIC):
        f.seek(max(0, size - 10))
        length, magic = struct.unpack("<i6s", f.read(10).rjust(10))
        if magic != MAGIC or not 0 < length <= size - 18:
            raise Damaged("it has no footer at its end, as a file that was not written to its end")
        return 8, size - 10 - length
    if begin.startswith(OLD_MAGIC):
        raise Damaged("it is Feather of version 1; write it as version 2")
    if not begin.startswith(MARK):
        raise Damaged("it begins neither as an Arrow stream nor as an Arrow file")
    return 0, size


def _messages(f: BinaryIO, at: int, end: int) -> Iterator[Message]:
    """The messages from `at` on. Damaged for what is none, and for one that does not end before `end`."""
    while at < end:
        f.seek(at)
        mark, length = f.read(4), int.from_bytes(f.read(4), "little")
        if at + 8 > end or at + 8 + length > end:
            raise Damaged(f"it ends within the message at byte {at:,}, as a file that was not written to its end")
        if mark != MARK or length > LONGEST_HEAD:
            raise Damaged(f"there is no Arrow message at byte {at:,}")
        if not length:
            return
        try:
            message = _message(f.read(length), at)
        except struct.error as error:
            raise Damaged(f"the message at byte {at:,} has a head that cannot be read ({error})") from error
        if message.stop > end:
            raise Damaged(f"it ends within the message at byte {at:,}, as a file that was not written to its end")
        yield message
        at = message.stop


def _message(head: bytes, start: int) -> Message:
    """What the head of a message says."""
    message = Table.root(head)
    kind, body = message.number(1, "B"), message.number(3, "q")
    if body < 0:
        raise struct.error("a negative length")
    stop = start + 8 + len(head) + body
    if kind == BATCH:
        return Message(kind, start, stop, rows=message.table(2).number(0, "q"))
    if kind == DICTIONARY:
        dictionary = message.table(2)
        return Message(kind, start, stop, id=dictionary.number(0, "q"), delta=bool(dictionary.number(2, "B")))
    return Message(kind, start, stop)


def check_unpacked(message: bytes) -> None:
    """Damaged when the buffers of a packed batch say that they unpack to more than is taken into memory.

    `message`: whole, with its body. Each packed buffer begins with its length, or with -1 where it is not packed.
    """
    length = int.from_bytes(message[4:8], "little")
    body = memoryview(message)[8 + length :]
    try:
        root = Table.root(message[8 : 8 + length])
        batch = root.table(2) if root.number(1, "B") == BATCH else root.table(2).table(1)
        if not batch.has(3):
            return
        sizes = [int.from_bytes(body[at : at + 8], "little", signed=True) for at, n in batch.pairs(2) if n >= 8]
    except struct.error as error:
        raise Damaged(f"a message has a head that cannot be read ({error})") from error
    limit = max(ALWAYS_ALLOWED, MOST_RATIO * len(message))
    if sum(max(0, size) for size in sizes) > limit:
        raise Damaged(f"{len(message):,} bytes of it unpack to more than {limit >> 20} MB; write it again")


@dataclass(frozen=True)
class Table:
    """A table of a flatbuffer: fields by their number, each of which may be missing. struct.error outside the bytes."""

    content: bytes
    at: int

    @classmethod
    def root(cls, content: bytes) -> Table:
        return cls(content, _unpack("I", content, 0))

    def has(self, field: int) -> bool:
        return self._place(field) > 0

    def number(self, field: int, form: str) -> int:
        """A number of the form that `struct` gives a letter; 0 where it is missing."""
        place = self._place(field)
        return _unpack(form, self.content, place) if place else 0

    def table(self, field: int) -> Table:
        place = self._place(field)
        if not place:
            raise struct.error(f"no field {field}")
        return Table(self.content, place + _unpack("I", self.content, place))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """The elements of a vector of structs of two int64."""
        if place := self._place(field):
            place += _unpack("I", self.content, place)
            for number in range(_unpack("I", self.content, place)):
                at = place + 4 + 16 * number
                yield _unpack("q", self.content, at), _unpack("q", self.content, at + 8)

    def _place(self, field: int) -> int:
        """Where a field is, 0 where it is missing: the table of offsets is found by an offset itself."""
        offsets = self.at - _unpack("i", self.content, self.at)
        if 4 + 2 * field >= _unpack("H", self.content, offsets):
            return 0
        offset = _unpack("H", self.content, offsets + 4 + 2 * field)
        return self.at + offset if offset else 0


def _unpack(form: str, content: bytes, at: int) -> int:
    if at < 0:  # counted from the end by `struct`
        raise struct.error("an offset before the beginning")
    return int(struct.unpack_from(f"<{form}", content, at)[0])
