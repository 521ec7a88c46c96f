"""Small files under checksums: JSON, whole or not there, and the checksums of blocks; what to say when none is written.

A cache is never vital. What is damaged counts as not there, and a disk that is full or read-only costs time, not the
run.

The checksums of blocks are from the first time that they were read: text that changed since is not trained on
unnoticed. A block's checksum is one of its documents as they were read, so it is the same for every codec and encoder.
It is kept in the cache folder and in the run folder, 16 bytes a block, each with a checksum of its own, and with the
block's tokens. Several processes append to one file; of two records of a block the first one counts.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import FileLock

from mygpt2.files import replace_file

_RECORD = struct.Struct("<IQI")  # block, checksum of its documents, checksum of these two
_DIGEST = 32  # hex digits of XXH3-128
_said: set[str] = set()
_lock = threading.Lock()


def save_checked(path: Path, value: Any) -> None:
    """Write JSON with its checksum before it. OSError leaves what was there."""
    body = json.dumps(value, separators=(",", ":")).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body)


def load_checked(path: Path) -> Any:
    """The value, or None where there is none or its checksum does not hold, which is said."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, body = content[: _DIGEST + 1], content[_DIGEST + 1 :]
    if head != xxhash.xxh3_128_hexdigest(body).encode() + b"\n":
        say_damaged(path)
        return None
    return json.loads(body)


def keep_checked(path: Path, value: Any, cache_dir: Path) -> None:
    """`save_checked` for what lies in the cache folder: where that fails, it is said and the work goes on."""
    try:
        save_checked(path, value)
    except OSError as error:
        say_unwritable(cache_dir, error)


@contextmanager
def one_at_a_time(path: Path, cache_dir: Path) -> Iterator[bool]:
    """No other process makes the same file meanwhile, where the cache folder can be written and locked: whether so."""
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=0.005)
    except (OSError, NotImplementedError) as error:
        say_unwritable(cache_dir, error if isinstance(error, OSError) else OSError(str(error)))
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            lock.release()


def say_unwritable(cache_dir: Path, error: OSError) -> str:
    """Tell, once per folder and reason, that the work goes on without keeping what it makes; returns the sentence."""
    reason = error.strerror or str(error)
    said = (
        f"the cache folder {cache_dir} cannot be written ({reason}): going on without it, what would be kept there is "
        "made anew each time; free some space or give another data.cache_dir"
    )
    _say_once(said)
    return said


def say_damaged(path: Path) -> None:
    """Tell, once for a file, that what was kept is not what was written."""
    _say_once(f"{path} in the cache is damaged: what it held is made anew")


def _say_once(text: str) -> None:
    with _lock:
        new = text not in _said
        _said.add(text)
    if new:
        print(text, file=sys.stderr, flush=True)


def content_check(hashes: Sequence[int | None]) -> int:
    """XXH3 (64 bits) of the hashes of a block's documents (`heldout.hashes_of`), which are taken anyway."""
    known = np.array([hashed or 0 for hashed in hashes], "<u8")
    return xxhash.xxh3_64_intdigest(known.tobytes(), seed=len(hashes))


class BlockChecks:
    """What is known of the blocks of one source (its `fingerprint`), kept in files. Thread-safe."""

    def __init__(
        self, fingerprint: str, cache_dir: Path | None = None, run_file: Path | None = None, read_as: str = ""
    ) -> None:
        """`read_as`: what the documents depend on beside the source, where all runs share what is kept of it."""
        self._seed = int(fingerprint[:8], 16)
        self._lock = threading.Lock()
        self._known: dict[int, int] = {}
        self._cache_dir = cache_dir
        in_cache = cache_dir / "checks" / f"{fingerprint[:32]}{read_as}.checks" if cache_dir else None
        self._kept: dict[Path, set[int]] = {path: set() for path in (run_file, in_cache) if path}
        for path, kept in self._kept.items():
            for block, check in self._load(path):
                self._known.setdefault(block, check)
                kept.add(block)

    def get(self, block: int) -> int | None:
        """The checksum of a block's documents, where they were read."""
        return self._known.get(block)

    def agrees(self, block: int, check: int) -> bool:
        """Whether a block is what it was. The first time that it is met, its checksum is noted down."""
        with self._lock:
            known = self._known.setdefault(block, check)
            if known == check:
                for path, kept in list(self._kept.items()):
                    if block not in kept:
                        kept.add(block)
                        self._append(path, block, check)
        return known == check

    def forget(self, files: bool) -> None:
        """Begin anew: the text was changed on purpose. One of the processes that share the files takes them away."""
        with self._lock:
            self._known.clear()
            for path in list(self._kept) if files else ():
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    self._give_up(path, error)
            self._kept = {path: set() for path in self._kept}

    def _load(self, path: Path) -> Iterator[tuple[int, int]]:
        """The records that are whole. The end of a file that was torn, by a full disk say, is cut off."""
        try:
            content = path.read_bytes()
            if len(content) % _RECORD.size:
                os.truncate(path, len(content) - len(content) % _RECORD.size)
        except OSError:
            return
        for at in range(0, len(content) - _RECORD.size + 1, _RECORD.size):
            block, check, digest = _RECORD.unpack_from(content, at)
            if self._digest(block, check) == digest:
                yield block, check

    def _append(self, path: Path, block: int, check: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab", buffering=0) as f:
                f.write(_RECORD.pack(block, check, self._digest(block, check)))
        except OSError as error:
            self._give_up(path, error)

    def _give_up(self, path: Path, error: OSError) -> None:
        """Of a run folder that cannot be written, the trainer speaks."""
        del self._kept[path]
        if self._cache_dir and path.is_relative_to(self._cache_dir):
            say_unwritable(self._cache_dir, error)

    def _digest(self, block: int, check: int) -> int:
        return xxhash.xxh32_intdigest(struct.pack("<IQ", block, check), self._seed)
