"""metrics.jsonl as columns on disk, so that a run of a million steps is parsed once and not at every look.

<cache>/metrics/<run>/   meta.json  step.bin  attempt.bin  loss.bin ...

It is a cache: rows in the order of the file, numbers little-endian, each file as long as meta.json says or longer. It
holds the file up to a byte offset that lies some megabytes behind its end; what follows is parsed when it is asked for.
A folder that cannot be written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.errors import UserError
from mygpt2.files import read_json, replace_json
from mygpt2.inside import open_inside
from mygpt2.machine import cache_folder
from mygpt2.records import whole
from mygpt2.run_dir import RunDir, list_runs
from mygpt2.run_dir.lines import HEAD_BYTES, Cursor, news
from mygpt2.run_dir.metrics import Rows, parse_rows, parse_text

SCHEMA = 2  # 1: without the losses by source
DIRECT_BYTES = 4 << 20  # a rest of this size is parsed at every look: 14,000 steps, some 20 ms
AHEAD_BYTES = 16 << 20  # a file that has grown by so much is looked after before anybody asks
PIECE_BYTES = 64 << 20  # parsed at once
MOST_ROWS = 2_000_000  # of one answer
MOST_BYTES = 2 << 30  # of all runs in the cache; the least recently used go first
TAIL_BYTES = 256  # before the offset, by which a file that was put in another's place is known
KINDS = {"step": "<i8", "attempt": "<i8"}


@dataclass(frozen=True)
class Fresh:
    """Rows behind a cursor. `more`: there are more to fetch at once. `replaced`: the file is another one."""

    rows: Rows
    cursor: Cursor | None
    replaced: bool = False
    more: bool = False


@dataclass(frozen=True)
class Stored:
    """What the cache holds of a file: all rows before byte `at`. bounds: [at, rows] after each piece, ascending."""

    folder: Path
    at: int = 0
    rows: int = 0
    names: tuple[str, ...] = ()
    bounds: tuple[tuple[int, int], ...] = ((0, 0),)
    tail: str = ""
    garbage: int = 0

    def column(self, name: str) -> NDArray[Any]:
        """A column of all rows; NaN for one that nobody wrote. OSError where it is gone."""
        if self.rows == 0:  # lines of which none is a row; no empty file can be mapped
            return np.empty(0, KINDS.get(name, "<f8"))
        if name not in KINDS and name not in self.names:
            return np.full(self.rows, np.nan)
        return np.memmap(self.folder / f"{name}.bin", KINDS.get(name, "<f8"), mode="r", shape=(self.rows,))

    def part(self, first: int, last: int, names: Sequence[str]) -> Rows:
        """Rows first..last - 1, as copies."""
        values = {name: np.array(self.column(name)[first:last]) for name in names}
        return Rows(np.array(self.column("step")[first:last]), np.array(self.column("attempt")[first:last]), values)


_locks: dict[Path, threading.Lock] = {}
_guard = threading.Lock()


def fresh(run: RunDir, cursor: Cursor | None, names: Sequence[str], *, until: int | None = None) -> Fresh:
    """The columns named of what was appended since `cursor` (None: the start), at most up to byte `until`.

    As `news` otherwise: whoever has a cursor may ask any server. OSError for a file that cannot be read.
    """
    found = _beginning(run)
    if found is None:
        return _plain(run, cursor, names, until)
    head, size = found
    replaced = cursor is not None and (cursor.head != head or cursor.at > size)
    at = 0 if cursor is None or replaced else cursor.at
    limit = size if until is None else min(size, until)
    stored = known(run, head, size, grow=limit - at > DIRECT_BYTES)
    bounds = [bound for bound in stored.bounds if bound[0] <= limit] if stored else []
    first = next((rows for place, rows in bounds if place == at), None)
    ahead = [bound for bound in bounds if bound[0] > at]
    if stored and ahead and first is not None:
        end, last = next((b for b in reversed(ahead) if b[1] - first <= MOST_ROWS), ahead[0])
        with contextlib.suppress(OSError, ValueError):  # removed meanwhile
            return Fresh(stored.part(first, last, names), Cursor(head, end), replaced, more=end < limit)
    rest = _plain(run, None if replaced else cursor, names, ahead[0][0] if ahead else until)
    return Fresh(rest.rows, rest.cursor, replaced, more=rest.more or bool(ahead))


def whole_run(run: RunDir) -> Rows:
    """All rows in file order with every column that anybody wrote. OSError for a file that cannot be read."""
    found = _beginning(run)
    stored = known(run, *found, grow=True, whole=True) if found and found[1] > DIRECT_BYTES else None
    at = Cursor(found[0], stored.at) if found and stored else None
    parts: list[Rows] = []
    more = True
    while more:
        rest = news(run.metrics_file, at)
        parts.append(parse_rows(rest.lines))
        at, more = rest.cursor, rest.more
    if stored:
        names = list(dict.fromkeys([*stored.names, *(name for part in parts for name in part.values)]))
        parts.insert(0, stored.part(0, stored.rows, names))
    return _joined(parts)


def known(run: RunDir, head: str, size: int, *, grow: bool = False, whole: bool = False) -> Stored | None:
    """What the cache holds of a run, after it was brought further if `grow`: by a piece, or up to the end if `whole`.

    None where there is nothing of this file, or no cache.
    """
    try:
        folder = cache_folder() / "metrics" / hashlib.sha256(f"{run.path.resolve()} {head}".encode()).hexdigest()[:24]
    except (UserError, OSError):
        return None
    stored = _load(folder, run)
    if not grow or (stored and size - stored.at < DIRECT_BYTES):
        return stored
    with contextlib.suppress(OSError), _held(folder):
        stored = _load(folder, run) or _begin(folder)
        while size - stored.at >= DIRECT_BYTES or (whole and stored.at == 0):
            before, stored = stored, _grown(stored, run)
            if stored is before or not whole:
                break
    return stored


class Keeper:
    """Keeps the columns of all runs of a folder near the ends of their files, so that a first look finds them.

    A call brings one run one piece further, if any has grown by that much; otherwise it costs a stat for each run.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._seen: dict[str, int] = {}  # up to where each run's file needs no work

    def __call__(self) -> None:
        for run in list_runs(self._runs):
            try:
                size = run.metrics_file.stat().st_size
                if size - self._seen.get(run.name, 0) < AHEAD_BYTES or not (found := _beginning(run)):
                    continue
                stored = known(run, *found, grow=True)
            except OSError:
                continue  # it is told to whoever looks at the run
            self._seen[run.name] = stored.at if stored else size
            return


def _plain(run: RunDir, cursor: Cursor | None, names: Sequence[str], until: int | None) -> Fresh:
    found = news(run.metrics_file, cursor, until=until)
    return Fresh(parse_rows(found.lines, names), found.cursor, found.replaced, found.more)


def _beginning(run: RunDir) -> tuple[str, int] | None:
    """The fingerprint of the first line, as `news` makes it, and the file's size; None without a whole line."""
    try:
        with open_inside(run.metrics_file) as file:
            size, first = os.fstat(file.fileno()).st_size, file.readline(HEAD_BYTES)
    except FileNotFoundError:
        return None
    if not first or (len(first) < HEAD_BYTES and not first.endswith(b"\n")):
        return None
    return hashlib.sha256(first).hexdigest()[:16], size


def _load(folder: Path, run: RunDir) -> Stored | None:
    record = read_json(folder / "meta.json", most=4 << 20)
    if record is None or record.get("schema") != SCHEMA:
        return None
    names, bounds = record.get("names"), record.get("bounds")
    numbers = [whole(record.get(key)) for key in ("at", "rows", "garbage")]
    if not isinstance(names, list) or not isinstance(bounds, list) or None in numbers:
        return None
    at, rows, garbage = (number or 0 for number in numbers)
    pairs = tuple((whole(b[0]) or 0, whole(b[1]) or 0) for b in bounds if isinstance(b, list) and len(b) == 2)
    stored = Stored(folder, at, rows, tuple(map(str, names)), pairs, str(record.get("tail")), garbage)
    try:
        return stored if _tail(run, at) == stored.tail and _is_whole(stored) else None
    except OSError:
        return None


def _is_whole(stored: Stored) -> bool:
    files = [stored.folder / f"{name}.bin" for name in (*KINDS, *stored.names)]
    return all(file.stat().st_size >= 8 * stored.rows for file in files)


def _tail(run: RunDir, at: int) -> str:
    with open_inside(run.metrics_file) as file:
        file.seek(max(0, at - TAIL_BYTES))
        return hashlib.sha256(file.read(min(at, TAIL_BYTES))).hexdigest()[:16]


def _begin(folder: Path) -> Stored:
    """An empty folder of columns, once there is room for it."""
    shutil.rmtree(folder, ignore_errors=True)
    _make_room(folder.parent)
    folder.mkdir(mode=0o700, parents=True)
    return Stored(folder)


def _make_room(place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = []
        for folder in place.iterdir():
            files = [file.stat() for file in folder.iterdir()] if folder.is_dir() else []
            found.append((max((file.st_mtime for file in files), default=0.0), sum(f.st_size for f in files), folder))
        spare = MOST_BYTES - sum(size for _, size, _ in found)
        for _, size, folder in sorted(found):
            if spare >= 0:
                break
            shutil.rmtree(folder, ignore_errors=True)
            spare += size


def _grown(stored: Stored, run: RunDir) -> Stored:
    """One piece of the file further: columns first, then meta.json, which says how far they count."""
    with open_inside(run.metrics_file) as file:
        file.seek(stored.at)
        data = file.read(PIECE_BYTES)
    data = data[: data.rfind(b"\n") + 1]
    if not data:
        return stored
    rows = parse_text(data)
    total, at = stored.rows + len(rows), stored.at + len(data)
    columns = {"step": rows.step, "attempt": rows.attempt, **rows.values}
    seen = {name for name, values in rows.values.items() if name in stored.names or not np.isnan(values).all()}
    names = tuple(dict.fromkeys([*stored.names, *(name for name in rows.values if name in seen and _is_plain(name))]))
    for name in (*KINDS, *names):
        kind = KINDS.get(name, "<f8")
        values = columns.get(name)
        _append(
            stored.folder / f"{name}.bin", stored.rows, np.full(len(rows), np.nan) if values is None else values, kind
        )
    grown = Stored(stored.folder, at, total, names, (*stored.bounds, (at, total)), _tail(run, at),
                   stored.garbage + rows.garbage)  # fmt: skip
    replace_json(stored.folder / "meta.json", {
        "schema": SCHEMA, "run": str(run.path), "at": at, "rows": total, "names": list(names), "tail": grown.tail,
        "bounds": [list(bound) for bound in grown.bounds], "garbage": grown.garbage,
    })  # fmt: skip
    return grown


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,95}", name, re.ASCII) is not None


def _append(path: Path, before: int, values: NDArray[Any], kind: str) -> None:
    """Values behind row `before`; what lies beyond was not counted, and a column that is new begins with NaN."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        size = file.seek(0, os.SEEK_END) // 8
        if size < before:
            file.truncate(8 * size)
            file.seek(8 * size)
            file.write(np.full(before - size, np.nan).astype("<f8").tobytes())
        file.seek(8 * before)
        file.write(np.ascontiguousarray(values, dtype=kind).data)
        file.truncate()


def _joined(parts: Sequence[Rows]) -> Rows:
    names = list(dict.fromkeys(name for part in parts for name in part.values))
    join = np.concatenate
    return Rows(
        join([part.step for part in parts]),
        join([part.attempt for part in parts]),
        {name: join([part.values.get(name, np.full(len(part), np.nan)) for part in parts]) for name in names},
        sum(part.garbage for part in parts),
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Nobody else, thread or server, writes these columns meanwhile."""
    with _guard:
        lock = _locks.setdefault(folder, threading.Lock())
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock, open(folder.with_suffix(".lock"), "a") as file:
        with contextlib.suppress(OSError):  # a file system without flock: one server has to be enough there
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
