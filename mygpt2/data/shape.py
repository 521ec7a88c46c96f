"""How many lanes and how wide a window: chosen from the data and the batch, never from ranks or threads."""

from __future__ import annotations

from mygpt2.config.schema import DataConfig
from mygpt2.errors import UserError

MOST_LANES = 64  # more lanes mix more documents into a batch, but the first batch needs a block of each
BLOCKS_AT_ONCE = 128  # lanes x window: some 264 MB of uint16 tokens in FineWeb-Edu's row groups of a million tokens


def divisors(n: int) -> list[int]:
    """All divisors, ascending."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def nearest(value: int, legal: list[int]) -> str:
    """The legal values next to a given one, for an error message."""
    below = [v for v in legal if v < value][-1:]
    above = [v for v in legal if v > value][:1]
    return ", ".join(map(str, below + above)) or "none"


def choose_shape(data: DataConfig, blocks: int, batch_sequences: int, world_size: int) -> tuple[int, int]:
    """(lanes V, window W) for a set of blocks; UserError unless ranks divide V, V divides the batch and V <= blocks."""
    lanes = _choose_lanes(data, blocks, batch_sequences)
    if lanes % world_size:
        legal_lanes = [d for d in divisors(batch_sequences) if d % world_size == 0 and d <= blocks]
        advice = (
            f"or set data.lanes to one of {', '.join(map(str, legal_lanes[:8]))}"
            if legal_lanes
            else f"({blocks} blocks and batches of {batch_sequences} sequences allow no lanes for {world_size} ranks)"
        )
        raise UserError(
            f"world_size={world_size} ranks cannot share {lanes} lanes evenly; "
            f"nearest numbers of ranks: {nearest(world_size, divisors(lanes))}; {advice}"
        )
    if data.order != "lanes":
        return lanes, 1
    window = data.window or 1 << (max(1, BLOCKS_AT_ONCE // lanes).bit_length() - 1)
    return lanes, max(1, min(window, blocks // lanes))


def _choose_lanes(data: DataConfig, blocks: int, batch_sequences: int) -> int:
    if data.lanes is None:
        return max(d for d in divisors(batch_sequences) if d <= min(MOST_LANES, blocks))
    legal = [d for d in divisors(batch_sequences) if d <= blocks]
    if data.lanes > blocks:
        raise UserError(
            f"data.lanes={data.lanes} is more than the {blocks} blocks of {data.source}; "
            f"nearest legal: {nearest(data.lanes, legal)}"
        )
    if batch_sequences % data.lanes:
        raise UserError(
            f"data.lanes={data.lanes} does not divide the batch of {batch_sequences} sequences; "
            f"nearest legal: {nearest(data.lanes, legal)}"
        )
    return data.lanes
