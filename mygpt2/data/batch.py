"""What the loader gives out, and the state that lets it go on from there, or at a fork of its order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import harmonic_mean
from typing import Any

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.order import BlockOrder
from mygpt2.data.packing import Pieces
from mygpt2.data.shape import Shape
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Part
from mygpt2.data.tokenize import TokenizerLike
from mygpt2.errors import UserError

SCHEMA = 2  # of a loader's state; 1 had rows in the order of the documents
# Where a lane is: its window, the token of it at which the window's first row begins, and how many rows of the window
# and of the lane are behind.
CURSOR_FIELDS = ("epoch", "window", "phase", "done", "rows")
EPOCH_UNITS = 1e12  # of progress, which ranks exchange in whole numbers
CURSOR = len(CURSOR_FIELDS)  # numbers for each source of a lane; those of a mixture stand side by side
# What a lane's rows depend on. The batch only says how many of them make a step.
LANES_READ = ("tokenizer", "lanes", "block_size", "seed", "order", "max_document_chars")  # of all sources
_BY_SOURCE = ("window", "first", "share", "validation")  # what a mixture has for each of its sources
_ROWS = ("data", "tokenizer", "lanes", "block_size", "seed", "order", "max_document_chars", "mix", *_BY_SOURCE)


@dataclass(frozen=True, eq=False)
class Documents:
    """The documents that the T + 1 tokens of each row touch: row i has the entries offsets[i]:offsets[i + 1]."""

    offsets: np.ndarray  # (rows + 1,) int32
    epochs: np.ndarray  # (entries,) int64, of the lane
    blocks: np.ndarray  # (entries,) int32
    documents: np.ndarray  # (entries,) int32, the number within the block
    starts: np.ndarray  # (rows,) tokens of the row's first document that come before the row
    targets: np.ndarray  # (entries,) int32, how many of the row's T targets are the document's or its end-of-text


@dataclass(frozen=True, eq=False)
class LaneRows:
    """Where consecutive rows of a lane come from: row i is row `places[i]` of the pieces of source `sources[i]`."""

    pieces: Sequence[Pieces]  # by source
    sources: np.ndarray  # (rows,) int64
    places: np.ndarray  # (rows,) int64

    def at(self, row: int) -> tuple[Pieces, int]:
        return self.pieces[int(self.sources[row])], int(self.places[row])


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's rows of a global batch. Row i is slot `slots[i]` of the batch and comes from lane `lanes[i]` and, of a
    mixture, from source `sources[i]`.

    Everything is as of *after* this batch: a checkpoint that stores its cursor goes on with the next one.
    """

    tokens: np.ndarray  # (rows, T + 1) in the tokenizer's dtype; inputs [:, :-1], targets [:, 1:]
    slots: np.ndarray  # (rows,) int64, ascending
    lanes: np.ndarray  # (rows,) int64
    sources: np.ndarray  # (rows,) int64
    cursor: np.ndarray  # (V / R, 5 S) int64: of the lanes r, r + R, ... CURSOR_FIELDS of each source
    quarantine: list[int]  # blocks left out so far, sorted
    left_out: Counter[str]  # documents of this rank in this attempt, by reason, and "met": all of them
    left_out_of: Sequence[Counter[str]]  # the same by source
    _orders: Sequence[BlockOrder] = field(repr=False)  # by source
    _shares: np.ndarray = field(repr=False)  # (V / R, S) how much of the cursor's windows is behind each lane
    _of_lanes: Sequence[LaneRows] = field(repr=False)
    _rows: range = field(repr=False)  # of each of them

    @property
    def progress(self) -> np.ndarray:
        """(V / R, S) how often each of this rank's lanes has gone through its blocks of a source, with the fraction."""
        lanes, places = self.lanes[: len(self.cursor)].tolist(), self.cursor.reshape(len(self.cursor), -1, CURSOR)
        found = np.zeros(self._shares.shape)
        for i, lane in enumerate(lanes):
            for s, order in enumerate(self._orders):
                epoch, window = places[i, s, :2].tolist()
                found[i, s] = order.progress(lane, epoch, window, float(self._shares[i, s]))
        return found

    @property
    def epoch(self) -> float:
        """`mean_epoch` of this rank's lanes; of a mixture, in the source that was gone through most often."""
        return max(mean_epoch(of_source) for of_source in self.progress.T)

    def documents(self) -> Documents:
        """Where every row comes from, as columns."""
        order = [lane.at(row) for row in self._rows for lane in self._of_lanes]
        spans = [(p, slice(int(p.first[row]), int(p.last[row]) + 1)) for p, row in order]
        offsets = np.cumsum([0, *(span.stop - span.start for _, span in spans)], dtype=np.int32)
        begins = np.concatenate([p.begins[span] - p.begins[span.start] for p, span in spans])
        starts = np.array([p.offsets[row] for p, row in order], np.int64)
        return Documents(
            offsets,
            np.concatenate([p.epochs[span] for p, span in spans]),
            np.concatenate([p.blocks[span] for p, span in spans]),
            np.concatenate([p.documents[span] for p, span in spans]),
            starts,
            targets_of(begins - np.repeat(starts, np.diff(offsets)), offsets, self.tokens.shape[1] - 1),
        )

    @property
    def provenance(self) -> list[list[tuple[int, int]]]:
        """For each row the (block, document in the block) pairs that its T + 1 tokens touch, in order."""
        columns = self.documents()
        pairs = list(zip(columns.blocks.tolist(), columns.documents.tolist(), strict=True))
        cuts = columns.offsets.tolist()
        return [pairs[a:b] for a, b in pairwise(cuts)]


def targets_of(begins: np.ndarray, offsets: np.ndarray, block_size: int) -> np.ndarray:
    """(entries,) int32: the targets of each document in its row, in all T of every row.

    `begins` (entries,): the document's first token, counted from the row's first; the row's targets are its tokens 1
    to T. `offsets` as `Documents` has them.
    """
    ends = np.append(begins[1:], 0)
    ends[offsets[1:] - 1] = block_size + 1
    return np.asarray(ends - np.maximum(begins, 1), np.int32)


def mean_epoch(progress: np.ndarray) -> float:
    """How often a source was gone through, from each lane's progress: the harmonic mean.

    All lanes have read as many tokens, so those with short documents are ahead of the others. 1 / progress is how much
    longer a lane's text would be than what it has read, and the mean of that is what tells of the whole.
    """
    return harmonic_mean(progress.tolist()) if progress.min() > 0 else 0.0


def loader_state(
    fingerprint: dict[str, Any],
    cursor: np.ndarray,
    quarantine: Sequence[int],
    before: Sequence[Any] = (),
    epochs: Sequence[float] = (),
) -> dict[str, Any]:
    """What a checkpoint stores: JSON-ready, a few kB, good for any number of ranks.

    `cursor` is that of all lanes, `before` what was read in other mixtures, each a state of its own, `epochs` how often
    each source was gone through; states of earlier versions have them of mixtures alone.
    """
    return {
        **({"before": list(before)} if before else {}),
        **({"epochs": list(epochs)} if len(epochs) else {}),
        "schema": SCHEMA,
        "fingerprint": dict(fingerprint),
        "cursor": np.asarray(cursor, np.int64).tolist(),
        "quarantine": sorted({int(block) for block in quarantine}),
    }


def fingerprint_of(
    data: DataConfig,
    manifest: Manifest,
    parts: Sequence[Part],
    shapes: Sequence[Shape],
    tokenizer: TokenizerLike,
    block_size: int,
    batch_sequences: int,
    seed: int,
) -> dict[str, Any]:
    """What the batches are a function of, JSON-ready. What each source of a mixture has is a list there."""
    each: dict[str, list[Any]] = {
        "window": [shape.window for shape in shapes],
        "first": [shape.first for shape in shapes],
        "share": [shape.share for shape in shapes],
        "validation": [_held_out(part, data) for part in parts],
    }
    mixture = {
        "sources": [part.manifest.fingerprint for part in parts],
        "mix": [[part.name, part.share] for part in parts],
    }
    several = len(parts) > 1
    return {
        "data": manifest.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "block_size": block_size,
        "batch_sequences": batch_sequences,
        "lanes": shapes[0].lanes,
        "seed": seed,
        "order": f"buffer of {data.buffer_documents}" if data.order == "buffer" else data.order,
        "max_document_chars": data.max_document_chars,
        **(mixture if several else {}),
        **{key: values if several else values[0] for key, values in each.items()},
    }


def _held_out(part: Part, data: DataConfig) -> Any:
    """The share that is held out of a source, and those of others by which documents are, that it may hold as well."""
    own = part.own(data).validation_fraction
    return [own, *part.elsewhere] if part.elsewhere else own


def earlier(state: Mapping[str, Any] | None, fingerprint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was read before the present mixture, where a run forked from one or to one: loader states, the oldest first,
    each without those before it."""
    if state is None:
        return []
    before = list(state.get("before", ()))
    then = state["fingerprint"]
    changed = set(differences(then, fingerprint))
    if changed.isdisjoint(_ROWS) or not ("sources" in then or "sources" in fingerprint):
        return before
    return [*before, {key: state[key] for key in ("fingerprint", "cursor", "quarantine", "epochs") if key in state}]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys of two loader fingerprints that differ."""
    return [key for key in {**now, **then} if then.get(key) != now.get(key)]


def starting_point(
    state: Mapping[str, Any] | None, fingerprint: Mapping[str, Any], fork: bool
) -> tuple[np.ndarray, list[int]]:
    """(cursor (V, 5 S), quarantine) to begin with: nothing, or what a checkpoint says.

    UserError when its batches would not go on from there and nobody asked for a fork. A fork keeps the place where
    every lane still gives the same rows (only the batch changed); of a mixture, in each source that is what it was, so
    that another weight reads nothing twice. Otherwise it begins anew; with the same data, in an epoch that was not
    begun yet, so that it is another permutation of it.
    """
    if state is None:
        return begun_at(fingerprint, ()), []
    then = state["fingerprint"]
    changed = [key for key in {**fingerprint, **then} if then.get(key) != fingerprint.get(key)]
    if changed and not fork:
        why = "; ".join(f"{key} was {_told(key, then)}, is {_told(key, fingerprint)}" for key in changed)
        why += "; give the former data and settings, or"
        if state["schema"] != SCHEMA:
            why = "it is of an earlier version, which had another;"
        raise UserError(
            f"the checkpoint's data order cannot go on: {why} start a new order from this checkpoint with "
            "--data.fork true"
        )
    if set(changed).isdisjoint(_ROWS):
        cursor = np.array(state["cursor"], np.int64)
    else:
        cursor = begun_at(fingerprint, (*state.get("before", ()), state))
    same = _sources(fingerprint) == _sources(then) or "data" not in changed
    return cursor, sorted(int(block) for block in state["quarantine"]) if same else []


def begun_at(fingerprint: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(V, 5 S) the cursor with which an order begins after others, loader states with the oldest first. A source that
    comes back goes on from its newest place."""
    cursor = np.zeros((int(fingerprint["lanes"]), len(_sources(fingerprint)) * CURSOR), np.int64)
    for order in before:
        _go_on(cursor, fingerprint, order)
    return cursor


def begins_anew(state: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> list[int]:
    """The sources of a fork that were read before and do not go on from their places, but in an epoch of their own."""
    if set(differences(state["fingerprint"], fingerprint)).isdisjoint(_ROWS):
        return []
    begun = begun_at(fingerprint, (*state.get("before", ()), state))
    places = begun.reshape(len(begun), -1, CURSOR)
    return [n for n in range(places.shape[1]) if (places[:, n, 0] > 0).all() and not places[:, n, 1:].any()]


def _sources(fingerprint: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What tells one source of a loader from another: its data, and how they are read."""
    if "sources" not in fingerprint:
        return [(fingerprint.get("data"), *(fingerprint.get(key) for key in _BY_SOURCE))]
    return list(zip(fingerprint["sources"], *(fingerprint[key] for key in _BY_SOURCE), strict=True))


def _go_on(cursor: np.ndarray, fingerprint: Mapping[str, Any], order: Mapping[str, Any]) -> None:
    """Set the cursor of another order: where a source is read as it was in `order`, its place there; else an epoch that
    is new to it."""
    saved = np.asarray(order["cursor"], np.int64)
    now, then = _sources(fingerprint), _sources(order["fingerprint"])
    changed = set(differences(order["fingerprint"], fingerprint))
    as_before = changed.isdisjoint(LANES_READ)
    mixed = len(now) > 1 or len(then) > 1
    data = [source[0] for source in then]
    for number, source in enumerate(now):
        own = slice(number * CURSOR, (number + 1) * CURSOR)
        if as_before and mixed and source in then:
            was = then.index(source) * CURSOR
            cursor[:, own] = saved[:, was : was + CURSOR]
            cursor[:, own.stop - 1] = 0  # the order of the sources begins anew
        elif source[0] in data:
            cursor[:, own.start] = saved[:, data.index(source[0]) * CURSOR].max() + 1


def _told(key: str, fingerprint: Mapping[str, Any]) -> str:
    """A value for a sentence; of a mixture the whole list of shares, since any of them may have changed."""
    value = fingerprint.get(key)
    if key == "mix":
        return ", ".join(f"{name} {100 * share:.3g} %" for name, share in value) if value else "one source"
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "..."
