"""The coverage ledger: from a checkpoint's data state and the manifest, what was read how often (`data inspect`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt2.data.order import BlockOrder
from mygpt2.data.sources.manifest import Manifest


@dataclass(frozen=True)
class Coverage:
    """How much of a source a run has read. Blocks of windows that are begun but not finished count as `in_part`."""

    blocks: int  # of the source
    reads: int  # blocks read to their end, repeats included
    unique: int  # different ones among them
    in_part: int  # blocks of the windows that the lanes are in
    quarantined: int
    unique_documents: int | None  # in the unique blocks; None where the manifest does not know
    repeated_documents: int | None  # documents read again, each time counted
    tokens: int  # targets trained on
    lane_epochs: list[float]  # by lane, with the fraction

    @property
    def share(self) -> float:
        """Unique blocks of all blocks."""
        return self.unique / self.blocks

    def __str__(self) -> str:
        documents = "" if self.unique_documents is None else f", {self.unique_documents:,} documents"
        again = "" if self.repeated_documents is None else f" ({self.repeated_documents:,} documents)"
        epochs = f"{min(self.lane_epochs):.2f} to {max(self.lane_epochs):.2f}"
        return (
            f"{self.tokens:,} tokens; {self.unique:,} of {self.blocks:,} blocks ({self.share:.0%}){documents}, "
            f"{self.in_part:,} in part, {self.reads - self.unique:,} read again{again}, {self.quarantined:,} in "
            f"quarantine; epochs of the lanes {epochs}"
        )


def coverage(state: Mapping[str, Any], manifest: Manifest) -> Coverage:
    """The ledger at a loader state (`batch.loader_state`). ValueError when the state belongs to other data.

    Walks over what was read: some 30 microseconds for each block.
    """
    fingerprint = state["fingerprint"]
    if fingerprint["data"] != manifest.fingerprint:
        raise ValueError("the state belongs to other data than the manifest")
    shuffled = fingerprint["order"] == "lanes"
    order = BlockOrder(
        len(manifest), fingerprint["lanes"], fingerprint["window"], fingerprint["seed"], shuffled, fingerprint["first"],
        fingerprint["share"],
    )  # fmt: skip
    times = np.zeros(len(manifest), np.int64)
    in_part, tokens = 0, 0
    lane_epochs = []
    for lane, (epoch, window, _, _, rows) in enumerate(state["cursor"]):
        start, stop = order.window_range(lane, epoch, window)
        for past in range(epoch):
            _count(times, order, lane, past, order.lane_blocks(lane))
        _count(times, order, lane, epoch, start)
        in_part += stop - start
        tokens += rows * fingerprint["block_size"]
        lane_epochs.append(order.progress(lane, epoch, window, 0.0))
    bad = np.array(state["quarantine"], np.int64)
    times[bad] = 0
    documents = manifest.blocks["rows"] if manifest.documents is not None else None
    return Coverage(
        blocks=len(manifest),
        reads=int(times.sum()),
        unique=int((times > 0).sum()),
        in_part=in_part,
        quarantined=len(bad),
        unique_documents=None if documents is None else int(documents[times > 0].sum()),
        repeated_documents=None if documents is None else int((documents * np.maximum(times - 1, 0)).sum()),
        tokens=tokens,
        lane_epochs=lane_epochs,
    )


def _count(times: np.ndarray, order: BlockOrder, lane: int, epoch: int, positions: int) -> None:
    for k in range(positions):
        times[order.block_at(epoch, k * order.lanes + lane)] += 1
