"""What is known of the data's layout and its order: the periods that a ripple may have, in tokens of the whole batch.

A period in tokens is that of the run, all ranks together. `streams` files are read at once, one each, as by ranks that
own a file each: then a file lasts `streams` times as many tokens of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mygpt2.errors import UserError

# FineWeb-Edu as published: files of 2.15 GB with 731,000 documents of some 1,030 GPT-2 tokens, row groups of 1,000.
FINEWEB_DOCUMENTS, FINEWEB_DOCUMENT_TOKENS, FINEWEB_ROW_GROUP = 731_000, 1030.0, 1000
DATASETS = ("fineweb-edu",)

EVENTS = ("the evaluation interval", "the saving interval")  # periods of what the program does, not of the data

Unit = Literal["tokens", "steps"]


@dataclass(frozen=True)
class Layout:
    """Sizes in tokens; None is unknown. `assumed` says why a size is a guess, or is empty."""

    file_tokens: float | None = None
    files: int | None = None
    set_tokens: float | None = None  # of one pass over everything; files * file_tokens where that is known
    streams: int = 1
    row_group_tokens: float | None = None
    document_tokens: float | None = None
    order: str | None = None  # sequential, buffer, lanes
    lanes: int | None = None
    window: int | None = None
    buffer_documents: int | None = None
    eval_interval: int | None = None  # steps
    save_interval: int | None = None  # steps
    assumed: str = ""

    @property
    def pass_tokens(self) -> float | None:
        """Tokens of one pass over the file set."""
        if self.set_tokens is not None:
            return self.set_tokens
        return self.file_tokens * self.files if self.file_tokens and self.files else None

    @property
    def file_period(self) -> float | None:
        """Tokens of the run between two beginnings of a file."""
        return self.file_tokens * self.streams if self.file_tokens else None

    def periods(self) -> list[tuple[str, float, Unit]]:
        """(name, period, unit) of everything in the layout that repeats."""
        lanes = self.lanes or self.streams
        group = self.row_group_tokens
        held = self.buffer_documents * self.document_tokens if self.buffer_documents and self.document_tokens else None
        window = group * lanes * self.window if group and self.window and self.order == "lanes" else None
        found: list[tuple[str, float | int | None, Unit]] = [
            ("one pass over the file set", self.pass_tokens, "tokens"),
            ("a file", self.file_period, "tokens"),
            ("a row group", group * lanes if group else None, "tokens"),
            ("a window", window, "tokens"),
            ("a buffer refill", held if self.order in (None, "buffer") else None, "tokens"),
            (EVENTS[0], self.eval_interval, "steps"),
            (EVENTS[1], self.save_interval, "steps"),
        ]
        return [(name, float(period), unit) for name, period, unit in found if period]


def dataset_layout(name: str) -> Layout:
    """The layout of a published dataset. UserError for one that is not known."""
    if name not in DATASETS:
        raise UserError(
            f"--dataset {name} is not known; allowed: {', '.join(DATASETS)}; give --file-tokens for other data"
        )
    return Layout(
        file_tokens=FINEWEB_DOCUMENTS * FINEWEB_DOCUMENT_TOKENS,
        row_group_tokens=FINEWEB_ROW_GROUP * FINEWEB_DOCUMENT_TOKENS,
        document_tokens=FINEWEB_DOCUMENT_TOKENS,
    )


def refined(layout: Layout, **given: float | int | str | None) -> Layout:
    """The layout with what a person gave in place of what was known."""
    if given.get("files") or given.get("file_tokens"):
        layout = replace(layout, set_tokens=None)  # of other files than those that are meant
    return replace(layout, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
