"""Small files of the cache: JSON under a checksum, whole or not there; and what to say when it cannot be written.

A cache is never vital. What is damaged counts as not there, and a disk that is full or read-only costs time, not the
run.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock

from mygpt2.files import replace_file

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
def one_at_a_time(path: Path, cache_dir: Path) -> Iterator[None]:
    """No other process makes the same file meanwhile, where the cache folder can be written and locked."""
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        say_unwritable(cache_dir, error if isinstance(error, OSError) else OSError(str(error)))
    try:
        yield
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
