"""Compressed files as streams, and whole with a limit: a small file must not unpack to more than memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import zstandard

COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
CHUNK = 1 << 20
# What a file may unpack to: text shrinks 3 to 20 times, logs at most 100; the rest is a mistake or an attack.
MOST_RATIO, ALWAYS_ALLOWED, MOST_BYTES = 100, 64 << 20, 2 << 30
ARROW_WINDOW = 1 << 27  # zstd's default limit; `zstd --long=31` asks for 16 times as much
SLIVER = 1 << 10  # bytes given at once to a decompressor that returns all they make: at most 32 MB


class Damaged(ValueError):
    """A file that is not what it should be."""


class Changed(Damaged):
    """A file that is not what it was."""


def compression_of(name: str | Path) -> str | None:
    """`gzip` or `zstd` by a file's ending, None for what is not compressed."""
    return COMPRESSION.get(Path(name).suffix.lower())


def chunks(path: str | Path) -> Iterator[bytes]:
    """A file's content from the beginning, unpacked where its ending says so, some MB at most at a time.

    OSError, pa.ArrowException or Damaged where the compressed data is not whole.
    """
    kind = compression_of(path)
    if kind == "zstd" and _window(path) > ARROW_WINDOW:
        yield from _long_window(path)
    elif kind:
        with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, kind) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    else:
        with open(path, "rb") as f:
            while chunk := f.read(CHUNK):
                yield chunk


def whole(path: str | Path) -> bytes:
    """All of a file, unpacked. Damaged when that is more than is taken into memory."""
    size = Path(path).stat().st_size
    limit = min(MOST_BYTES, max(ALWAYS_ALLOWED, MOST_RATIO * size)) if compression_of(path) else MOST_BYTES
    parts, total = [], 0
    for chunk in chunks(path):
        total += len(chunk)
        if total > limit:
            raise Damaged(f"it unpacks to more than {limit >> 20} MB, too much to hold; unpack or divide the file")
        parts.append(chunk)
    return b"".join(parts)


def _window(path: str | Path) -> int:
    """Bytes that the first frame of a zstd file wants to look back; 0 where that cannot be told."""
    with open(path, "rb") as f:
        try:
            return int(zstandard.get_frame_parameters(f.read(18)).window_size)
        except zstandard.ZstdError:
            return 0


def _long_window(path: str | Path) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame, begun = unpacker.decompressobj(), False
    with open(path, "rb") as f:
        try:
            while sliver := f.read(SLIVER):
                while sliver:
                    yield frame.decompress(sliver)
                    begun, sliver = not frame.eof, frame.unused_data
                    frame = frame if begun else unpacker.decompressobj()
        except zstandard.ZstdError as error:
            raise Damaged(str(error)) from error
    if begun:
        raise Damaged("truncated compressed stream")
