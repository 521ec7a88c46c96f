"""The coverage ledger: from a checkpoint's data state and the manifest, what was read how often (`data inspect`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import harmonic_mean
from typing import Any

import numpy as np

from mygpt2.data.batch import CURSOR, begun_at
from mygpt2.data.order import BlockOrder
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture, Part
from mygpt2.errors import shown

_ONE = "(one source)"  # of before, which had no name of its own


@dataclass(frozen=True)
class OfSource:
    """What a run has had of one source of its mixture, in all its orders.

    `read`: None of a source that is not in the present mixture.
    """

    name: str
    promised: float  # share of the tokens in the present order
    had: float  # share of all tokens trained on
    tokens: int  # targets
    epochs: float  # passes over the source; `at_least` as many, where an earlier version did not keep them
    read: Coverage | None
    forked: bool = False  # whether there was another order before, of which `had` is as well
    at_least: bool = False

    @property
    def unique_tokens(self) -> int:
        """About how many of the tokens were other ones: the source holds tokens / epochs of them."""
        return round(self.tokens / max(1.0, self.epochs))

    def __str__(self) -> str:
        left = "" if self.read else ", not in the mixture any more"
        when = " now" if self.forked and self.read else ""
        least = "at least " if self.at_least else ""
        return (
            f"{self.name}: {self.had:.2%} of the tokens ({self.promised:.2%} promised{when}{left}), {self.tokens:,} "
            f"tokens, about {self.unique_tokens:,} of them different, {least}{self.epochs:.2f} passes"
        )


@dataclass(frozen=True)
class Coverage:
    """How much of a source, or of a mixture, a run has read. Blocks of windows that are begun but not finished count as
    `in_part`, whether or not an earlier pass read them."""

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
        documents = "" if self.unique_documents is None else f" ({self.unique_documents:,} documents)"
        again = "" if self.repeated_documents is None else f" ({self.repeated_documents:,} documents)"
        lanes = f"{min(self.lane_epochs):.2f} to {max(self.lane_epochs):.2f}"
        passes = "" if self.sources else f"; each lane has gone {lanes} times through its share of the blocks"
        return (
            f"{self.tokens:,} tokens; of {self.blocks:,} blocks {self.unique:,} ({self.share:.0%}) were read to their "
            f"end{documents}, with {self.reads - self.unique:,} repeats{again}; {self.in_part:,} are open, as each "
            f"lane mixes several at a time{passes}; {self.quarantined:,} left out as unreadable"
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
        return _of_mixture(state, (Part(shown(manifest.source), 1.0, manifest),))
    (alone,) = _orders_of(state, ())
    return _of_one([alone], manifest, state["quarantine"])


def tokens_had(state: Mapping[str, Any] | None) -> Counter[str]:
    """Targets by the fingerprint of the source's data, of a loader state and all orders before it."""
    orders = (*state.get("before", ()), state) if state else ()
    had: Counter[str] = Counter()
    for number, order in enumerate(orders):
        for each in _orders_of(order, orders[:number]):
            had[each.data] += each.tokens
    return had


def _of_one(parts: Sequence[_Had], manifest: Manifest, quarantine: Sequence[int]) -> Coverage:
    """Of what was read of one source, piece by piece, each from its beginning on; the last is where it is now."""
    times = np.zeros(len(manifest), np.int64)
    for had in parts:
        order, in_part, lane_epochs = had.order(manifest), 0, []
        for lane, ((begun, *_), (epoch, window, *_)) in enumerate(zip(had.begun, had.cursor, strict=True)):
            start, stop = order.window_range(lane, epoch, window)
            for past in range(begun, epoch):
                _count(times, order, lane, past, order.lane_blocks(lane))
            _count(times, order, lane, epoch, start)
            in_part += stop - start
            lane_epochs.append(order.progress(lane, epoch, window, 0.0) - begun)
    bad = np.array(quarantine, np.int64)
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
        tokens=sum(had.tokens for had in parts),
        lane_epochs=lane_epochs,
    )


def _of_mixture(state: Mapping[str, Any], sources: Sequence[Part]) -> Coverage:
    """The sources one by one, and what they make together. In another order a source is the same where its data are,
    whatever it was called there."""
    states = (*state.get("before", ()), state)
    orders = [_orders_of(order, states[:number]) for number, order in enumerate(states)]
    had: dict[str, list[_Had]] = {}
    for each in (one for order in orders for one in order):
        had.setdefault(each.data, []).append(each)
    total = max(1, sum(each.tokens for same in had.values() for each in same))
    found: list[OfSource] = []
    forked = bool(state.get("before"))
    for part in sources:
        same = had.pop(part.manifest.fingerprint, [])
        count = sum(each.tokens for each in same)
        blocks = range(part.first, part.first + len(part.manifest))
        quarantine = [block - part.first for block in state["quarantine"] if block in blocks]
        pieces = _pieces(same)
        read = _of_one(pieces, part.manifest, quarantine)
        epochs, least = sum(piece.passes(part.manifest) for piece in pieces), any(p.epochs is None for p in pieces)
        found.append(OfSource(part.name, part.share, count / total, count, epochs, read, forked, least))
    for same in had.values():
        count, pieces = sum(each.tokens for each in same), _pieces(same)
        epochs, least = sum(piece.passes() for piece in pieces), any(piece.epochs is None for piece in pieces)
        found.append(OfSource(same[-1].name, 0.0, count / total, count, epochs, None, forked, least))
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
    begun: list[list[int]]  # its cursor when the order began, by lane
    cursor: list[list[int]]

    def order(self, manifest: Manifest) -> BlockOrder:
        lanes, window, seed, first, share = (
            self.fingerprint[key] for key in ("lanes", "window", "seed", "first", "share")
        )
        return BlockOrder(len(manifest), lanes, window, seed, self.fingerprint["order"] == "lanes", first, share)

    def passes(self, manifest: Manifest | None = None) -> float:
        """Over the source, from where it began; without the manifest whole ones where they were not kept."""
        begun = min(epoch for epoch, *_ in self.begun)  # an order that begins anew begins in an epoch of its own
        if self.epochs is not None:
            return self.epochs - begun
        if manifest is None:
            return sum(epoch - begun for epoch, *_ in self.cursor) / len(self.cursor)
        order = self.order(manifest)
        own = [order.progress(lane, epoch, window, 0.0) - begun for lane, (epoch, window, *_) in enumerate(self.cursor)]
        return harmonic_mean(own) if own else 0.0


def _pieces(same: Sequence[_Had]) -> list[_Had]:
    """What was read of a source, without a break in its order each: where one goes on from another they are one."""
    found: list[_Had] = []
    for had in same:
        place = [row[:-1] for row in had.begun]
        last = next((n for n, piece in enumerate(found) if [row[:-1] for row in piece.cursor] == place), None)
        if last is None:
            found.append(had)
        else:
            piece = found.pop(last)
            found.append(replace(had, begun=piece.begun, tokens=piece.tokens + had.tokens))
    return found


def _orders_of(order: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> list[_Had]:
    """What one order of a run had of each of its sources; of one that was no mixture, of its one."""
    fingerprint, known = order["fingerprint"], order.get("epochs", ())
    several, begun = "sources" in fingerprint, begun_at(fingerprint, before).tolist()
    data = fingerprint["sources"] if several else [fingerprint["data"]]
    names = [name for name, _ in fingerprint["mix"]] if several else [_ONE]
    found = []
    for number, (name, own) in enumerate(zip(names, data, strict=True)):
        begins, cursor = ([row[number * CURSOR : (number + 1) * CURSOR] for row in c] for c in (begun, order["cursor"]))
        alone = {key: fingerprint[key][number] for key in ("window", "first", "share")} if several else {}
        tokens = sum(row[-1] for row in cursor) * fingerprint["block_size"]
        epochs = known[number] if number < len(known) else None
        found.append(_Had(name, own, tokens, epochs, {**fingerprint, "data": own, **alone}, begins, cursor))
    return found


def _count(times: np.ndarray, order: BlockOrder, lane: int, epoch: int, positions: int) -> None:
    for k in range(positions):
        times[order.block_at(epoch, k * order.lanes + lane)] += 1
