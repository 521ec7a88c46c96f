"""A checkpoint in parts: the files in which each rank has its own rows of every tensor, and how rows are dealt.

    step-00001200/   model-00001-of-00008.safetensors  optimizer-00001-of-00008.safetensors  ...
                     state.json  MANIFEST.json

Part i of n has the rows [i x each, (i + 1) x each) of a tensor, as far as there are so many; `each` is the same for all
parts, so that a reader finds any row without opening them all. Numbers that have no rows are in the first part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MOST_PARTS = 99_999
_PART = re.compile(r"(model|optimizer)-(\d{5})-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class Part:
    """What one rank has of a group of tensors. `rows`: by name, how many the whole has, and how many each part."""

    tensors: Mapping[str, Tensor]
    rows: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Share:
    """Part `index` (from 0) of `count` of a checkpoint."""

    index: int
    count: int
    model: Part
    optimizer: Part


def part_name(whole: str, index: int, count: int) -> str:
    """The name of part `index` (from 0) of the file `whole`."""
    return f"{whole.removesuffix('.safetensors')}-{index + 1:05d}-of-{count:05d}.safetensors"


def whole_name(name: str) -> str:
    """The file that a part is of; other names as they are."""
    match = _PART.fullmatch(name)
    return f"{match[1]}.safetensors" if match else name


def count_parts(names: Iterable[str]) -> int:
    """How many parts the files of a checkpoint say that there are; 0 for one that is not in parts."""
    return max((int(match[3]) for match in map(_PART.fullmatch, names) if match), default=0)


def part_names(whole: str, count: int) -> list[str]:
    """All parts of the file `whole`, in order; the file itself where it is not in parts."""
    return [part_name(whole, index, count) for index in range(count)] or [whole]
