"""What the files of a checkpoint must look like, checked without loading a tensor.

safetensors: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data
without gaps. Format: https://github.com/huggingface/safetensors (section Format).
A pickle renamed to one of the names fails here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mygpt2.errors import TryAgain, UserError

MAX_HEADER_BYTES = 16 << 20

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


class BrokenCheckpoint(UserError):
    """A checkpoint, or a file of one, that is not what was written."""


class Unreadable(str):
    """A problem of the moment, not of the checkpoint: the disk, the permissions, or no descriptor left."""


class UnreadableCheckpoint(TryAgain):
    """Checkpoints are there and none can be read just now."""


def make_header(
    tensors: dict[str, tuple[str, list[int]]], notes: Mapping[str, str] | None = None
) -> tuple[bytes, list[str]]:
    """Length prefix and header for {name: (dtype, shape)}, and the names in the order their data follows.

    Wide items come first, so every tensor is aligned to its item size when the file is mapped.
    """
    order = sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name][0]], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(notes or {})}}
    offset = 0
    for name in order:
        dtype, shape = tensors[name]
        end = offset + ITEM_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


def layout_problem(path: Path) -> str | None:
    """Why a file is not safetensors, or None. Reads the header only."""
    size = os.path.getsize(path)
    try:
        header, data = read_header(path)
        spans = [_span(entry) for name, entry in header.items() if name != "__metadata__"]
    except BrokenCheckpoint:
        return "is not a safetensors file"
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return "has no readable safetensors header"
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            return "has a gap or an overlap between tensors"
        end = stop
    return None if data + end == size else "does not end where its header says"


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data begin. BrokenCheckpoint for what is no such file, ValueError
    or RecursionError for a header that is none."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise BrokenCheckpoint(f"{path} is not a safetensors file")
        return json.loads(file.read(length)), 8 + length


def document_problem(raw: bytes) -> str | None:
    """Why bytes are not a JSON object, or None."""
    try:
        return None if isinstance(json.loads(raw), dict) else "is not a JSON object"
    except (ValueError, RecursionError):
        return "is not readable JSON"


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    start, stop = (int(offset) for offset in entry["data_offsets"])
    shape = [int(n) for n in entry["shape"]]
    count = math.prod(shape)
    if min(shape, default=0) < 0 or stop - start != ITEM_BYTES[entry["dtype"]] * count:
        raise ValueError("shape and offsets differ")
    return start, stop
