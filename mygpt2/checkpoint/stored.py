"""Tensors of a checkpoint where they lie: whoever needs some rows reads those, and no file as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mygpt2.checkpoint.layout import BrokenCheckpoint, read_header
from mygpt2.checkpoint.tensors import dtype_names


@dataclass(frozen=True)
class Whole:
    """A tensor as all parts together hold it; `each` is how many of its rows a part has."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    each: int


class Stored:
    """One group of tensors, in one file or in parts in their order. `bytes_read` counts what was read of them.

    Only the first file is opened at first. BrokenCheckpoint where files do not hold what the first one says of them,
    OSError where they cannot be read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._heads: dict[int, tuple[dict[str, Any], int]] = {}
        self._dtypes = {word: dtype for dtype, word in dtype_names().items()}
        self.bytes_read = 0
        try:
            self.tensors = self._described()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise BrokenCheckpoint(f"{self._files[0]} does not say which rows its tensors are") from None

    def _described(self) -> dict[str, Whole]:
        entries, _ = self._head(0)
        dealt = json.loads(entries.get("__metadata__", {}).get("rows", "{}"))
        found = {}
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            shape = tuple(map(int, entry["shape"]))
            in_parts = bool(shape) and len(self._files) > 1
            rows, each = map(int, dealt[name]) if in_parts else (shape[:1] or (1,)) * 2
            if shape and not (shape[0] == min(rows, each) and rows <= each * len(self._files)):
                raise ValueError(f"{shape[0]} of {rows} rows, {each} in each of {len(self._files)} parts")
            found[name] = Whole(self._dtypes[entry["dtype"]], (rows, *shape[1:]) if shape else (), max(1, each))
        return found

    def whole(self, name: str) -> Tensor:
        """A tensor with all its rows, on the CPU."""
        shape = self.tensors[name].shape
        return self.rows(name, 0, shape[0]) if shape else self._number(name)

    def all(self) -> dict[str, Tensor]:
        return {name: self.whole(name) for name in self.tensors}

    def rows(self, name: str, first: int, stop: int) -> Tensor:
        """The rows [first, stop) of a tensor, as far as it has so many, on the CPU."""
        whole = self.tensors[name]
        stop = max(first, min(stop, whole.shape[0]))
        found = torch.empty((stop - first, *whole.shape[1:]), dtype=whole.dtype)
        at = first
        while at < stop:
            part = at // whole.each
            begins = part * whole.each
            until = min(begins + whole.each, stop)
            has = min(whole.each, whole.shape[0] - begins)
            self._read(part, name, (has, *whole.shape[1:]), at - begins, found[at - first : until - first])
            at = until
        return found

    def _number(self, name: str) -> Tensor:
        found = torch.empty((), dtype=self.tensors[name].dtype)
        self._read(0, name, (), 0, found)
        return found

    def _read(self, part: int, name: str, shape: tuple[int, ...], skip: int, into: Tensor) -> None:
        """Fills `into` with rows of a part's tensor, which must have that shape, from row `skip` on."""
        if part >= len(self._files):
            raise BrokenCheckpoint(f"{name} has rows in part {part + 1}, and there are {len(self._files)}")
        path = self._files[part]
        entries, data = self._head(part)
        entry = entries.get(name)
        if entry is None or entry["shape"] != list(shape) or self._dtypes.get(entry["dtype"]) != into.dtype:
            raise BrokenCheckpoint(f"{path} does not hold its rows of {name}")
        if into.numel() == 0:
            return
        start = data + entry["data_offsets"][0] + skip * into.element_size() * math.prod(shape[1:])
        view = into.view(-1).view(torch.uint8).numpy().data
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            while len(view):
                count = file.readinto(view)
                if not count:
                    raise BrokenCheckpoint(f"{path} ends within {name}")
                self.bytes_read += count
                view = view[count:]

    def _head(self, part: int) -> tuple[dict[str, Any], int]:
        if part not in self._heads:
            try:
                entries, data = read_header(self._files[part])
            except (ValueError, RecursionError):
                raise BrokenCheckpoint(f"{self._files[part]} has no readable safetensors header") from None
            self.bytes_read += data
            self._heads[part] = entries, data
        return self._heads[part]
