"""What the loader gives out, and the state that lets it go on from there, or at a fork of its order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import harmonic_mean
from typing import Any

import numpy as np

from mygpt2.data.order import BlockOrder
from mygpt2.data.packing import Pieces
from mygpt2.errors import UserError

SCHEMA = 2  # of a loader's state; 1 had rows in the order of the documents
# Where a lane is: its window, the token of it at which the window's first row begins, and how many rows of the window
# and of the lane are behind.
CURSOR_FIELDS = ("epoch", "window", "phase", "done", "rows")
EPOCH_UNITS = 1e12  # of progress, which ranks exchange in whole numbers
# What a lane's rows depend on. The batch only says how many of them make a step.
_ROWS = (
    "data", "tokenizer", "lanes", "window", "first", "share", "block_size", "seed", "order", "validation",
    "max_document_chars",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Documents:
    """The documents that the T + 1 tokens of each row touch: row i has the entries offsets[i]:offsets[i + 1]."""

    offsets: np.ndarray  # (rows + 1,) int32
    epochs: np.ndarray  # (entries,) int64, of the lane
    blocks: np.ndarray  # (entries,) int32
    documents: np.ndarray  # (entries,) int32, the number within the block
    starts: np.ndarray  # (rows,) tokens of the row's first document that come before the row


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's rows of a global batch. Row i is slot `slots[i]` of the batch and comes from lane `lanes[i]`.

    Everything is as of *after* this batch: a checkpoint that stores its cursor goes on with the next one.
    """

    tokens: np.ndarray  # (rows, T + 1) in the tokenizer's dtype; inputs [:, :-1], targets [:, 1:]
    slots: np.ndarray  # (rows,) int64, ascending
    lanes: np.ndarray  # (rows,) int64
    cursor: np.ndarray  # (V / R, 5) int64: CURSOR_FIELDS of the lanes r, r + R, ...
    quarantine: list[int]  # blocks left out so far, sorted
    left_out: Counter[str]  # documents of this rank in this attempt, by reason, and "met": all of them
    _order: BlockOrder = field(repr=False)
    _shares: np.ndarray = field(repr=False)  # (V / R,) how much of the cursor's window is behind each lane
    _pieces: tuple[Pieces, ...] = field(repr=False)  # by lane
    _rows: range = field(repr=False)  # of every lane's pieces

    @property
    def progress(self) -> np.ndarray:
        """(V / R,) how often each of this rank's lanes has gone through its blocks, with the fraction."""
        lanes, places = self.lanes[: len(self.cursor)].tolist(), self.cursor[:, :2].tolist()
        parts = zip(lanes, places, self._shares.tolist(), strict=True)
        return np.array([self._order.progress(lane, epoch, window, share) for lane, (epoch, window), share in parts])

    @property
    def epoch(self) -> float:
        """`mean_epoch` of this rank's lanes."""
        return mean_epoch(self.progress)

    def documents(self) -> Documents:
        """Where every row comes from, as columns."""
        order = [(pieces, row) for row in self._rows for pieces in self._pieces]
        spans = [(p, slice(int(p.first[row]), int(p.last[row]) + 1)) for p, row in order]
        return Documents(
            np.cumsum([0, *(span.stop - span.start for _, span in spans)], dtype=np.int32),
            np.concatenate([p.epochs[span] for p, span in spans]),
            np.concatenate([p.blocks[span] for p, span in spans]),
            np.concatenate([p.documents[span] for p, span in spans]),
            np.array([p.offsets[row] for p, row in order], np.int64),
        )

    @property
    def provenance(self) -> list[list[tuple[int, int]]]:
        """For each row the (block, document in the block) pairs that its T + 1 tokens touch, in order."""
        columns = self.documents()
        pairs = list(zip(columns.blocks.tolist(), columns.documents.tolist(), strict=True))
        cuts = columns.offsets.tolist()
        return [pairs[a:b] for a, b in pairwise(cuts)]


def mean_epoch(progress: np.ndarray) -> float:
    """How often the source was gone through, from each lane's progress: the harmonic mean.

    All lanes have read as many tokens, so those with short documents are ahead of the others. 1 / progress is how much
    longer a lane's text would be than what it has read, and the mean of that is what tells of the whole.
    """
    return harmonic_mean(progress.tolist()) if progress.min() > 0 else 0.0


def loader_state(fingerprint: dict[str, Any], cursor: np.ndarray, quarantine: Sequence[int]) -> dict[str, Any]:
    """What a checkpoint stores: JSON-ready, a few kB, good for any number of ranks. `cursor` is that of all lanes."""
    return {
        "schema": SCHEMA,
        "fingerprint": dict(fingerprint),
        "cursor": np.asarray(cursor, np.int64).tolist(),
        "quarantine": sorted({int(block) for block in quarantine}),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys of two loader fingerprints that differ."""
    return [key for key in {**now, **then} if then.get(key) != now.get(key)]


def starting_point(
    state: Mapping[str, Any] | None, fingerprint: Mapping[str, Any], fork: bool
) -> tuple[np.ndarray, list[int]]:
    """(cursor (V, 5), quarantine) to begin with: nothing, or what a checkpoint says.

    UserError when its batches would not go on from there and nobody asked for a fork. A fork keeps the place where
    every lane still gives the same rows (only the batch changed). Otherwise it begins anew; with the same data, in an
    epoch that was not begun yet, so that it is another permutation of it.
    """
    cursor = np.zeros((int(fingerprint["lanes"]), len(CURSOR_FIELDS)), np.int64)
    if state is None:
        return cursor, []
    then = state["fingerprint"]
    changed = [key for key in {**fingerprint, **then} if then.get(key) != fingerprint.get(key)]
    if changed and not fork:
        why = "; ".join(f"{key} was {_short(then.get(key))}, is {_short(fingerprint.get(key))}" for key in changed)
        why += "; give the former data and settings, or"
        if state["schema"] != SCHEMA:
            why = "it is of an earlier version, which had another;"
        raise UserError(
            f"the checkpoint's data order cannot go on: {why} start a new order from this checkpoint with "
            "--data.fork true"
        )
    if "data" in changed:
        return cursor, []
    saved = np.asarray(state["cursor"], np.int64).reshape(-1, len(CURSOR_FIELDS))
    if set(changed).isdisjoint(_ROWS):
        cursor = saved.copy()
    else:
        cursor[:, 0] = saved[:, 0].max() + 1
    return cursor, sorted(int(block) for block in state["quarantine"])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "..."
