"""Tensors to and from safetensors files, streamed so that a save needs no second copy of the model in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mygpt2.checkpoint.files import FileSystem, write_all
from mygpt2.checkpoint.layout import BrokenCheckpoint, make_header

CHUNK_BYTES = 8 << 20


def dtype_names() -> dict[torch.dtype, str]:
    """torch's dtypes in the words of the format."""
    return {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
        torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
        torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
        torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip


def write_tensors(
    files: FileSystem, descriptor: int, tensors: Mapping[str, Tensor], rows: Mapping[str, tuple[int, int]] | None = None
) -> tuple[int, str]:
    """Writes one safetensors file and returns (bytes, sha256) of what was meant to be written.

    Tensors may be on any device, non-contiguous, or share memory: each is written in full under its name. The digest
    is taken from memory, so a disk that stores something else is found out by the first verification. `rows` as of
    `parts.Part`, for the file of a part.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in _encoded(tensors, rows):
        digest.update(chunk)
        write_all(files, descriptor, chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Of the file that `write_tensors` would make of them."""
    digest = hashlib.sha256()
    for chunk in _encoded(tensors, None):
        digest.update(chunk)
    return digest.hexdigest()


def _encoded(tensors: Mapping[str, Tensor], rows: Mapping[str, tuple[int, int]] | None) -> Iterator[memoryview]:
    names = dtype_names()
    notes = {} if rows is None else {"rows": json.dumps(rows, sort_keys=True, separators=(",", ":"))}
    header, order = make_header({name: (names[t.dtype], list(t.shape)) for name, t in tensors.items()}, notes)
    yield memoryview(header)
    for name in order:
        yield from _chunks(tensors[name])


def _chunks(tensor: Tensor) -> list[memoryview]:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    if flat.numel() == 0:
        return []
    view = flat.view(torch.uint8).numpy().data
    return [view[start : start + CHUNK_BYTES] for start in range(0, len(view), CHUNK_BYTES)]


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the data, without headers."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU. BrokenCheckpoint for what the library refuses."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BrokenCheckpoint(f"{path} is not readable: {error}") from None
