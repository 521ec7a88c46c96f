"""One lane at work: asks for its blocks ahead of need, arranges them into windows, and hands out rows."""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from mygpt2.data.arrange import Arranger, Load
from mygpt2.data.blocks import BlockMaker, BlockPool
from mygpt2.data.first import FirstBlock
from mygpt2.data.order import WHOLE, BlockOrder
from mygpt2.data.packing import LaneStream, TokenBlock, Window
from mygpt2.errors import UserError

FRUITLESS_EPOCHS = 1000  # a lane that meets only empty blocks this often in a row will not meet another


class TokenEstimate:
    """Average tokens of a block seen so far. Steers what is fetched first, never what comes out."""

    def __init__(self) -> None:
        self._blocks = 0.0
        self._tokens = 0

    def add(self, tokens: int, blocks: float) -> None:
        self._blocks += blocks
        self._tokens += tokens

    def of(self, blocks: float) -> float:
        return blocks * (self._tokens / self._blocks if self._tokens else 1.0)

    @property
    def known(self) -> bool:
        return self._tokens > 0


@dataclass(frozen=True)
class _Asked:
    """A window under way."""

    epoch: int
    window: int
    futures: list[Future[TokenBlock]]
    blocks: float  # how many, or what part of one


class LaneFeed:
    """Keeps a lane's stream filled. Used by the assembling thread only."""

    def __init__(
        self,
        lane: int,
        order: BlockOrder,
        arranger: Arranger,
        stream: LaneStream,
        pool: BlockPool,
        maker: BlockMaker,
        estimate: TokenEstimate,
    ) -> None:
        self.lane, self.stream = lane, stream
        self._order, self._arranger, self._pool, self._maker = order, arranger, pool, maker
        self._estimate = estimate
        self._asked: deque[_Asked] = deque()
        self._first: dict[int, FirstBlock] = {}
        self._next = (stream.epoch, stream.window)
        self._fruitful_epoch = stream.epoch
        self._passed_over: dict[int, str] = {}  # unreadable blocks of empty windows,
        self._left_out: Counter[str] = Counter()  # and what was left out of those windows,
        self._met = 0  # of so many documents

    def restore(self, load: Load) -> None:
        """Bring an arranger that has a memory to where the cursor is."""
        self._arranger.restore(*self._next, load)

    def ask(self, tokens_ahead: int) -> None:
        """Ask for blocks until a whole window, and at least `tokens_ahead`, is under way or loaded."""
        while True:
            blocks = sum(asked.blocks for asked in self._asked)
            under_way = self.stream.available + self._estimate.of(blocks)
            fewest = 1 if self.stream.available else 2
            if len(self._asked) >= fewest and (not self._estimate.known or under_way >= tokens_ahead):
                return
            self._ask_for_next(self.stream.taken + under_way)

    def _ask_for_next(self, need: float) -> None:
        epoch, window = self._next
        blocks = self._order.window_blocks(self.lane, epoch, window)
        part = self._order.part_of(epoch, window)
        if part is None:
            self._first = {}
            futures = [self._pool.request(partial(self._maker.make, block), need) for block in blocks]
            self._asked.append(_Asked(epoch, window, futures, len(blocks)))
        else:
            self._first = self._first or {b: FirstBlock(self._maker, b, self._order.parts) for b in blocks}
            size = (part[1] - part[0]) / WHOLE * len(blocks)
            futures = [self._pool.request(partial(first.part, window), need) for first in self._first.values()]
            self._asked.append(_Asked(epoch, window, futures, size))
        self._next = self._order.following(self.lane, epoch, window)

    @property
    def ready(self) -> bool:
        """The next window asked for can be arranged without waiting."""
        return bool(self._asked) and all(future.done() for future in self._asked[0].futures)

    def load(self) -> Window:
        """Arrange the next window, waiting for its blocks, and add it to the stream unless it has no tokens.

        UserError when no block of the source has a training document: the lane would look for one for ever.
        """
        asked = self._asked.popleft()
        epoch, window = asked.epoch, asked.window
        parts = [future.result() for future in asked.futures]
        self._estimate.add(sum(len(part.ids) for part in parts), asked.blocks)
        arranged = self._arranger.arrange(epoch, window, parts)
        arranged = replace(
            arranged,
            quarantined={**self._passed_over, **arranged.quarantined},
            left_out=dict(self._left_out + Counter(arranged.left_out)),
            met=self._met + arranged.met,
        )
        if len(arranged.tokens):
            self._fruitful_epoch, self._passed_over, self._left_out, self._met = epoch, {}, Counter(), 0
            self.stream.append(arranged)
            return arranged
        self._passed_over, self._left_out, self._met = arranged.quarantined, Counter(arranged.left_out), arranged.met
        patience = FRUITLESS_EPOCHS if self._order.shuffled else 1
        if self._maker.all_empty or epoch - self._fruitful_epoch > patience:
            raise UserError(
                f"data.source has no training document for lane {self.lane}: each is empty, not text, too long, "
                "held out or unreadable; give another data.source, fewer data.lanes or a lower data.validation_fraction"
            )
        return arranged
