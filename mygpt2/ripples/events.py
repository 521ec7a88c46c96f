"""TensorBoard event files, read without TensorBoard: records of protobuf messages, of which the scalars are kept.

A record is its length (8 bytes), the length's checksum (4), an Event message, and that message's checksum (4). Event:
2 step, 5 summary, 7 session; a summary's value: 1 tag, 2 number, 8 tensor (tensorflow/core/util/event.proto,
tensorflow/core/framework/summary.proto and tensor.proto). The lengths' checksums are looked at, which finds a file
that is cut or mixed up; those of the messages would take longer than reading.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mygpt2.errors import UserError
from mygpt2.ripples.log import Floats
from mygpt2.ripples.textfile import checked_file

PREFIX = "events.out.tfevents"
MOST_CELLS = 200_000_000  # steps times tags
TOLD_EVERY = 4096  # records between two words of progress
_VARINT, _BYTES, _SIZES = 0, 2, {1: 8, 5: 4}  # kinds of fields on the wire
_START = 1  # a session's status
_NUMBERS = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # a tensor's dtype: how its content is written


@dataclass(frozen=True)
class Scalars:
    """What some event files hold: `step` (n,) ascending, values by tag (n,) with NaN where a step has none, and
    whether a step has one (n,), since NaN may have been logged. `notes`: what was wrong with the files, in words.
    """

    step: Floats
    values: dict[str, Floats]
    logged: dict[str, np.ndarray]
    notes: tuple[str, ...]


def event_files(folder: Path) -> list[Path]:
    """The event files of a folder, in the order in which they were begun: their names hold the time."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_file())


def read_event_files(paths: Sequence[Path], progress: Callable[[int, int], None] = lambda done, all: None) -> Scalars:
    """Every scalar of files that were written one after another, at full resolution.

    Of a step that was written twice the later value counts; a session that starts again at a step takes away what
    earlier ones said of it and later steps, as TensorBoard does. `progress`: bytes read, bytes in all. UserError for a
    file that cannot be read, or is no event file.
    """
    series: dict[str, dict[int, float]] = {}
    notes: list[str] = []
    raws = [_bytes(path) for path in paths]
    total, before = sum(map(len, raws)), 0
    for path, raw in zip(paths, raws, strict=True):
        at = 0
        for count, (message, end) in enumerate(_records(raw), 1):
            at = end
            try:
                _take(series, message)
            except (LookupError, ValueError, struct.error):
                notes.append(f"a record of {path.name} cannot be read and is left out")
            if count % TOLD_EVERY == 0:
                progress(before + at, total)
        if raw and not at:
            raise UserError(f"{path} is no event file: its first record is damaged; give one that TensorBoard can read")
        if at < len(raw):
            notes.append(f"{path.name} is cut or damaged after {at:,} of {len(raw):,} bytes; what is before counts")
        before += len(raw)
        progress(before, total)
    steps = sorted({step for values in series.values() for step in values})
    if len(steps) * len(series) > MOST_CELLS:
        raise UserError(f"{paths[0]} has {len(series):,} names at {len(steps):,} steps; that is too much; give one run")
    logged = {tag: np.array([step in values for step in steps], bool) for tag, values in series.items()}
    columns = {tag: np.array([values.get(step, np.nan) for step in steps]) for tag, values in series.items()}
    return Scalars(np.array(steps, np.float64), columns, logged, tuple(dict.fromkeys(notes)))


def _bytes(path: Path) -> bytes:
    checked_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; give a file that can") from None


def _records(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """(message, where the next record begins), up to the first record that is not whole."""
    at = 0
    while at + 12 <= len(raw):
        length, check = struct.unpack_from("<QI", raw, at)
        end = at + 16 + length
        if end > len(raw) or check != _checksum(raw[at : at + 8]):
            return
        yield raw[at + 12 : end - 4], end
        at = end


def _take(series: dict[str, dict[int, float]], event: bytes) -> None:
    """Adds the scalars of an Event."""
    fields = dict(_fields(event))
    step = fields.get(2, 0)
    if not isinstance(step, int):
        raise ValueError("a step that is no number")
    if dict(_fields(_part(fields, 7))).get(1) == _START:
        for values in series.values():
            for late in [known for known in values if known >= step]:
                del values[late]
    for number, value in _fields(_part(fields, 5)):
        if number == 1 and isinstance(value, bytes):
            tag, scalar = _value(dict(_fields(value)))
            if scalar is not None:
                series.setdefault(tag, {})[step] = scalar


def _value(fields: dict[int, int | bytes]) -> tuple[str, float | None]:
    """(tag, number) of a summary's value; None for a picture, a histogram, or a tensor of several numbers."""
    tag = _part(fields, 1).decode()
    if 2 in fields:
        return tag, float(struct.unpack("<f", _part(fields, 2))[0])
    return tag, _tensor(dict(_fields(_part(fields, 8)))) if 8 in fields else None


def _tensor(fields: dict[int, int | bytes]) -> float | None:
    """The number of a tensor that holds one. Fields: 1 dtype, 4 raw content, else by dtype 5 floats, 6 doubles, 7 and
    10 whole numbers, each alone or packed.
    """
    found = np.zeros(0)
    for number, value in fields.items():
        if number == 4 and isinstance(value, bytes) and fields.get(1) in _NUMBERS:
            found = np.frombuffer(value, _NUMBERS[fields[1]])  # type: ignore[index]
        elif number in (5, 6) and isinstance(value, bytes):
            found = np.frombuffer(value, "<f4" if number == 5 else "<f8")
        elif number in (7, 10):
            found = np.array(list(_varints(value)) if isinstance(value, bytes) else [value], np.float64)
    return float(found[0]) if len(found) == 1 else None


def _part(fields: dict[int, int | bytes], number: int) -> bytes:
    """A field's bytes; none where it is missing."""
    found = fields.get(number, b"")
    if not isinstance(found, bytes):
        raise ValueError(f"field {number} is a number")
    return found


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a message's fields: an int for a varint, bytes for everything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number - (number >> 63 << 64)  # two's complement
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        else:
            size = _SIZES[kind]
        if at + size > len(message):
            raise IndexError(at)
        yield key >> 3, message[at : at + size]
        at += size


def _varints(packed: bytes) -> Iterator[int]:
    at = 0
    while at < len(packed):
        number, at = _varint(packed, at)
        yield number - (number >> 63 << 64)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(number, where the next field begins): seven bits a byte, the lowest first."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & (1 << 64) - 1, at
        shift += 7


def _table() -> tuple[int, ...]:
    """CRC-32C (Castagnoli) of each byte."""
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


_CRC = _table()


def _checksum(raw: bytes) -> int:
    """The masked CRC-32C that TFRecords use."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
