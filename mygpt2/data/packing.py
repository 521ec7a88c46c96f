"""From windows to rows of T + 1 tokens with stride T.

A lane is one endless stream of tokens, document after document, each followed by end-of-text. It is cut into rows that
hold the tokens [i*T, i*T + T]: inputs are the first T, targets the last T, so every token of the stream is a target
once. A window that asks for it hands out its rows in a keyed order of their own, else a lane would read a document of
many rows for as many steps; the row that goes on into the next window comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mygpt2.data.lane import Window
from mygpt2.data.order import permutation


@dataclass(frozen=True)
class Pieces:
    """The documents behind rows of one lane, all of them with tokens.

    `first[i] : last[i] + 1` are the pieces of row i, which begins `offsets[i]` tokens into the first of them; `epochs`,
    `blocks`, `documents` name each piece, and `begins` are their first tokens, counted from one place.
    """

    epochs: np.ndarray
    blocks: np.ndarray
    documents: np.ndarray
    begins: np.ndarray
    first: np.ndarray  # (rows,)
    last: np.ndarray  # (rows,)
    offsets: np.ndarray  # (rows,)


@dataclass(frozen=True)
class Taken:
    """What `LaneStream.take` tells about the rows it filled."""

    pieces: Pieces
    cursors: np.ndarray  # (steps, 5) int64: CURSOR_FIELDS after each step
    shares: np.ndarray  # (steps,) how much of the cursor's window is behind it


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

    @property
    def ready(self) -> int:
        """Rows that can be taken now."""
        loaded = sum(len(cut.tokens) for cut in self._cuts)
        return max(0, (loaded - self._phase - 1) // self._block_size - self._done)

    @property
    def unopened(self) -> bool:
        """The window that a resumed stream was in is not here yet: how far it is behind cannot be told without."""
        return self._done > 0 and not self._cuts

    def append(self, window: Window) -> None:
        """Add the next window. The first one after a resume is entered at the cursor's row."""
        if not len(window.tokens):
            return
        cut = _Cut(window, self._cuts[-1].next_phase if self._cuts else self._phase, self._block_size)
        if not self._cuts and self._phase + self._done:
            same = (window.epoch, window.window) == (self.epoch, self.window)
            if not same or self._done > cut.rows:
                raise ValueError("the cursor points outside its window: the data differ from the checkpoint's")
        self._cuts.append(cut)

    def take(self, rows: np.ndarray, out: np.ndarray, places: np.ndarray | None = None) -> Taken:
        """Write the next rows to `out` (any, T+1), at `places` where they are given, and move on by as many.

        `rows` (steps,): how many each step has.
        """
        after, T = np.cumsum(rows), self._block_size
        count = int(after[-1])
        if self.ready < count:
            raise ValueError(f"{count} rows asked for, {self.ready} ready")
        if not count:
            return self._none_taken(len(rows))
        self._fill(out, np.arange(count) if places is None else places)
        bases = np.cumsum([0, *(len(cut.tokens) for cut in self._cuts)])[:-1]  # the windows end to end
        starts = [base + cut.starts for base, cut in zip(bases, self._cuts, strict=True)]
        begin = np.concatenate(starts)[self._done : self._done + count]
        touched = list(zip(bases, self._cuts, strict=True))[: np.searchsorted(bases, begin.max() + T, side="right")]
        pieces = _pieces([(int(base), cut) for base, cut in touched], begin, T)
        cursors, shares = self._move(after)
        return Taken(pieces, cursors, shares)

    def _none_taken(self, steps: int) -> Taken:
        """What `take` tells where a source has no row in some steps: the place stays."""
        none = np.zeros(0, np.int64)
        cursor = np.array([self.epoch, self.window, self._phase, self._done, self.rows])
        share = self._done / max(1, self._cuts[0].rows) if self._cuts else 0.0
        return Taken(
            Pieces(none, none, none, none, none, none, none), np.tile(cursor, (steps, 1)), np.full(steps, share)
        )

    def _fill(self, out: np.ndarray, places: np.ndarray) -> None:
        """The tokens of the next rows, each to its place in `out` (any, T + 1)."""
        at, T = 0, self._block_size
        for number, cut in enumerate(self._cuts):
            done = self._done if number == 0 else 0
            begin = cut.starts[done : done + len(places) - at]
            inner = cut.order[done : done + len(places) - at]
            rows = places[at : at + len(inner)]
            out[rows, :T] = cut.whole[inner]
            out[rows, T] = cut.tokens[begin[: len(inner)] + T]
            if len(inner) < len(begin):
                out[places[at + len(inner)]] = self._across(number, int(begin[-1]))
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
        del self._cuts[: at[-1]]
        self.epoch, self.window, self._phase, self._done, self.rows = map(int, cursors[-1])
        return cursors, done / np.maximum(counts[at], 1)


def _pieces(touched: list[tuple[int, _Cut]], begin: np.ndarray, block_size: int) -> Pieces:
    """The documents behind rows that begin at the tokens `begin` of windows laid end to end, at the places given."""
    begins = np.concatenate([base + cut.begins for base, cut in touched])
    first, last = (np.searchsorted(begins, place, side="right") - 1 for place in (begin, begin + block_size))
    names = [cut.names for _, cut in touched]
    epochs, blocks, documents = names[0] if len(names) == 1 else map(np.concatenate, zip(*names, strict=True))
    return Pieces(epochs, blocks, documents, begins, first, last, begin - begins[first])
