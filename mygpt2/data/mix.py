"""Which source each row of a lane comes from: exact shares at every row, any of them found in O(log sources).

The sources are the leaves of a binary tree. At a node whose left side has the share p of its rows, its row i goes left
when floor((i + 1) p + phi) > floor(i p + phi); floor(i p + phi) rows went left before it. phi is keyed by seed and node
and staggered over the lanes: l / lanes at the root, so that all lanes together stay within one row of the share, too
(Hermite's identity), and the radical inverse of l in another prime base at each level below (Halton 1960), so that
neither the levels nor the lanes fall into step.

After any number of rows a source's count in a lane is within one row of its share at each node on its way down, which
is less than 1 + p + p p' + ... of those nodes' shares in all. Nothing of it depends on ranks, threads or micro-batches,
and row 10^9 costs what row 0 costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mygpt2.data.order import random_words

_BITS = 30  # of a share; a row's number may have 33, together they fit into int64
_ONE = 1 << _BITS
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


@dataclass(frozen=True)
class _Node:
    """Splits the sources [first, stop) at `middle`; `left` is the share of the first side in units of 2^-30."""

    first: int
    middle: int
    stop: int
    left: int
    offsets: np.ndarray  # (lanes,) int64, phi in the same units


class MixOrder:
    """The sources of a mixture's rows, a pure function of the shares, the lanes and the seed."""

    def __init__(self, shares: Sequence[float], lanes: int, seed: int) -> None:
        """`shares` (sources,): above 0, together 1."""
        self.shares, self.lanes = tuple(shares), lanes
        self._nodes: dict[tuple[int, int], _Node] = {}
        self._split(0, len(shares), 0, seed)

    def sources(self, lane: int, first: int, count: int) -> np.ndarray:
        """(count,) int64: the sources of the lane's rows [first, first + count)."""
        found = np.zeros(count, np.int64)
        self._descend(0, len(self.shares), lane, np.arange(first, first + count), np.arange(count), found)
        return found

    def before(self, lane: int, row: int) -> list[int]:
        """How many of the lane's rows before `row` come from each source."""
        counts = [0] * len(self.shares)

        def down(first: int, stop: int, index: int) -> None:
            node = self._nodes.get((first, stop))
            if node is None:
                counts[first] = index
                return
            left = (index * node.left + int(node.offsets[lane])) >> _BITS
            down(first, node.middle, left)
            down(node.middle, stop, index - left)

        down(0, len(self.shares), row)
        return counts

    def _split(self, first: int, stop: int, depth: int, seed: int) -> None:
        """Make the node of the sources [first, stop), split where the sides come nearest to halves, and those below."""
        if stop - first < 2:
            return
        sums = np.cumsum(self.shares[first:stop])
        middle = first + 1 + int(np.argmin(np.abs(sums[:-1] - sums[-1] / 2)))
        left = round(_ONE * float(sums[middle - first - 1] / sums[-1]))
        begin = int(random_words(1, "mix", seed, first, stop)[0]) % _ONE
        offsets = np.array(
            [(begin + int(_ONE * _stagger(lane, self.lanes, depth))) % _ONE for lane in range(self.lanes)]
        )
        self._nodes[first, stop] = _Node(first, middle, stop, min(max(left, 1), _ONE - 1), offsets)
        for a, b in pairwise((first, middle, stop)):
            self._split(a, b, depth + 1, seed)

    def _descend(
        self, first: int, stop: int, lane: int, index: np.ndarray, places: np.ndarray, found: np.ndarray
    ) -> None:
        """Write the sources of the rows with the numbers `index` at this node to their places in `found`."""
        node = self._nodes.get((first, stop))
        if node is None:
            found[places] = first
            return
        at = index * node.left + node.offsets[lane]
        before = at >> _BITS
        goes = ((at + node.left) >> _BITS) > before
        self._descend(first, node.middle, lane, before[goes], places[goes], found)
        self._descend(node.middle, stop, lane, (index - before)[~goes], places[~goes], found)


def _stagger(lane: int, lanes: int, depth: int) -> float:
    """Where a lane stands in [0, 1): evenly spread at the root, by a radical inverse below."""
    if depth == 0:
        return lane / lanes
    base, place, value = _PRIMES[(depth - 1) % len(_PRIMES)], 1.0, 0.0
    while lane:
        lane, digit = divmod(lane, base)
        place /= base
        value += digit * place
    return value
