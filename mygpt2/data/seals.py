"""What the bytes of local files were when a run began: checksums of every file, part by part, kept with the run.

A part is a row group's text, a byte range of a text file, or all the rest of the file, so every byte is in one part and
a change is told by its place. The first SYNC_BYTES are read before training begins, the rest beside it. A run that goes
on compares with what it kept; a new run with what the cache folder remembers of the files, and only says what changed.
What the hub has is known by its commit and needs none of this.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mygpt2.data.checked import keep_checked, load_checked
from mygpt2.data.hub_parquet import chunk_range
from mygpt2.data.manifest import Manifest, SourceFile
from mygpt2.errors import UserError

SYNC_BYTES = 512 << 20  # a fifth of a second where the files are in memory, a second from a disk
CHUNK = 4 << 20
REST, WHOLE_FILE = "outside the text", "the whole file"
NAMED = 6  # files, and parts of a file, in a message
Piece = tuple[int, int, str]  # first byte, last + 1, what it is


@dataclass(frozen=True)
class Seal:
    """One file. `stat`: times of change in ns and the inode, which a write changes. `parts`: none until it was read."""

    name: str
    size: int
    stat: tuple[int, ...]
    parts: Mapping[str, str]

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Seal:
        return cls(record["name"], record["size"], tuple(record["stat"]), record["parts"])

    def differences(self, now: Seal) -> list[str]:
        """The parts that are others now; empty where one of the two was not read."""
        if not self.parts or not now.parts:
            return []
        if self.size != now.size:
            return [f"{self.size:,} bytes then, {now.size:,} now"]
        return [part for part in {**self.parts, **now.parts} if self.parts.get(part) != now.parts.get(part)]


def pieces_of(manifest: Manifest, number: int) -> list[Piece]:
    """The parts of a file that blocks are made of, in the order of their places."""
    file, rows = manifest.files[number], manifest.blocks[manifest.blocks["file"] == number]
    pieces: list[Piece] = []
    if manifest.kind == "parquet":
        try:
            metadata = pq.read_metadata(file.location)
            names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
            column = names.index(manifest.text_column)
            for group in sorted({int(part) for part in rows["part"]}):
                pieces.append((*chunk_range(metadata, group, column), f"row group {group}"))
        except (OSError, ValueError, pa.ArrowException):  # no row group can be told: the file is one part
            pieces = []
    elif len(rows) and (rows["stop"] >= 0).all():
        places = [_byte_range(manifest, number, row) for row in rows]
        pieces = [(start, stop, _bytes(start, stop)) for start, stop in places]
    pieces = sorted(piece for piece in pieces if 0 <= piece[0] < piece[1] <= file.size)
    return pieces or [(0, file.size, WHOLE_FILE)]


def label_of(manifest: Manifest, block: int) -> tuple[str, str]:
    """(file, part) of a block, as a seal names them."""
    row, number = manifest.blocks[block], int(manifest.blocks["file"][block])
    if manifest.kind == "parquet":
        part = f"row group {int(row['part'])}"
    else:
        part = WHOLE_FILE if row["stop"] < 0 else _bytes(*_byte_range(manifest, number, row))
    return manifest.files[number].name, part


def _bytes(start: int, stop: int) -> str:
    return f"bytes {start} to {stop - 1}"


def _byte_range(manifest: Manifest, number: int, row: np.void) -> tuple[int, int]:
    """First byte and last + 1 of a block that is a range of bytes or of ids; ids are the end of their file."""
    start, stop = int(row["start"]), int(row["stop"])
    if manifest.kind != "tokens":
        return start, stop
    size, count = manifest.files[number].size, int(manifest.blocks["stop"][manifest.blocks["file"] == number].max())
    width = 4 if count > 512 and size >= 4 * count else 2
    offset = max(0, size - width * count)
    return offset + width * start, offset + width * stop


def seal(manifest: Manifest, number: int, pause: Callable[[float], bool] = lambda _: False) -> Seal | None:
    """The checksums of a file as it is now; None when `pause(seconds a chunk took)` says to stop. Raises OSError."""
    file = manifest.files[number]
    pieces = pieces_of(manifest, number)
    size, stat = _traces(file)
    rest, parts, at = xxhash.xxh3_64(), {}, 0

    with open(file.location, "rb", buffering=0) as f:

        def feed(digest: Any, stop: int) -> bool:
            nonlocal at
            while at < stop:
                began = time.perf_counter()
                chunk = f.read(min(CHUNK, stop - at))
                if not chunk:
                    raise OSError(f"{file.location} became shorter while it was read")
                digest.update(chunk)
                at += len(chunk)
                if pause(time.perf_counter() - began):
                    return False
            return True

        for start, stop, label in pieces:
            digest = xxhash.xxh3_64()
            if start < at:  # the parts of a file never overlap, unless its footer is wrong
                continue
            if not feed(rest, start) or not feed(digest, stop):
                return None
            parts[label] = digest.hexdigest()
        if not feed(rest, size):
            return None
    if at > sum(stop - start for start, stop, _ in pieces):
        parts[REST] = rest.hexdigest()
    return Seal(file.name, size, stat, parts)


def _traces(file: SourceFile) -> tuple[int, tuple[int, ...]]:
    """Size, and what a write changes. Raises OSError."""
    found = os.stat(file.location)
    return found.st_size, (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _stat(file: SourceFile) -> Seal | None:
    """A seal of a file that was not read yet; None where there is no such file."""
    try:
        return Seal(file.name, *_traces(file), {})
    except OSError:
        return None


class SealFile:
    """Seals by name in the run folder: a line each, under its own checksum; of two of a name the later one counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.seals: dict[str, Seal] = {}
        for line in self._lines():
            digest, _, body = line.partition(b" ")
            if digest == xxhash.xxh3_64_hexdigest(body).encode():
                found = Seal.from_json(json.loads(body))
                self.seals[found.name] = found
            else:
                self.damaged += 1

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def add(self, new: Seal) -> None:
        """Keep a seal. Raises OSError."""
        body = json.dumps(asdict(new), separators=(",", ":")).encode()
        with open(self.path, "ab", buffering=0) as f:
            f.write(b"\n" * self._torn() + xxhash.xxh3_64_hexdigest(body).encode() + b" " + body + b"\n")
        self.seals[new.name] = new

    def _torn(self) -> bool:
        """Whether the last line was not written to its end."""
        try:
            with open(self.path, "rb") as f:
                f.seek(-1, os.SEEK_END)
                return f.read() != b"\n"
        except OSError:
            return False


class SourceWatch:
    """Compares the files of a source with what they were, and keeps what they are. One for a run: on rank 0."""

    def __init__(
        self,
        manifest: Manifest,
        cache_dir: Path,
        run_file: Path,
        tell: Callable[[str], None],
        *,
        resumed: bool,
        fork: bool = False,
        quarantine: tuple[int, ...] = (),
        sync_bytes: int = SYNC_BYTES,
    ) -> None:
        """Reads the first `sync_bytes`. UserError when a run that goes on would do so on other data, unless it forks.

        `tell` is given a sentence on what else changed. Blocks in `quarantine` are not trained on and may be anything.
        """
        self._manifest, self._cache_dir, self._tell = manifest, cache_dir, tell
        self._resumed, self._fork = resumed, fork
        self._kept: SealFile | None = SealFile(run_file)
        self._then = dict(self._kept.seals) if resumed else {}
        self._pardoned = {label_of(manifest, block) for block in quarantine} if manifest.revision is None else set()
        self.changed: dict[str, list[str]] = {}  # file: parts
        self._stop = threading.Event()
        if resumed and self._kept.damaged:
            tell(f"{self._kept.damaged} lines of {run_file} are damaged: what they said cannot be compared")
        numbers = list(range(len(manifest.files))) if manifest.revision is None else []
        numbers.sort(key=self._looks_unchanged)
        for number in numbers:
            self._suspect(number)
        while numbers and (manifest.files[numbers[0]].size <= sync_bytes or self._written_in_place(numbers[0])):
            sync_bytes -= manifest.files[numbers[0]].size
            self._look(numbers.pop(0), lambda _: False)
        for number in numbers:
            self._begin(number)
        if self.changed and resumed and not fork:
            raise UserError(
                f"the data changed since this run read them: {self._places()}; restore the files, or start a new order "
                "from this checkpoint with --data.fork true"
            )
        if self.changed:
            tell(f"the data changed since they were read before: {self._places()}; they are taken as they are now")
        self._thread = threading.Thread(target=self._go_on, args=(numbers,), name="data-seals", daemon=True)
        if numbers:
            self._thread.start()

    def held_out(self, sha256: str, name: str) -> None:
        """UserError when the held-out set of a run that goes on is another one, unless it forks."""
        name = f"held-out set {name}"
        now, then = Seal(name, 0, (), {"tokens": sha256}), self._then.get(name)
        if then is not None and then.differences(now) and not self._fork:
            raise UserError(
                "the held-out documents are others than when this run began, so its losses would not compare: a file "
                "could not be read then or cannot now; restore it, or go on all the same with --data.fork true"
            )
        self._keep(now)

    def blocks(self) -> list[int]:
        """The blocks of which the text changed."""
        labels = {(name, part) for name, parts in self.changed.items() for part in parts}
        files = {name for name, parts in self.changed.items() if not {REST}.issuperset(parts)}
        numbers = [n for n in range(len(self._manifest)) if {f.name for f in self._manifest.files_of(n)} & files]
        return [n for n in numbers if label_of(self._manifest, n) in labels or self._as_a_whole(n)]

    def _as_a_whole(self, block: int) -> bool:
        """Whether the file of a block has another size or no parts, so that no part can be told from another."""
        parts = [part for f in self._manifest.files_of(block) for part in self.changed.get(f.name, ())]
        return any(part == WHOLE_FILE or part.endswith(" now") for part in parts)

    def close(self) -> None:
        """Stop reading; what was read is kept."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _looks_unchanged(self, number: int) -> bool:
        file = self._manifest.files[number]
        then, now = self._then.get(file.name), _stat(file)
        return now is None or (then is not None and (then.size, then.stat) == (now.size, now.stat))

    def _written_in_place(self, number: int) -> bool:
        """Whether it is the file that a run which goes on had, written to since: not one of a copy elsewhere."""
        file = self._manifest.files[number]
        then, now = self._then.get(file.name), _stat(file)
        same = then is not None and now is not None and then.stat[-1] == now.stat[-1]
        return same and not self._looks_unchanged(number)

    def _suspect(self, number: int) -> None:
        """Say where a file was written to of which only its times and size are known."""
        file = self._manifest.files[number]
        then = self._then.get(file.name)
        if then is not None and not then.parts and not self._looks_unchanged(number):
            self._tell(f"{file.name} was written to since this run began, before its checksums were known")

    def _begin(self, number: int) -> None:
        """Note a file down that was not read yet: as the cache knows it, or its times and size."""
        file = self._manifest.files[number]
        now = _stat(file)
        if now is not None and file.name not in self._then:
            known = self._remembered(file.name, file.location)
            self._keep(known if known and (known.size, known.stat) == (now.size, now.stat) else now)

    def _look(self, number: int, pause: Callable[[float], bool]) -> None:
        """Read a file and compare it."""
        file = self._manifest.files[number]
        try:
            now = seal(self._manifest, number, pause)
        except OSError:
            return  # reading its blocks will tell
        if now is None:
            return
        then = self._then.get(file.name) or Seal(file.name, 0, (), {})
        known = then if then.parts else self._remembered(file.name, file.location)
        if known is not None and self._resumed and (known.size, known.stat) != (then.size, then.stat):
            known = None  # the cache remembers the file from before this run
        parts = known.differences(now) if known else []
        parts = [part for part in parts if (file.name, part) not in self._pardoned]
        if parts:
            self.changed[file.name] = parts
        if not (parts and self._resumed) or self._fork:
            if not then.parts or parts:
                self._keep(now)
            keep_checked(self._cache_path(file.location), asdict(now), self._cache_dir)

    def _go_on(self, numbers: list[int]) -> None:
        """The files for which the start had no time, at half the speed that the disk has."""
        for number in numbers:
            before = len(self.changed)
            self._look(number, self._stop.wait)
            if self._stop.is_set():
                return
            if len(self.changed) > before:
                self._tell(f"the data changed since they were read before: {self._places()}")

    def _keep(self, new: Seal) -> None:
        try:
            if self._kept is not None and self._kept.seals.get(new.name) != new:
                self._kept.add(new)
        except OSError as error:
            self._tell(f"the checksums of the data cannot be kept in the run folder ({error.strerror or error})")
            self._kept = None

    def _remembered(self, name: str, location: str) -> Seal | None:
        record = load_checked(self._cache_path(location))
        return Seal.from_json({**record, "name": name}) if record else None

    def _cache_path(self, location: str) -> Path:
        what = json.dumps([location, self._manifest.kind, self._manifest.text_column])
        return self._cache_dir / "seals" / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.json"

    def _places(self) -> str:
        """`a.parquet: row group 3, row group 9; b.jsonl: bytes 0 to 65535`."""
        told = [f"{name}: {_some(parts)}" for name, parts in sorted(self.changed.items())]
        return "; ".join(told[:NAMED]) + (f"; and {len(told) - NAMED} more files" if len(told) > NAMED else "")


def _some(parts: list[str]) -> str:
    return ", ".join(parts[:NAMED]) + (f" and {len(parts) - NAMED} more parts" if len(parts) > NAMED else "")
