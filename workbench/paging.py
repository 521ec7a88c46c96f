"""Pages of metrics.jsonl for the API: each costs what it holds, however long the run is.

A trainer appends. Its rows are in the order of (attempt, step), so that the place of a row is found by halving, and
nothing is kept between two calls. A row that a later attempt overwrote is left out; a reader who has it already gets
the later attempt's rows, from its first step on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from mygpt2.inside import open_inside
from mygpt2.records import checked, tame
from mygpt2.run_dir import RunDir, by_source
from mygpt2.run_dir.by_source import BY_SOURCE
from mygpt2.run_dir.metrics import is_row
from mygpt2.run_dir.writer import METRIC_KEYS

MAX_ROWS = 5000
MAX_BYTES = 32 << 20  # of the file for one page: what is not a row counts as well
_LINE = 64 << 10  # a longer one is not a row
_STEPS = 40  # bits of a cursor that hold the step; those above, the number of resumes before it
_LAST = (1 << _STEPS) - 1
Key = tuple[int, int]  # attempt, step


@dataclass(frozen=True)
class Line:
    """A row: where it stands, where the next line begins, and what it holds."""

    start: int
    end: int
    row: dict[str, Any]

    @property
    def key(self) -> Key:
        return self.row["attempt"], self.row["step"]


def metrics_page(run: RunDir, cursor: int, limit: int) -> dict[str, Any]:
    """{"rows", "cursor"}: the rows that follow a cursor, at most `limit`; the answer's cursor asks for the rest.

    0 is the start. In a run that was never resumed a cursor is the last step that was read. OSError for a file that
    cannot be read; an absent one has no rows.
    """
    cursor = max(0, int(cursor))
    try:
        file = open_inside(run.metrics_file, run.path)
    except FileNotFoundError:
        return {"rows": [], "cursor": cursor}
    with file:
        first = next(_lines(file, 0), None)
        if first is None:
            return {"rows": [], "cursor": cursor}
        base = first.row["attempt"]
        after = base + (cursor >> _STEPS), cursor & _LAST
        found = list(_page(file, after if cursor else (base, -1), max(1, min(int(limit), MAX_ROWS))))
    if found:
        attempt, step = found[-1].key
        cursor = ((attempt - base) << _STEPS) | min(step, _LAST)
    return {"rows": [_plain(line.row) for line in found], "cursor": cursor}


def row_at(run: RunDir, step: int) -> dict[str, Any] | None:
    """The row of a step that counts; None where there is none. OSError for a file that cannot be read."""
    try:
        file = open_inside(run.metrics_file, run.path)
    except FileNotFoundError:
        return None
    with file:
        for (attempt, first), _ in reversed(_attempts(file, -1)):
            if first > step:
                continue  # it had not begun by then
            found = None
            for line in _lines(file, _place(file, (attempt, step - 1))):
                if line.key != (attempt, step):
                    break
                found = line.row  # the last of a step within an attempt counts
            return _plain(found) if found else None
    return None


def _page(file: BinaryIO, after: Key, limit: int) -> Iterator[Line]:
    """The lines of one page: those behind `after` which no later attempt overwrites."""
    at = _place(file, after)
    beginnings = _attempts(file, after[0])
    waiting: Line | None = None  # a step twice within an attempt: the last row counts
    given, until = 0, at + MAX_BYTES
    while True:
        for line in _lines(file, at):
            overwritten = min((step for (attempt, step), _ in beginnings if attempt > line.key[0]), default=_LAST + 1)
            if line.start > until or line.key[1] >= overwritten:
                break
            if waiting and waiting.key != line.key:
                yield waiting
                given += 1
                if given == limit:
                    return
            waiting = line
        else:
            break
        later = [place for (attempt, _), place in beginnings if attempt > line.key[0]]
        if line.start > until or not later:
            break
        at = later[0]  # the rest of this attempt is overwritten
    if waiting:
        yield waiting


def _attempts(file: BinaryIO, since: int) -> list[tuple[Key, int]]:
    """Where each attempt after `since` begins: its first row's key, and its place."""
    found: list[tuple[Key, int]] = []
    attempt = since
    while line := next(_lines(file, _place(file, (attempt, _LAST + 1))), None):
        if line.key[0] <= attempt:
            break  # not in order: written by no trainer
        attempt = line.key[0]
        found.append((line.key, line.start))
    return found


def _place(file: BinaryIO, after: Key) -> int:
    """Where the first line stands whose key is beyond `after`; the end of the file where there is none."""
    low, high = 0, os.fstat(file.fileno()).st_size
    while low < high:
        middle = (low + high) // 2
        line = next(_lines(file, middle), None)
        if line is None or line.key > after:
            high = middle
        else:
            low = line.end
    return low


def _lines(file: BinaryIO, at: int) -> Iterator[Line]:
    """The rows that begin at `at` or behind it, up to the last whole line. What is not a row is passed over."""
    start = at
    if at:
        file.seek(at - 1)
        start = at - 1 + len(file.readline())  # to the end of the line before; nothing if one begins here
    else:
        file.seek(0)
    idle = start
    while (data := file.readline(_LINE)) and start - idle < MAX_BYTES:
        end = start + len(data)
        if data.endswith(b"\n"):
            row = _row(data)
            if row is not None:
                yield Line(start, end, row)
                file.seek(end)
                idle = end
        elif len(data) == _LINE:
            end += len(file.readline())
        start = end


def _row(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and is_row(found) else None


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with every quantity, null where nobody wrote it or what stands there is no number."""
    known = checked(tame(row))
    numbers = {key: value for key, value in known.items() if value is None or isinstance(value, int | float | str)}
    of_sources = by_source.plain(known.get(BY_SOURCE))
    return dict.fromkeys((*METRIC_KEYS, "time")) | numbers | ({BY_SOURCE: of_sources} if of_sources else {})
