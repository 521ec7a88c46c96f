"""TensorBoard event files: records whose messages TensorBoard's own package reads, of which the scalars are kept.

A record is its length (8 bytes), the length's checksum (4), an Event message, and that message's checksum (4). The
lengths' checksums are looked at, which finds a file that is cut or mixed up; TensorBoard's reader looks at those of the
messages too, byte by byte in Python, which takes twice as long as everything else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.errors import UserError
from mygpt2.ripples.log import Floats
from mygpt2.ripples.textfile import checked_file

PREFIX = "events.out.tfevents"
MOST_CELLS = 200_000_000  # steps times tags
TOLD_EVERY = 4096  # records between two words of progress


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
    """The event files of a folder, in the order in which they were begun: their names hold the time.

    A name that is a link out of the folder is passed over: whoever shows a folder did not show what is elsewhere.
    """
    inside = folder.resolve()
    found = [path for path in folder.glob(f"{PREFIX}*") if path.is_file()]
    return sorted(path for path in found if path.resolve().is_relative_to(inside))


def read_event_files(paths: Sequence[Path], progress: Callable[[int, int], None] = lambda done, all: None) -> Scalars:
    """Every scalar of files that were written one after another, at full resolution.

    Of a step that was written twice the later value counts; a session that starts again at a step takes away what
    earlier ones said of it and later steps, as TensorBoard does. `progress`: bytes read, bytes in all. UserError for a
    file that cannot be read, or is not an event file.
    """
    take, checksum = _tensorboard(paths)
    series: dict[str, dict[int, float]] = {}
    notes: list[str] = []
    raws = [_bytes(path) for path in paths]
    total, before = sum(map(len, raws)), 0
    for path, raw in zip(paths, raws, strict=True):
        at = 0
        for count, (message, end) in enumerate(_records(raw, checksum), 1):
            at = end
            try:
                take(series, message)
            except ValueError:
                notes.append(f"a record of {path.name} cannot be read and is left out")
            if count % TOLD_EVERY == 0:
                progress(before + at, total)
        if raw and not at:
            raise UserError(
                f"{path} is not an event file, its first record is damaged; give one that TensorBoard reads"
            )
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


def _records(raw: bytes, checksum: Callable[[bytes], int]) -> Iterator[tuple[bytes, int]]:
    """(message, where the next record begins), up to the first record that is not whole."""
    at = 0
    while at + 12 <= len(raw):
        length, check = struct.unpack_from("<QI", raw, at)
        end = at + 16 + length
        if end > len(raw) or check != checksum(raw[at : at + 8]):
            return
        yield raw[at + 12 : end - 4], end
        at = end


def _tensorboard(paths: Sequence[Path]) -> tuple[Callable[[dict[str, dict[int, float]], bytes], None], Any]:
    """(what adds the scalars of an Event to series by tag, ValueError where it is damaged; a record's checksum)."""
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise UserError(
            f"{paths[0]} is an event file, which needs the package tensorboard to be read; pip install "
            "'mygpt2[trackers]', or give an export of it as CSV or JSON"
        ) from None

    def take(series: dict[str, dict[int, float]], message: bytes) -> None:
        try:
            event = Event.FromString(message)
            if event.session_log.status == SessionLog.START:
                for values in series.values():
                    for late in [known for known in values if known >= event.step]:
                        del values[late]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    series.setdefault(value.tag, {})[event.step] = value.simple_value
                elif value.HasField("tensor"):
                    number = make_ndarray(value.tensor)
                    if number.size == 1 and number.dtype.kind in "fiu":
                        series.setdefault(value.tag, {})[event.step] = float(number.item())
        except (DecodeError, TypeError) as error:
            raise ValueError(str(error)) from None

    return take, masked_crc32c
