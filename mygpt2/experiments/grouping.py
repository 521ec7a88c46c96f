"""From the documents of a trace to groups: the source they are of, or what a column beside their text holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from mygpt2.data.columns import Columns
from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture
from mygpt2.errors import TryAgain, UserError, listed, shown

NONE, UNREADABLE, FURTHER = range(3)
SPECIAL = ("(none)", "(unreadable)", "(further values)")
MOST_VALUES = 1_000_000  # that are told apart; what comes later is counted together
MOST_VALUE = 200  # characters of a value
ADDRESSES = ("url", "uri", "link")
COLUMN = "column:"  # before a column that is called like one of the words


@dataclass(frozen=True)
class Entries:
    """The documents of some rows: those of row `row[i]`, with `weight[i]` of its targets. Each (entries,).

    `document` is one number for each, the same wherever it appears.
    """

    row: np.ndarray
    attempt: np.ndarray
    block: np.ndarray
    number: np.ndarray  # within the block
    weight: np.ndarray
    document: np.ndarray
    in_equal_parts: int  # rows whose documents' lengths are not known

    @classmethod
    def of(cls, table: pa.Table, tokens: int) -> Entries:
        """Of a trace's rows; `tokens`: targets of a row."""
        blocks, numbers, targets = (table[name].combine_chunks() for name in ("block", "document", "targets"))
        counts = np.diff(blocks.offsets.to_numpy())
        row = np.repeat(np.arange(len(table)), counts)
        weight = np.repeat(tokens / np.maximum(counts, 1), counts).astype(float)
        known = targets.is_valid().to_numpy(zero_copy_only=False)
        weight[known[row]] = targets.flatten().to_numpy()
        block = blocks.flatten().to_numpy().astype(np.int64)
        number = numbers.flatten().to_numpy().astype(np.int64)
        attempt = table["attempt"].to_numpy().astype(np.int64)[row]
        return cls(row, attempt, block, number, weight, block << 32 | number, int((~known).sum()))


class Groups:
    """Values told apart, by number; the first are SPECIAL."""

    def __init__(self, by: str) -> None:
        self.by = by
        self._names: list[str] = list(SPECIAL)
        self._known: dict[str, int] = {}

    def number(self, value: str) -> int:
        found = self._known.get(value)
        if found is None:
            if len(self._known) >= MOST_VALUES:
                return FURTHER
            found = self._known[value] = len(self._names)
            self._names.append(value)
        return found

    def name(self, number: int) -> str:
        return self._names[number]


class _Manifests:
    """Which manifest the blocks of an attempt are of."""

    def __init__(self, found: Mapping[int, Manifest]) -> None:
        self.all = list(found.values())
        self._since = np.array(list(found), np.int64)

    def numbers(self, entries: Entries) -> np.ndarray:
        """(entries,) the number of the manifest; -1 where it is not known or has no such block."""
        found = np.searchsorted(self._since, entries.attempt, side="right") - 1
        sizes = np.array([len(manifest) for manifest in self.all] + [0])
        return np.where(entries.block < sizes[found], found, -1)


class BySource:
    """Every document by the source of the mixture that it is of."""

    def __init__(self, manifests: Mapping[int, Manifest]) -> None:
        self.groups, self.notes = Groups("source"), list[str]()
        self._manifests = _Manifests(manifests)
        self._firsts: list[np.ndarray] = []
        self._numbers: list[np.ndarray] = []
        for manifest in self._manifests.all:
            names = [part.name for part in manifest.parts] if isinstance(manifest, Mixture) else [manifest.source]
            self._firsts.append(np.array(_firsts(manifest)))
            self._numbers.append(np.array([self.groups.number(name) for name in names]))

    def of(self, entries: Entries, stopped: Callable[[], bool], told: Callable[[float], None]) -> np.ndarray | None:
        found = np.full(len(entries.row), UNREADABLE)
        which = self._manifests.numbers(entries)
        for number in range(len(self._manifests.all)):
            own = which == number
            place = np.searchsorted(self._firsts[number], entries.block[own], side="right") - 1
            found[own] = self._numbers[number][place]
        return found

    def close(self) -> None: ...


class ByColumn:
    """Every document by what a column beside its text holds; the columns of a block are read once."""

    def __init__(
        self, manifests: Mapping[int, Manifest], by: str, width: float | None, cache_dir: Path, run: str
    ) -> None:
        """UserError where no source has the column, or none can be read."""
        self.groups, self.notes = Groups(by), list[str]()
        self._host = by == "domain"
        self._column, self._width = by.removeprefix(COLUMN), width
        self._manifests = _Manifests(manifests)
        self._opened = [Columns(manifest, cache_dir) for manifest in self._manifests.all]
        self._codes: dict[tuple[int, int], np.ndarray] = {}
        self._reasons: dict[str, str] = {}  # of what is unreadable, by file
        try:
            self._check(run)
        except BaseException:
            self.close()
            raise

    def of(self, entries: Entries, stopped: Callable[[], bool], told: Callable[[float], None]) -> np.ndarray | None:
        found = np.full(len(entries.row), UNREADABLE)
        which = self._manifests.numbers(entries)
        good = np.flatnonzero(which >= 0)
        order = good[np.lexsort((entries.block[good], which[good]))]
        key = which[order] << 32 | entries.block[order]
        cuts = np.flatnonzero(np.diff(key, prepend=-1, append=-1))
        for done, (begin, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
            if stopped():
                return None
            place = order[begin:end]
            codes = self._of_block(int(which[place[0]]), int(entries.block[place[0]]))
            found[place] = codes[np.minimum(entries.number[place], len(codes) - 1)]
            told(done / len(cuts))
        return found

    def close(self) -> None:
        for opened in self._opened:
            opened.close()

    def _of_block(self, which: int, block: int) -> np.ndarray:
        """(documents + 1,) the group of each; the last stands for documents that the block does not have."""
        codes = self._codes.get((which, block))
        if codes is None:
            codes = self._codes[which, block] = np.array(self._read(which, block), np.int32)
        return codes

    def _read(self, which: int, block: int) -> list[int]:
        opened = self._opened[which]
        try:
            column = self._address(opened.names(block)) if self._host else self._column
            values = None if column is None else opened.values(block, column)
        except Unreadable as fault:
            self._unreadable(opened.manifest.describe(block), fault.reason)
            return [UNREADABLE]
        except Outage as fault:
            raise _out_of_reach(opened.manifest, fault) from None
        return [NONE] if values is None else [*map(self._group, values), UNREADABLE]

    def _group(self, value: Any) -> int:
        text = self._text(value)
        return NONE if not text else self.groups.number(text)

    def _text(self, value: Any) -> str:
        if value is None:
            return ""
        if self._host:
            return _host(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value != value:
                return ""
            if self._width is not None:
                low = self._width * (value // self._width)
                return f"{low:g} to {low + self._width:g}"
            return f"{value:.6g}" if isinstance(value, float) else str(value)
        text = value if isinstance(value, str) else str(value)
        return text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]} …"

    def _unreadable(self, where: str, reason: str) -> None:
        if not self._reasons:
            self.notes.append(f"documents of {where} and others like it are counted as (unreadable): {reason}")
        self._reasons[where] = reason

    def _check(self, run: str) -> None:
        """By the first block of each source, and some more where each line may have other keys."""
        names: dict[str, None] = {}
        problems = []
        places = [(opened, block) for opened in self._opened for block in _looked_at(opened.manifest)]
        for opened, first in places:
            try:
                names |= dict.fromkeys(opened.names(first))
            except Unreadable as fault:
                problems.append(f"{opened.manifest.describe(first)}: {fault.reason}")
            except Outage as fault:
                raise _out_of_reach(opened.manifest, fault) from None
        if len(problems) == len(places):
            raise UserError(
                f"the data of run {run!r} cannot be read any more ({problems[0]}); bring it back to where it was, or "
                "take --by source, which needs the trace alone"
            )
        wanted = self._address(list(names)) if self._host else self._column if self._column in names else None
        if wanted is None and not problems:
            what = f"an address ({', '.join(ADDRESSES)})" if self._host else f"a column {shown(self._column)}"
            there = f"there are {listed(names, 20)}" if names else "beside the text there is nothing"
            raise UserError(f"no source of run {run!r} has {what}; {there}; --by source always goes")

    @staticmethod
    def _address(names: list[str]) -> str | None:
        """The column that holds the documents' addresses."""
        by_name = {name.lower(): name for name in reversed(names)}
        return next((by_name[name] for name in ADDRESSES if name in by_name), None)


def _firsts(manifest: Manifest) -> list[int]:
    """The first block of each source."""
    return [part.first for part in manifest.parts] if isinstance(manifest, Mixture) else [0]


def _looked_at(manifest: Manifest) -> list[int]:
    firsts = _firsts(manifest)
    ends = [*(first - 1 for first in firsts[1:]), len(manifest) - 1]
    some = [
        [first, (first + end) // 2, end] if manifest.at(first)[0].kind == "jsonl" else [first]
        for first, end in zip(firsts, ends, strict=True)
    ]
    return [block for of_source in some for block in dict.fromkeys(of_source)]


def _host(address: Any) -> str:
    """The host of an address; empty for what is none."""
    try:
        return urlsplit(address).hostname or "" if isinstance(address, str) else ""
    except ValueError:
        return ""


def _out_of_reach(manifest: Manifest, fault: Outage) -> TryAgain:
    return TryAgain(
        f"the columns of {shown(manifest.source)} lie on the hub, which does not answer ({fault.reason}); try again in "
        "a while, or take --by source, which needs the trace alone"
    )
