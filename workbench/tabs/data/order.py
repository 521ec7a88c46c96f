"""The documents of a window in the order in which a run cuts them into rows, computed by the engine's own order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt2.config.schema import RunConfig
from mygpt2.data.heldout import settled
from mygpt2.data.inspect import shortened
from mygpt2.data.lane import arrange
from mygpt2.data.order import WHOLE, BlockOrder
from mygpt2.data.shape import block_order, choose_shapes
from mygpt2.data.sources.mixture import parts_of
from mygpt2.data.tokenize import TokenBlock
from mygpt2.data.trace import place_of
from mygpt2.errors import UserError
from workbench.corpus.library import Opened
from workbench.corpus.pages import Page, page_of
from workbench.tabs.data.documents import use_of

PAGE = 10  # each document may lie in a block of its own, which has to be read
MOST_UNCOUNTED = 32  # blocks of a window whose documents only reading counts


@dataclass(frozen=True)
class Plan:
    """The order of a configuration over a source."""

    opened: Opened
    config: RunConfig
    order: BlockOrder

    @property
    def lanes(self) -> int:
        return self.order.lanes


@dataclass(frozen=True)
class OrderedDocument:
    """A document in training order: its place in the window from 0, where it lies, and its beginning."""

    place: int
    file: str
    part: int
    document: int
    use: str
    preview: str


@dataclass(frozen=True)
class WindowPage:
    """Part of a window. `following` is the (epoch, window) after it."""

    epoch: int
    window: int
    blocks: list[str]
    documents: int
    page: Page
    lines: list[OrderedDocument]
    following: tuple[int, int]


def plan_of(opened: Opened, config: RunConfig, source: str = "") -> Plan:
    """The order of a source; of a mixture that of the source named, else of its first.

    UserError when the configuration's shape does not fit the source.
    """
    sequences = config.train.batch_tokens // config.model.block_size
    if sequences < 1:
        raise UserError(f"train.batch_tokens={config.train.batch_tokens} is less than one sequence")
    if config.data.order == "buffer":
        raise UserError(
            "data.order=buffer has a memory, so its order cannot be told from a window alone; "
            "look at the steps of a run instead"
        )
    parts = parts_of(opened.manifest, config.data)
    number = next((n for n, part in enumerate(parts) if part.name == source), 0)
    part, shape = parts[number], choose_shapes(config.data, parts, sequences, 1)[number]
    own = opened.at(part.first)[0] if len(parts) > 1 else opened
    data = settled(part.own(config.data), own.manifest)
    settings = config.model_copy(update={"data": data})
    return Plan(own, settings, block_order(data, own.manifest, shape, config.data.seed))


def window_page(plan: Plan, lane: int, epoch: int, window: int, page: Any) -> WindowPage:
    """A page of a lane's window; reads the blocks that its documents lie in.

    UserError for a lane, epoch or window that does not exist.
    """
    order, manifest = plan.order, plan.opened.manifest
    if not 0 <= lane < order.lanes:
        raise UserError(f"lane {lane} is outside 0 .. {order.lanes - 1}")
    if epoch < 0 or window < 0:
        raise UserError(f"epoch {epoch}, window {window}: give numbers from 0 up")
    blocks = order.window_blocks(lane, epoch, window)
    if not blocks:
        raise UserError(f"lane {lane} has no window {window} in epoch {epoch}; give a smaller one, or the next epoch")
    parts = _stand_ins(plan, blocks, order.part_of(epoch, window))
    arranged = arrange(epoch, window, parts, (order.seed, epoch, lane, window) if order.shuffled else None)
    shown = page_of(len(arranged.blocks), page, PAGE)
    lines = []
    for place in range(shown.start, shown.stop):
        block, number = int(arranged.blocks[place]), int(arranged.documents[place])
        file, part, document = place_of(manifest, block, number)
        found = plan.opened.read(block)[number]
        preview = shortened(plan.opened.as_text(found) or "") or "(no text)"
        lines.append(OrderedDocument(place, file, part, document, use_of(found, plan.config.data), preview))
    named = [manifest.describe(block) for block in blocks]
    return WindowPage(
        epoch, window, named, len(arranged.blocks), shown, lines, order.following(lane, epoch, window)
    )  # fmt: skip


def _stand_ins(plan: Plan, blocks: list[int], part: tuple[int, int] | None) -> list[TokenBlock]:
    """Blocks of as many documents as the real ones, a token each: an arrangement depends on their number alone."""
    counts = [int(plan.opened.manifest.blocks["rows"][block]) for block in blocks]
    if sum(count < 0 for count in counts) > MOST_UNCOUNTED:
        raise UserError(
            f"this window has {len(blocks)} blocks whose documents only reading would count; an earlier one is smaller"
        )
    counts = [count if count >= 0 else len(plan.opened.read(b)) for b, count in zip(blocks, counts, strict=True)]
    if part is None:
        return [_stand_in(block, 0, count) for block, count in zip(blocks, counts, strict=True)]
    low, high = part
    return [
        _stand_in(block, count * low // WHOLE, count * high // WHOLE)
        for block, count in zip(blocks, counts, strict=True)
    ]


def _stand_in(block: int, start: int, stop: int) -> TokenBlock:
    count = stop - start
    return TokenBlock(block, np.zeros(count, np.uint16), np.ones(count, np.int64), first=start)
