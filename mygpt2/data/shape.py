"""How many lanes and how wide a window: chosen from the data and the batch, never from ranks or threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mygpt2.config.batch import around, divides, divisors, lanes_problem
from mygpt2.config.data import DataConfig
from mygpt2.data.order import WHOLE, BlockOrder
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Part
from mygpt2.errors import UserError

MOST_LANES = 64  # more lanes mix more documents into a batch, but the first batch needs a block of each
# Lanes x window: 128 of FineWeb-Edu's row groups of a million tokens and 2.9 MB, some 264 MB of uint16 tokens; of
# smaller blocks as many more.
BLOCKS_AT_ONCE, BYTES_AT_ONCE = 128, 256 << 20
# What all lanes together begin with, in parts: a block each, or more of blocks that are smaller than a row group there.
FIRST_BLOCKS, FIRST_BYTES = 256, 4 << 20  # at most so many in all, and so many bytes a lane
START_BYTES = 2 << 20  # of all lanes' first parts together, which have to be tokenized for the first batch


@dataclass(frozen=True)
class Shape:
    """How a source is read: see BlockOrder."""

    lanes: int
    window: int
    first: int = 1
    share: int = 1


def choose_shape(data: DataConfig, manifest: Manifest, batch_sequences: int, world_size: int) -> Shape:
    """The shape for a source; UserError unless V divides the batch, V <= its blocks, and V and the ranks divide."""
    blocks = len(manifest)
    legal = [d for d in divisors(batch_sequences) if d <= blocks]
    lanes = data.lanes or max(d for d in legal if d <= MOST_LANES)
    if problem := lanes_problem(batch_sequences, lanes, ranks=1):
        raise UserError(problem)
    if lanes > blocks:
        raise UserError(
            f"data.lanes={lanes} is more than the {blocks} blocks of {data.source}; nearest legal: "
            f"{_nearest(lanes, legal)}"
        )
    if not divides(lanes, world_size):
        fitting = [d for d in legal if divides(d, world_size)]
        advice = (
            f"or set data.lanes to one of {', '.join(map(str, fitting[:8]))}"
            if fitting
            else f"({blocks} blocks and batches of {batch_sequences} sequences allow no lanes for {world_size} ranks)"
        )
        raise UserError(
            f"world_size={world_size} ranks cannot share {lanes} lanes evenly; "
            f"nearest numbers of ranks: {_nearest(world_size, _ranks(lanes, batch_sequences))}; {advice}"
        )
    if batch_sequences % world_size:
        raise UserError(
            f"world_size={world_size} ranks cannot share {batch_sequences} sequences; nearest numbers of ranks: "
            f"{_nearest(world_size, _ranks(lanes, batch_sequences))}"
        )
    if data.order != "lanes":
        return Shape(lanes, 1)
    stored = max(1, manifest.size // blocks)
    window = data.window or _power(max(BLOCKS_AT_ONCE, BYTES_AT_ONCE // stored) // lanes)
    window = max(1, min(window, blocks // lanes))
    first = min(window, _power(min(FIRST_BYTES // stored, FIRST_BLOCKS // lanes)))
    return Shape(lanes, window, first, min(WHOLE, _power(WHOLE * START_BYTES // (lanes * first * stored))))


def choose_shapes(data: DataConfig, parts: Sequence[Part], batch_sequences: int, world_size: int) -> list[Shape]:
    """The shape of each source of a mixture, all with the same lanes: each lane reads of every source."""
    if len(parts) == 1:
        return [choose_shape(parts[0].own(data), parts[0].manifest, batch_sequences, world_size)]
    fewest = min(parts, key=lambda part: len(part.manifest))
    most = min(MOST_LANES, len(fewest.manifest))
    lanes = data.lanes or max(d for d in divisors(batch_sequences) if d <= most)
    if lanes > len(fewest.manifest) and not lanes_problem(batch_sequences, lanes, ranks=1):
        legal = [d for d in divisors(batch_sequences) if d <= most]
        raise UserError(
            f"data.lanes={lanes} is more than the {len(fewest.manifest)} blocks of source {fewest.name} in data.mix; "
            f"nearest legal: {_nearest(lanes, legal)}"
        )
    settings = (part.own(data).model_copy(update={"lanes": lanes}) for part in parts)
    return [
        choose_shape(own, part.manifest, batch_sequences, world_size) for own, part in zip(settings, parts, strict=True)
    ]


@dataclass(frozen=True)
class Owned:
    """What a rank has of the lanes: all rows of some, or `part` of `parts` of the rows of one."""

    lanes: range
    part: int = 0
    parts: int = 1

    def rows(self, count: int) -> range:
        """Which of a lane's `count` rows of a step."""
        each = count // self.parts
        return range(self.part * each, (self.part + 1) * each)


def owned(lanes: int, rank: int, world_size: int) -> Owned:
    """A rank's part. Ranks that share a lane stand side by side, and so on one machine, which then reads it once."""
    if world_size <= lanes:
        return Owned(range(rank, lanes, world_size))
    parts = world_size // lanes
    return Owned(range(rank // parts, rank // parts + 1), rank % parts, parts)


def block_order(data: DataConfig, manifest: Manifest, shape: Shape, seed: int) -> BlockOrder:
    """The order in which a source of that shape is read."""
    shuffled = data.order == "lanes"
    return BlockOrder(len(manifest), shape.lanes, shape.window, seed, shuffled, shape.first, shape.share)


def _ranks(lanes: int, sequences: int) -> list[int]:
    """Numbers of ranks that can share the lanes and the batch."""
    return [d for d in divisors(sequences) if divides(lanes, d)]


def _power(limit: int) -> int:
    """The largest power of two up to a limit, at least 1."""
    return 1 << (max(1, limit).bit_length() - 1)


def _nearest(value: int, legal: list[int]) -> str:
    return ", ".join(map(str, around(legal, value))) or "none"
