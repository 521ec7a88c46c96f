"""The merges that turn a text's bytes into its tokens, one after another in the order in which they were learnt."""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from dataclasses import dataclass

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer
from mygpt2.tokenizer.training.replay import Piece, replay
from workbench import html
from workbench.tabs.tokenizer.tokens import COLOURS, characters

MOST_CHARS = 400
KEPT = 16


@dataclass(frozen=True)
class Story:
    """All states of a text. `path[k]` is (piece, rank) of merge k + 1, in the order of ranks over the whole text."""

    pieces: tuple[Piece, ...]
    path: tuple[tuple[int, int], ...]

    @property
    def steps(self) -> int:
        return len(self.path)

    def at(self, step: int) -> list[tuple[bytes, ...]]:
        """The parts of each piece after `step` merges."""
        done = [0] * len(self.pieces)
        for piece, _ in self.path[:step]:
            done[piece] += 1
        return [piece.steps[n] for piece, n in zip(self.pieces, done, strict=True)]

    def joined(self, step: int) -> tuple[int, int, int] | None:
        """(piece, place of the new part in it, rank) of the merge that led to `step`; None at the start."""
        if not step:
            return None
        piece, rank = self.path[step - 1]
        before, after = self.at(step - 1)[piece], self.at(step)[piece]
        place = next((i for i, part in enumerate(after) if part != before[i]), 0)
        return piece, place, rank


def story(tokenizer: Tokenizer, text: str) -> Story:
    """UserError for a tokenizer that has no merges, or for a text that is too long to watch."""
    if len(text) > MOST_CHARS:
        raise UserError(f"the text has {len(text):,} characters; merges are shown for up to {MOST_CHARS}: give a part")
    pieces = tuple(replay(tokenizer, text))
    waiting = [(piece.ranks[0], number) for number, piece in enumerate(pieces) if piece.ranks]
    heapq.heapify(waiting)
    done = [0] * len(pieces)
    path = []
    while waiting:
        rank, number = heapq.heappop(waiting)
        path.append((number, rank))
        done[number] += 1
        if done[number] < len(pieces[number].ranks):
            heapq.heappush(waiting, (pieces[number].ranks[done[number]], number))
    return Story(pieces, tuple(path))


class Stories:
    """The last few stories: a slider asks for the same one again and again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Story] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tokenizer: Tokenizer, text: str) -> Story:
        key = tokenizer.fingerprint, text
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = story(tokenizer, text)
            with self._lock:
                self._kept[key] = found
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return found


def shown(told: Story, step: int) -> html.Markup:
    """One state: the pieces side by side, the part that was just joined set apart, and which merge it was."""
    if not told.pieces:
        return html.empty("No text yet.", "Type a word or a sentence, then press Replay.")
    step = max(0, min(int(step), told.steps))
    new = told.joined(step)
    groups = []
    for number, parts in enumerate(told.at(step)):
        boxes = "".join(
            f'<span class="wb-tok wb-tok-{i % COLOURS}{" wb-new" if new and (number, i) == new[:2] else ""}">'
            f"{html.escape(characters(part))}</span>"
            for i, part in enumerate(parts)
        )
        groups.append(f'<span class="wb-piece">{boxes}</span>')
    left = sum(map(len, told.at(step)))
    if new is None:
        line = f"{left} bytes in {len(told.pieces)} pieces; no merge crosses a piece"
    else:
        part = told.at(step)[new[0]][new[1]]
        line = f"merge {step} of {told.steps}: rank {new[2]:,} makes \u201c{characters(part)}\u201d; {left} parts left"
    return html.Markup(
        f'<p class="wb-muted" role="status">{html.escape(line)}</p><div class="wb-toks wb-mono">{"".join(groups)}</div>'
    )
