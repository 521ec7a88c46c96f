"""The coverage ledger: from a checkpoint's data state and the manifest, what was read how often (`data inspect`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import Any

import numpy as np

from mygpt2.data.batch import CURSOR
from mygpt2.data.order import BlockOrder
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture


@dataclass(frozen=True)
class OfSource:
    """What a run has had of one source of its mixture, in all its orders.

    `read`: None of a source that is not in the present mixture.
    """

    name: str
    promised: float  # share of the tokens in the present order
    had: float  # share of all tokens trained on
    tokens: int  # targets
    epochs: float  # passes over the source
    read: Coverage | None

    @property
    def unique_tokens(self) -> int:
        """About how many of the tokens were other ones: the source holds tokens / epochs of them."""
        return round(self.tokens / max(1.0, self.epochs))

    def __str__(self) -> str:
        left = "" if self.read else ", not in the mixture any more"
        return (
            f"{self.name}: {self.had:.2%} of the tokens ({self.promised:.2%} promised{left}), {self.tokens:,} tokens, "
            f"about {self.unique_tokens:,} of them different, {self.epochs:.2f} passes"
        )


@dataclass(frozen=True)
class Coverage:
    """How much of a source, or of a mixture, a run has read. Blocks of windows that are begun but not finished count as
    `in_part`."""

    blocks: int  # of the source
    reads: int  # blocks read to their end, repeats included
    unique: int  # different ones among them
    in_part: int  # blocks of the windows that the lanes are in
    quarantined: int
    unique_documents: int | None  # in the unique blocks; None where the manifest does not know
    repeated_documents: int | None  # documents read again, each time counted
    tokens: int  # targets trained on
    lane_epochs: list[float]  # by lane, with the fraction; of a mixture, by source and lane
    sources: tuple[OfSource, ...] = ()  # of a mixture

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
    if isinstance(manifest, Mixture):
        return _of_mixture(state, manifest)
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


def _of_mixture(state: Mapping[str, Any], mixture: Mixture) -> Coverage:
    """The sources one by one, and what they make together."""
    fingerprint, tokens = state["fingerprint"], Counter[str]()
    for order in (*state.get("before", ()), state):
        tokens += _tokens(order)
    total = max(1, tokens.total())
    found: list[OfSource] = []
    for number, part in enumerate(mixture.parts):
        blocks = range(part.first, part.first + len(part.manifest))
        own = {
            "fingerprint": {
                **fingerprint,
                "data": part.manifest.fingerprint,
                **{key: fingerprint[key][number] for key in ("window", "first", "share")},
            },
            "cursor": [row[number * CURSOR : (number + 1) * CURSOR] for row in state["cursor"]],
            "quarantine": [block - part.first for block in state["quarantine"] if block in blocks],
        }
        count = tokens.pop(part.name, 0)
        read = coverage(own, part.manifest)
        known = state.get("epochs", ())
        epochs = known[number] if number < len(known) else harmonic_mean(read.lane_epochs or [0.0])
        found.append(OfSource(part.name, part.share, count / total, count, epochs, read))
    found += [OfSource(name, 0.0, count / total, count, 0.0, None) for name, count in sorted(tokens.items())]
    parts = [source.read for source in found if source.read]
    unique, repeated = ([getattr(p, key) for p in parts] for key in ("unique_documents", "repeated_documents"))
    return Coverage(
        **{key: sum(getattr(p, key) for p in parts) for key in ("blocks", "reads", "unique", "in_part", "quarantined")},
        unique_documents=None if None in unique else sum(unique),
        repeated_documents=None if None in repeated else sum(repeated),
        tokens=sum(source.tokens for source in found),
        lane_epochs=[epoch for part in parts for epoch in part.lane_epochs],
        sources=tuple(found),
    )


def _tokens(order: Mapping[str, Any]) -> Counter[str]:
    """Targets by source of one order of a run; of one that was no mixture, under the name of none."""
    fingerprint = order["fingerprint"]
    names = [name for name, _ in fingerprint.get("mix", [["(one source)", 1.0]])]
    rows = np.asarray(order["cursor"], np.int64).reshape(-1, len(names), CURSOR)[:, :, -1].sum(axis=0)
    return Counter(dict(zip(names, (rows * fingerprint["block_size"]).tolist(), strict=True)))


def _count(times: np.ndarray, order: BlockOrder, lane: int, epoch: int, positions: int) -> None:
    for k in range(positions):
        times[order.block_at(epoch, k * order.lanes + lane)] += 1
