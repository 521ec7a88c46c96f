"""Tokenized blocks kept on disk, so that no text is tokenized twice.

A file is named by the hash of everything its content depends on: the block's file identity and place, the tokenizer,
the encoder, the validation fraction and the length limit. It carries a checksum that is checked on every read; a
damaged one is deleted and made anew. Several processes may share the folder: a file appears by rename, whole or not at
all, and the room it takes is booked in one file for all of them, so that the cap holds for all together.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mygpt2.data.checked import one_at_a_time, say_unwritable
from mygpt2.data.tokenize import TokenBlock
from mygpt2.files import replace_file

_HEADER = struct.Struct("<8sIIQQ16s")  # magic, bytes per id, bytes of notes, documents, ids, XXH3-128 of the rest
_MAGIC = b"mygpt2t2"
_SUFFIX = ".tokens"
_OURS = (_SUFFIX, ".tmp", ".part")  # and what a writer that was killed left behind
_LOW_WATER = 0.9  # evict down to this share of the cap, so that not every write has to look for the oldest


class TokenCache:
    """A folder of token blocks of at most `cap_bytes`; the least recently used goes first. Thread-safe."""

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        self.folder = folder
        self._cap = cap_bytes
        self._lock = threading.Lock()
        self._counted = False  # this process has looked how much there is
        self.hits = 0
        self.corrupt = 0  # files whose checksum did not hold
        self.failure: str | None = None  # why nothing is written any more (disk full, no permission)

    @staticmethod
    def key(*parts: Any) -> str:
        """The name of what these JSON-ready parts determine."""
        text = json.dumps(parts, separators=(",", ":"), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / (key + _SUFFIX)

    def get(self, key: str, block: int) -> TokenBlock | None:
        """The tokens, or None where they have to be made. `block` is only the number that the result carries."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        found = _decode(content, block)
        if found is None:
            self.corrupt += 1
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        self.hits += 1
        with contextlib.suppress(OSError):
            os.utime(path)  # its place in the least-recently-used order
        return found

    def put(self, key: str, tokens: TokenBlock) -> None:
        """Keep a block. A full or read-only disk stops the writing, not the run; `failure` then says why."""
        if self.failure is not None:
            return
        content = _encode(tokens)
        if len(content) > self._cap:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without locks on this file system the cap holds less exactly: look anew each time.
            with self._lock, one_at_a_time(self.folder / "room", self.folder.parent) as alone:
                self._counted = self._counted and alone
                self._book(len(content))
            replace_file(path, content)
        except OSError as error:
            self.failure = say_unwritable(self.folder.parent, error)

    def drop(self, key: str) -> None:
        """Forget a block: the text that it was made of is another now."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def _book(self, size: int) -> None:
        """Make room for so many bytes and note that they are taken."""
        room = self.folder / "room"
        taken = None
        if self._counted:
            with contextlib.suppress(OSError, ValueError):
                taken = int(room.read_text("ascii"))
        if taken is None:
            taken, self._counted = sum(size for _, size, _ in self._entries()), True
        if taken + size > self._cap:
            taken = self._evict(size)
        room.write_text(str(taken + size), "ascii")

    def _entries(self) -> list[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every file."""
        entries = []
        for directory, _, names in os.walk(self.folder):
            for name in names:
                if not name.endswith(_OURS):
                    continue
                path = os.path.join(directory, name)
                with contextlib.suppress(OSError):  # another process may have evicted it meanwhile
                    status = os.stat(path)
                    entries.append((status.st_mtime, status.st_size, path))
        return entries

    def _evict(self, size: int) -> int:
        """Delete the least recently used until `size` more bytes have room; returns the bytes that are left."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for _, length, path in entries:
            if total + size <= self._cap * _LOW_WATER:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= length
        return total


def _encode(tokens: TokenBlock) -> bytes:
    notes = json.dumps({"left_out": dict(tokens.left_out), "encoder": tokens.encoder, "check": tokens.check}).encode()
    body = notes + tokens.lengths.astype("<u4").tobytes() + tokens.ids.tobytes()
    fields = (_MAGIC, tokens.ids.itemsize, len(notes), len(tokens.lengths), len(tokens.ids))
    return _HEADER.pack(*fields, _checksum(fields, body)) + body


def _checksum(fields: tuple[Any, ...], body: bytes | memoryview) -> bytes:
    digest = xxhash.xxh3_128(repr(fields).encode())
    digest.update(body)
    return digest.digest()


def _decode(content: bytes, block: int) -> TokenBlock | None:
    """The block, or None where the bytes are not what was written."""
    if len(content) < _HEADER.size:
        return None
    *fields, digest = _HEADER.unpack_from(content)
    magic, width, note_bytes, documents, ids = fields
    body = memoryview(content)[_HEADER.size :]
    if magic != _MAGIC or len(body) != note_bytes + 4 * documents + width * ids:
        return None
    if _checksum(tuple(fields), body) != digest:
        return None
    lengths = np.frombuffer(body, "<u4", documents, note_bytes).astype(np.int64)
    tokens = np.frombuffer(body, f"<u{width}", ids, note_bytes + 4 * documents)
    notes = json.loads(bytes(body[:note_bytes]))
    return TokenBlock(block, tokens, lengths, notes["left_out"], encoder=notes["encoder"], check=notes["check"])
