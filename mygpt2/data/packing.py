"""From tokenized blocks to rows: windows of permuted documents, and rows of T + 1 tokens with stride T.

A lane is one endless stream of tokens, document after document, each followed by end-of-text. It is cut into rows that
hold the tokens [i*T, i*T + T]: inputs are the first T, targets the last T, so every token of the stream is a target
once. A window that asks for it hands out its rows in a keyed order of their own, else a lane would read a document of
many rows for as many steps; the row that goes on into the next window comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mygpt2.data.order import permutation

REFERENCE = "reference"  # the encoder whose ids are right by definition


@dataclass(frozen=True)
class TokenBlock:
    """A tokenized block. A document that was left out (held out, empty, ...) has length 0 and keeps its number."""

    block: int
    ids: np.ndarray  # (tokens,) the documents one after the other, each followed by end-of-text
    lengths: np.ndarray  # (documents,) int64, end-of-text included
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> documents
    unreadable: str | None = None  # why the block is in quarantine
    first: int = 0  # number of the first document, where this is a part of a block
    encoder: str = REFERENCE  # which made it, or a part of it
    check: int | None = None  # checksum of the documents it was made of, where it is a whole block


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
    met: int = 0  # documents met up to here, left out or not, those of windows without tokens before it included
    row_key: tuple[int | str, ...] | None = None  # of the order of its rows; None: as they come


def arrange(
    epoch: int,
    window: int,
    parts: Sequence[TokenBlock],
    order: np.ndarray | None,
    row_key: tuple[int | str, ...] | None = None,
) -> Window:
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
    numbers = numbers.astype(np.int32)
    return Window(
        epoch, window, tokens, np.cumsum(lengths), names[which], numbers, *incidents(parts), len(lengths), row_key
    )


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
    """The documents behind rows of one lane, all of them with tokens.

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
    cursors: np.ndarray  # (steps, 5) int64: CURSOR_FIELDS after each step
    shares: np.ndarray  # (steps,) how much of the cursor's window is behind it
    entered: list[tuple[int, Window]]  # the step (from 0) whose batch first needs a window


class _Cut:
    """A loaded window, cut into rows of which the first begins at its token `phase`."""

    def __init__(self, window: Window, phase: int, block_size: int) -> None:
        self.window, self.phase = window, phase
        self.tokens = window.tokens
        self.rows = max(0, -(-(len(self.tokens) - phase) // block_size))  # that begin in the window
        self.next_phase = phase + self.rows * block_size - len(self.tokens)
        inner = max(0, self.rows - 1)  # the last one needs at least a token of the next window
        self.order = np.arange(inner) if window.row_key is None else permutation(inner, *window.row_key)
        self.whole = self.tokens[phase : phase + inner * block_size].reshape(inner, block_size)  # inputs of all but it
        self.starts = phase + np.append(self.order, np.arange(inner, self.rows)) * block_size  # in the order they come
        documents = np.flatnonzero(np.diff(window.ends, prepend=0))  # those with tokens
        self.begins = np.where(documents, window.ends[documents - 1], 0)
        self.names = np.full(len(documents), window.epoch), window.blocks[documents], window.documents[documents]


class LaneStream:
    """The loaded part of one lane: windows in order, and which row comes next."""

    def __init__(self, cursor: Sequence[int], block_size: int) -> None:
        """`cursor`: CURSOR_FIELDS, the place of the next row."""
        self.epoch, self.window, self._phase, self._done, self.rows = map(int, cursor)
        self._block_size = block_size
        self._cuts: list[_Cut] = []
        self.taken = 0  # tokens by which the lane has moved on since it was opened

    @property
    def available(self) -> int:
        """Tokens that are loaded and not yet the beginning of a row that was taken, or within it."""
        loaded = sum(len(cut.tokens) for cut in self._cuts)
        return max(0, loaded - self._phase - self._done * self._block_size)

    @property
    def ready(self) -> int:
        """Rows that can be taken now."""
        return max(0, (self.available - 1) // self._block_size)

    def append(self, window: Window) -> None:
        """Add the next window that has tokens. The first one after a resume is entered at the cursor's row."""
        cut = _Cut(window, self._cuts[-1].next_phase if self._cuts else self._phase, self._block_size)
        if not self._cuts and self._phase + self._done:
            same = (window.epoch, window.window) == (self.epoch, self.window)
            if not same or self._done > cut.rows:
                raise ValueError("the cursor points outside its window: the data differ from the checkpoint's")
        self._cuts.append(cut)

    def take(self, steps: int, rows: int, out: np.ndarray) -> Taken:
        """Fill `out` (steps*rows, T+1) with the next rows and move on by as many."""
        count, T = steps * rows, self._block_size
        if self.ready < count:
            raise ValueError(f"{count} rows asked for, {self.ready} ready")
        self._fill(out)
        bases = np.cumsum([0, *(len(cut.tokens) for cut in self._cuts)])[:-1]  # the windows end to end
        starts = [base + cut.starts for base, cut in zip(bases, self._cuts, strict=True)]
        begin = np.concatenate(starts)[self._done : self._done + count]
        touched = list(zip(bases, self._cuts, strict=True))[: np.searchsorted(bases, begin.max() + T, side="right")]
        entered = [(int(np.argmax(begin + T >= base)) // rows, cut.window) for base, cut in touched]
        pieces = _pieces([(int(base), cut) for base, cut in touched], begin, T)
        cursors, shares = self._move(np.arange(1, steps + 1) * rows)
        return Taken(pieces, cursors, shares, entered)

    def _fill(self, out: np.ndarray) -> None:
        """The tokens of the next rows (rows, T + 1)."""
        at, T = 0, self._block_size
        for number, cut in enumerate(self._cuts):
            done = self._done if number == 0 else 0
            begin = cut.starts[done : done + len(out) - at]
            inner = cut.order[done : done + len(out) - at]
            rows = out[at : at + len(inner)]
            rows[:, :T] = cut.whole[inner]
            rows[:, T] = cut.tokens[begin[: len(inner)] + T]
            if len(inner) < len(begin):
                out[at + len(inner)] = self._across(number, int(begin[-1]))
            at += len(begin)

    def _across(self, number: int, start: int) -> np.ndarray:
        """T + 1 tokens from token `start` of a window on, into the next ones."""
        parts, need = [], self._block_size + 1
        for cut in self._cuts[number:]:
            parts.append(cut.tokens[start : start + need])
            start, need = 0, need - len(parts[-1])
        return np.concatenate(parts)

    def _move(self, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move on by the last of `after` (steps,) rows; (cursors, shares of their windows) after each."""
        counts = np.array([cut.rows for cut in self._cuts])
        ends = np.cumsum(counts) - self._done  # rows from here to the end of each window
        at = np.minimum(np.searchsorted(ends, after, side="right"), len(counts) - 1)
        done = after - (ends - counts)[at]
        places = [(cut.window.epoch, cut.window.window, cut.phase) for cut in self._cuts]
        cursors = np.column_stack([np.array(places)[at], done, self.rows + after])
        self.taken += int(after[-1]) * self._block_size
        del self._cuts[: at[-1]]
        self.epoch, self.window, self._phase, self._done, self.rows = map(int, cursors[-1])
        return cursors, done / np.maximum(counts[at], 1)


def _pieces(touched: list[tuple[int, _Cut]], begin: np.ndarray, block_size: int) -> Pieces:
    """The documents behind rows that begin at the tokens `begin` of windows laid end to end, at the places given."""
    begins = np.concatenate([base + cut.begins for base, cut in touched])
    first, last = (np.searchsorted(begins, place, side="right") - 1 for place in (begin, begin + block_size))
    names = [cut.names for _, cut in touched]
    epochs, blocks, documents = names[0] if len(names) == 1 else map(np.concatenate, zip(*names, strict=True))
    return Pieces(epochs, blocks, documents, first, last, begin - begins[first])
