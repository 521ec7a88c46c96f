"""The coverage ledger: from a checkpoint's data state and the manifest, what was read how often (`data inspect`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import Any

import numpy as np

from mygpt2.data.batch import CURSOR
from mygpt2.data.order import BlockOrder
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture, Part

_ONE = "(one source)"  # which has no name of its own


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
        return _of_mixture(state, manifest.parts)
    if state.get("before"):  # it was one before
        return _of_mixture(state, (Part(_ONE, 1.0, manifest),))
    return _of_one(state, manifest)


def _of_one(state: Mapping[str, Any], manifest: Manifest) -> Coverage:
    fingerprint = state["fingerprint"]
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


def _of_mixture(state: Mapping[str, Any], sources: Sequence[Part]) -> Coverage:
    """The sources one by one, and what they make together. In another order a source is the same where its data are,
    whatever it was called there."""
    orders = [_orders_of(order) for order in (*state.get("before", ()), state)]
    had: dict[str, list[_Had]] = {}
    for each in (one for order in orders for one in order):
        had.setdefault(each.data, []).append(each)
    total = max(1, sum(each.tokens for same in had.values() for each in same))
    found: list[OfSource] = []
    for now, part in zip(orders[-1], sources, strict=True):
        same = had.pop(part.manifest.fingerprint, [])
        count = sum(each.tokens for each in same)
        blocks = range(part.first, part.first + len(part.manifest))
        quarantine = [block - part.first for block in state["quarantine"] if block in blocks]
        own = {"fingerprint": now.fingerprint, "cursor": now.cursor, "quarantine": quarantine}
        read = _of_one(own, part.manifest)
        epochs = harmonic_mean(read.lane_epochs or [0.0]) if now.epochs is None else now.epochs
        found.append(OfSource(part.name, part.share, count / total, count, epochs, read))
    for same in had.values():
        count, last = sum(each.tokens for each in same), same[-1]
        begun = [epoch for epoch, *_ in last.cursor]
        epochs = sum(begun) / len(begun) if last.epochs is None else last.epochs
        found.append(OfSource(last.name, 0.0, count / total, count, epochs, None))
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


@dataclass(frozen=True)
class _Had:
    """One source in one order of a run. `epochs`: None where that was not kept."""

    name: str
    data: str
    tokens: int  # targets
    epochs: float | None
    fingerprint: dict[str, Any]  # of the order, as if it had this source alone
    cursor: list[list[int]]


def _orders_of(order: Mapping[str, Any]) -> list[_Had]:
    """What one order of a run had of each of its sources; of one that was no mixture, of its one."""
    fingerprint, known = order["fingerprint"], order.get("epochs", ())
    several = "sources" in fingerprint
    data = fingerprint["sources"] if several else [fingerprint["data"]]
    names = [name for name, _ in fingerprint["mix"]] if several else [_ONE]
    found = []
    for number, (name, own) in enumerate(zip(names, data, strict=True)):
        cursor = [row[number * CURSOR : (number + 1) * CURSOR] for row in order["cursor"]]
        alone = {key: fingerprint[key][number] for key in ("window", "first", "share")} if several else {}
        tokens = sum(row[-1] for row in cursor) * fingerprint["block_size"]
        epochs = known[number] if number < len(known) else None
        found.append(_Had(name, own, tokens, epochs, {**fingerprint, "data": own, **alone}, cursor))
    return found


def _count(times: np.ndarray, order: BlockOrder, lane: int, epoch: int, positions: int) -> None:
    for k in range(positions):
        times[order.block_at(epoch, k * order.lanes + lane)] += 1
