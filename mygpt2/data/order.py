"""In which order the blocks of a source are read: a keyed, evenly spread permutation, any index of it in O(1).

With N blocks, V lanes and windows of W blocks, the set is cut into M = V*W strata of equal size (K or K + 1 blocks). A
*round* of M positions takes one block of every stratum, so a window of one lane, and the windows of all lanes together,
are spread over the whole set. Spread evenly rather than at random, a window of 16 row groups leaves no ripple at the
file period, where a buffer of 100,000 documents leaves all of it. Everything is keyed by (seed, epoch); nothing is kept
between calls, so step 10^6 costs what step 0 costs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

_MASK = (1 << 64) - 1
WHOLE = 64  # of what a lane begins with: it comes in parts of so many 64ths of each block's documents
_ROUNDS = 6  # a Feistel network of 4 rounds is already a good mixer; two more for the very small domains


def derive_key(*parts: int | str) -> int:
    """A 128-bit key from numbers and words: BLAKE2b of their text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest(), "little")


def random_words(count: int, *parts: int | str) -> np.ndarray:
    """`count` keyed 64-bit words: Philox, counter-based, with a stream that NumPy guarantees not to change."""
    return np.random.Philox(key=derive_key(*parts)).random_raw(count)


def permutation(count: int, *parts: int | str) -> np.ndarray:
    """A keyed permutation of range(count), int64: the order of keyed random words (Generator's own may change)."""
    return np.argsort(random_words(count, *parts), kind="stable")


def _mix(x: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def shuffled_index(index: int, count: int, key: int) -> int:
    """Where a keyed permutation of range(count) sends `index`, in O(1) time and memory.

    A balanced Feistel network over the next power of four, walked until the result falls inside the range (at most four
    walks on average; Black & Rogaway 2002).
    """
    if count <= 1:
        return 0
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mix((key >> number) ^ (right * 0x9E3779B97F4A7C15 + number & _MASK)) & mask)
        index = left << half | right
        if index < count:
            return index


@dataclass(frozen=True)
class BlockOrder:
    """Which blocks a lane reads, window by window and epoch by epoch.

    Lane l reads the positions k*V + l, k = 0, 1, ...; each lane has its own epoch counter, and a lane whose last
    position falls beyond N has one block less. Its very first `first` blocks come in parts, of which the first is
    `share` 64ths of them. With `shuffled` false the order is the file order (study orders).
    """

    blocks: int  # N >= lanes
    lanes: int  # V
    window: int  # W, at most N // V
    seed: int
    shuffled: bool = True
    first: int = 1  # at most W
    share: int = 1  # a power of two

    def block_at(self, epoch: int, position: int) -> int:
        """The block at a position of an epoch, 0 <= position < blocks."""
        if not self.shuffled:
            return position
        strata = self.lanes * self.window
        rounds, larger = divmod(self.blocks, strata)
        turn, place = divmod(position, strata)
        if turn < rounds:
            stratum = self._stratum(epoch, turn, place)
        else:  # the blocks left over: one of each larger stratum, in keyed order
            nth = shuffled_index(position - strata * rounds, larger, derive_key("rest", self.seed, epoch))
            stratum = -(-(nth + 1) * strata // larger) - 1
        start, stop = (s * self.blocks // strata for s in (stratum, stratum + 1))
        return start + shuffled_index(turn, stop - start, derive_key("stratum", self.seed, epoch, stratum))

    def _stratum(self, epoch: int, turn: int, place: int) -> int:
        """Over a round each lane visits every coarse region once, and all lanes together every stratum once."""
        step, lane = divmod(place, self.lanes)
        region = shuffled_index((step + lane) % self.window, self.window, derive_key("region", self.seed, epoch, turn))
        fine = shuffled_index(lane, self.lanes, derive_key("fine", self.seed, epoch, turn, region))
        return region * self.lanes + fine

    def lane_blocks(self, lane: int) -> int:
        """How many blocks the lane reads in an epoch."""
        return (self.blocks - lane + self.lanes - 1) // self.lanes

    def _boundary(self, epoch: int, window: int) -> int:
        """Lane position at which a window begins: 0, W, 2W, ...

        In epoch 0 the parts of the first blocks, which all begin at 0, and a ramp that doubles come before. The ramp's
        sum is W, so later windows align with rounds.
        """
        ramp = 0
        if epoch == 0:
            window = max(0, window - len(self.parts) + 2)
            ramp = ((self.window - 1) // self.first).bit_length()
        if window <= ramp:
            return min(window, 1) * (self.first << max(0, window - 1))
        return (window - ramp) * self.window

    @property
    def parts(self) -> tuple[int, ...]:
        """The bounds of the parts in 64ths: 0, share, 2 share, 4 share, ... 64. The first batch needs the first."""
        if not self.shuffled:
            return (0, WHOLE)
        return (0, *(self.share << n for n in range((WHOLE // self.share).bit_length())))

    def part_of(self, epoch: int, window: int) -> tuple[int, int] | None:
        """The bounds of the part of the first blocks that a window is; None where windows hold whole blocks."""
        parts = self.parts
        if not self.shuffled or epoch > 0 or window >= len(parts) - 1:
            return None
        return parts[window], parts[window + 1]

    def window_range(self, lane: int, epoch: int, window: int) -> tuple[int, int]:
        """Positions [start, stop) within the lane's epoch; a part of the first blocks counts as the whole."""
        last = self.lane_blocks(lane)
        start = self._boundary(epoch, window)
        stop = self.first if self.part_of(epoch, window) is not None else self._boundary(epoch, window + 1)
        return min(start, last), min(stop, last)

    def progress(self, lane: int, epoch: int, window: int, share: float) -> float:
        """Lane epochs read when `share` of a window is behind the lane."""
        start, stop = self.window_range(lane, epoch, window)
        part = self.part_of(epoch, window)
        if part is not None:
            low, high = part
            share = (low + share * (high - low)) / WHOLE
        return epoch + (start + share * (stop - start)) / self.lane_blocks(lane)

    def window_blocks(self, lane: int, epoch: int, window: int) -> list[int]:
        """The blocks of a window; empty when the lane's epoch has fewer windows."""
        start, stop = self.window_range(lane, epoch, window)
        return [self.block_at(epoch, k * self.lanes + lane) for k in range(start, stop)]

    def following(self, lane: int, epoch: int, window: int) -> tuple[int, int]:
        """The (epoch, window) after this one."""
        if self._boundary(epoch, window + 1) < self.lane_blocks(lane):
            return epoch, window + 1
        return epoch + 1, 0
