"""From tokenized blocks to rows: windows of permuted documents, and rows of T + 1 tokens with stride T.

A lane is one endless stream of tokens, document after document, each followed by end-of-text. Row i of a lane holds the
tokens [i*T, i*T + T]: inputs are the first T, targets the last T, so every token of the stream is a target once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class TokenBlock:
    """A tokenized block. A document that was left out (held out, empty, ...) has length 0 and keeps its number."""

    block: int
    ids: np.ndarray  # (tokens,) the documents one after the other, each followed by end-of-text
    lengths: np.ndarray  # (documents,) int64, end-of-text included
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> documents
    unreadable: str | None = None  # why the block is in quarantine
    first: int = 0  # number of the first document, where this is a part of a block


def quarantined_block(block: int, reason: str, dtype: np.dtype) -> TokenBlock:
    """What stands for an unreadable block: no documents at all."""
    return TokenBlock(block, np.empty(0, dtype), np.empty(0, np.int64), {}, reason)


@dataclass(frozen=True)
class Window:
    """The documents of a few blocks in the order in which they are trained on; left-out ones stay with length 0."""

    epoch: int
    window: int
    tokens: np.ndarray  # (tokens,) in training order
    ends: np.ndarray  # (documents,) int64, cumulative: document i is tokens[ends[i - 1]:ends[i]]
    blocks: np.ndarray  # (documents,) int32
    documents: np.ndarray  # (documents,) int32, the number within the block
    left_out: dict[str, int] = field(default_factory=dict)
    quarantined: dict[int, str] = field(default_factory=dict)  # blocks met up to here, with the reason


def arrange(epoch: int, window: int, parts: Sequence[TokenBlock], order: np.ndarray | None) -> Window:
    """Lay the documents of `parts` out in `order` (a permutation of all of them, None: as they come)."""
    lengths = np.concatenate([p.lengths for p in parts]) if parts else np.empty(0, np.int64)
    which = np.repeat(np.arange(len(parts)), [len(p.lengths) for p in parts])
    numbers = np.concatenate([p.first + np.arange(len(p.lengths)) for p in parts]) if parts else np.empty(0, np.int64)
    starts = np.concatenate([np.cumsum(p.lengths) - p.lengths for p in parts]) if parts else np.empty(0, np.int64)
    if order is not None:
        lengths, which, numbers, starts = lengths[order], which[order], numbers[order], starts[order]
    if order is None and len(parts) == 1:
        tokens = parts[0].ids
    else:
        tokens = gather([p.ids for p in parts], which, starts, lengths)
    names = np.array([p.block for p in parts], dtype=np.int32)
    return Window(epoch, window, tokens, np.cumsum(lengths), names[which], numbers.astype(np.int32), *incidents(parts))


def gather(ids: Sequence[np.ndarray], which: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Copy the pieces ids[which][starts:starts + lengths] into one array."""
    kept = np.flatnonzero(lengths)
    if not len(kept):
        return np.empty(0, ids[0].dtype if ids else np.uint16)
    starts = starts[kept]
    places = zip(which[kept].tolist(), starts.tolist(), (starts + lengths[kept]).tolist(), strict=True)
    return np.concatenate([ids[i][a:b] for i, a, b in places])


def incidents(parts: Sequence[TokenBlock]) -> tuple[dict[str, int], dict[int, str]]:
    """Left-out documents by reason, and unreadable blocks with the reason."""
    left_out: dict[str, int] = {}
    for part in parts:
        for reason, count in part.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    return left_out, {p.block: p.unreadable for p in parts if p.unreadable is not None}


@dataclass(frozen=True)
class Pieces:
    """The documents behind a run of rows of one lane, in stream order, all of them with tokens.

    `first[i] : last[i] + 1` are the pieces of row i, which begins `offsets[i]` tokens into the first of them; `epochs`,
    `blocks`, `documents` name each piece.
    """

    epochs: np.ndarray
    blocks: np.ndarray
    documents: np.ndarray
    first: np.ndarray  # (rows,)
    last: np.ndarray  # (rows,)
    offsets: np.ndarray  # (rows,)


@dataclass(frozen=True)
class Taken:
    """What `LaneStream.take` tells about the rows it filled."""

    pieces: Pieces
    cursors: np.ndarray  # (steps, 5) int64: epoch, window, document, offset, rows after each step
    shares: np.ndarray  # (steps,) how much of the cursor's window is behind it
    entered: list[tuple[int, Window]]  # the step (from 0) whose batch first needs a window


class LaneStream:
    """The loaded part of one lane: windows in order, and the place of the next row's first token."""

    def __init__(self, cursor: Sequence[int]) -> None:
        """`cursor`: epoch, window, document, offset, rows of the next row's first token."""
        self.epoch, self.window, self._document, self._offset, self.rows = map(int, cursor)
        self._windows: list[Window] = []
        self._at = 0  # token of the first window at which the next row begins
        self._loaded = 0  # tokens of all loaded windows
        self.taken = 0  # tokens by which the lane has moved on since it was opened

    @property
    def available(self) -> int:
        """Tokens loaded from the next row's first one on."""
        return self._loaded - self._at

    def append(self, window: Window) -> None:
        """Add the next window that has tokens. The first one after a resume is entered at the cursor's document."""
        if not self._windows and self._document + self._offset:
            if (window.epoch, window.window) != (self.epoch, self.window) or self._document >= len(window.ends):
                raise ValueError("the cursor points outside its window: the data differ from the checkpoint's")
            begin = int(window.ends[self._document - 1]) if self._document else 0
            if begin + self._offset >= int(window.ends[self._document]):
                raise ValueError("the cursor points outside its document: the data differ from the checkpoint's")
            self._at = begin + self._offset
        self._windows.append(window)
        self._loaded += len(window.tokens)
        self._document = self._offset = 0

    def take(self, steps: int, rows: int, block_size: int, out: np.ndarray) -> Taken:
        """Fill `out` (steps*rows, T+1) and move on by steps*rows*T tokens."""
        count = steps * rows
        need = count * block_size + 1
        if self.available < need:
            raise ValueError(f"{need} tokens asked for, {self.available} loaded")
        stream, segments = self._read(need)
        width = stream.itemsize
        out[:] = np.lib.stride_tricks.as_strided(stream, (count, block_size + 1), (block_size * width, width))
        starts, origins, begins, lengths, epochs, windows, numbers, blocks, documents = _pieces(segments)
        row_at = np.arange(count, dtype=np.int64) * block_size
        first, last = _piece_at(starts, row_at), _piece_at(starts, row_at + block_size)
        pieces = Pieces(epochs, blocks, documents, first, last, row_at - origins[first] - begins[first])
        after = np.arange(1, steps + 1, dtype=np.int64) * (rows * block_size)
        at = _piece_at(starts, after)
        inside = after - origins[at]  # tokens of the window before the cursor
        total_rows = self.rows + np.arange(1, steps + 1) * rows
        cursors = np.stack([epochs[at], windows[at], numbers[at], inside - begins[at], total_rows], axis=1)
        entered = [(max(0, -(-place // (rows * block_size)) - 1), window) for place, window, _, _ in segments]
        self._move(count * block_size, cursors[-1])
        return Taken(pieces, cursors, inside / lengths[at], entered)

    def _read(self, need: int) -> tuple[np.ndarray, list[tuple[int, Window, int, int]]]:
        """`need` tokens as one array, and where they come from: (place in the array, window, start, stop)."""
        segments, place, start = [], 0, self._at
        for window in self._windows:
            stop = min(len(window.tokens), start + need - place)
            segments.append((place, window, start, stop))
            place += stop - start
            start = 0
            if place == need:
                break
        parts = [w.tokens[a:b] for _, w, a, b in segments]
        return (np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)), segments

    def _move(self, tokens: int, cursor: np.ndarray) -> None:
        self._at += tokens
        self.taken += tokens
        while self._windows and self._at >= len(self._windows[0].tokens):
            gone = len(self._windows.pop(0).tokens)
            self._at -= gone
            self._loaded -= gone
        self.epoch, self.window, _, _, self.rows = map(int, cursor)


def _pieces(segments: list[tuple[int, Window, int, int]]) -> tuple[np.ndarray, ...]:
    """Columns over all documents with tokens in the segments, in stream order.

    The places in the stream of what is read of the document and of the first token of its window (negative where that
    was read before), the document's first token in the window and the window's tokens, then epoch, window, number in
    the window, block, and number in the block.
    """
    columns = []
    for place, window, start, stop in segments:
        low, high = np.searchsorted(window.ends, (start, stop - 1), side="right")
        ends = window.ends[low : high + 1]
        begins = np.empty(len(ends), np.int64)
        begins[0] = window.ends[low - 1] if low else 0
        begins[1:] = ends[:-1]
        kept = np.flatnonzero(ends > begins)
        begins, numbers = begins[kept], kept + low
        same = np.ones(len(kept), np.int64)
        columns.append(
            (
                np.maximum(begins, start) - start + place,
                same * (place - start),
                begins,
                same * len(window.tokens),
                same * window.epoch,
                same * window.window,
                numbers,
                window.blocks[numbers],
                window.documents[numbers],
            )
        )
    return columns[0] if len(columns) == 1 else tuple(np.concatenate(c) for c in zip(*columns, strict=True))


def _piece_at(starts: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Index of the piece that holds each place."""
    return np.searchsorted(starts, at, side="right") - 1
