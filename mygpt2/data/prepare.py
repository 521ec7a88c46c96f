"""`data prepare`: a whole source as pre-tokenized shards, in the layout that the loader (and others) read.

A shard is 1,024 bytes of header (256 int32: magic, version, number of tokens) and uint16 ids, each document followed by
end-of-text. Shards end where blocks end and `prepare.json` is written after each, so a killed preparation goes on where
the last whole shard ended, and the files are the same as if it had never been killed.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from mygpt2.config.data import DataConfig
from mygpt2.data.heldout import no_text
from mygpt2.data.scan import BlockReader, scan
from mygpt2.data.sources.faults import Clock, Unreadable
from mygpt2.data.sources.local.find import PREPARED
from mygpt2.data.sources.local.formats import TOKENS_HEADER, TOKENS_MAGIC, TOKENS_VERSION
from mygpt2.data.sources.manifest import Manifest, check_quarantine
from mygpt2.data.tokenize import BlockTokenizer, TokenBlock, TokenizerLike
from mygpt2.errors import UserError, shown
from mygpt2.files import cannot_write, read_json, replace_json
from mygpt2.records import whole

Progress = Callable[[int, int], None]
"""Called with (blocks done, tokens written)."""

STATE = PREPARED
SHARD = "shard-{:05d}.bin"


@dataclass(frozen=True)
class Shard:
    """One file. `sha256` is that of its tokens, without the header; it holds the blocks [first_block, next_block)."""

    name: str
    tokens: int
    documents: int
    sha256: str
    first_block: int
    next_block: int
    left_out: dict[str, int]  # documents, by reason
    unreadable: dict[str, str]  # block: reason


@dataclass
class Prepared:
    """What `prepare.json` holds: what is made from what, and the shards that are done."""

    identity: dict[str, Any]
    shards: list[Shard] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(s.tokens for s in self.shards)

    @property
    def documents(self) -> int:
        return sum(s.documents for s in self.shards)

    @property
    def next_block(self) -> int:
        return self.shards[-1].next_block if self.shards else 0

    @property
    def complete(self) -> bool:
        return self.next_block == self.identity["blocks"]

    @property
    def left_out(self) -> Counter[str]:
        return sum((Counter(shard.left_out) for shard in self.shards), Counter())

    @property
    def unreadable(self) -> dict[str, str]:
        return {block: why for shard in self.shards for block, why in shard.unreadable.items()}

    def save(self, out: Path) -> None:
        replace_json(out / STATE, asdict(self), durable=True)


def prepare(
    manifest: Manifest,
    reader: BlockReader,
    tokenizer: TokenizerLike,
    data: DataConfig,
    out: Path,
    *,
    shard_tokens: int,
    threads: int,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Prepared:
    """Tokenize every document of a source into `out`. UserError when `out` holds something else."""
    identity = _identity(manifest, tokenizer, data, shard_tokens)
    state = _opened(out, identity)
    encoder = BlockTokenizer(tokenizer, data.model_copy(update={"validation_fraction": 0.0}))
    try:
        with FileLock(out / ".lock", timeout=0):
            state = _opened(out, identity)  # another process may have done more of it since
            state.save(out)
            writer: _ShardWriter | None = None
            blocks = range(state.next_block, len(manifest))
            found = scan(reader, manifest, blocks, data, threads=threads, work=encoder.tokens, clock=clock)
            for block, result in found:
                writer = writer or _ShardWriter(out, len(state.shards), block)
                if isinstance(result, Unreadable):
                    writer.unreadable[str(block)] = result.reason
                    reasons = {**state.unreadable, **writer.unreadable}
                    check_quarantine(manifest, data.max_quarantine, {int(bad): why for bad, why in reasons.items()})
                else:
                    writer.add(result)
                if writer.tokens >= shard_tokens or block + 1 == len(manifest):
                    state.shards.append(writer.close(block + 1))
                    state.save(out)
                    writer = None
                if progress:
                    progress(block + 1, state.tokens + (writer.tokens if writer else 0))
            if not state.tokens:
                for name in (STATE, *(shard.name for shard in state.shards)):  # which hold nothing
                    (out / name).unlink(missing_ok=True)
                raise no_text(manifest, state.left_out)
    except Timeout as error:
        raise UserError(
            f"--out {out} is being prepared by another process; wait for it or give another folder"
        ) from error
    except OSError as error:
        raise cannot_write(out, error) from error
    return state


def _identity(manifest: Manifest, tokenizer: TokenizerLike, data: DataConfig, shard_tokens: int) -> dict[str, Any]:
    if np.dtype(tokenizer.dtype) != np.uint16:
        raise UserError(
            f"data.tokenizer={data.tokenizer} has {tokenizer.vocab_size} ids and shards hold uint16; "
            "allowed: at most 65536 ids; train on the text itself instead"
        )
    if manifest.kind == "tokens":
        raise UserError(f"source={shown(manifest.source)} is tokenized already; train on it as it is")
    return {
        "schema": 1,
        "source": manifest.source,
        "data": manifest.fingerprint,
        "blocks": len(manifest),
        "tokenizer": data.tokenizer,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "eot_id": tokenizer.eot_id,
        "shard_tokens": shard_tokens,
        "max_document_chars": data.max_document_chars,
    }


def _opened(out: Path, identity: dict[str, Any]) -> Prepared:
    """What is in the folder already, if it is ours: shards that are not as recorded are made again."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder that is new, empty, or from the same preparation")
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = sorted(p.name for p in out.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"--out {out} cannot be used ({error.strerror}); give a folder that can be written") from error
    found = read_json(out / STATE)
    if found is None:
        if held:
            raise UserError(f"--out {out} is not empty (it holds {held[0]}); give a new or empty folder")
        return Prepared(identity)
    theirs, listed = found.get("identity"), found.get("shards")
    if not isinstance(theirs, dict) or not isinstance(listed, list):
        raise UserError(f"{out / STATE} is not what a preparation writes; give a new or empty folder")
    changed = [k for k, v in identity.items() if theirs.get(k) != v]
    if changed:
        what = ", ".join(f"{k} {theirs.get(k)} there, {identity[k]} now" for k in changed[:2])
        raise UserError(f"--out {out} holds another preparation ({what}); give a new folder, or the same as before")
    shards: list[Shard] = []
    for told in listed:
        shard = _shard(told, len(shards))
        if shard is None or _size(out / shard.name) != TOKENS_HEADER + 2 * shard.tokens:
            break
        shards.append(shard)
    return Prepared(identity, shards)


def _shard(told: Any, number: int) -> Shard | None:
    """A shard as it was written down; None for what nobody wrote down like that."""
    try:
        shard = Shard(**told)
        counts = whole(shard.tokens), whole(shard.documents), whole(shard.first_block), whole(shard.next_block)
        sound = shard.name == SHARD.format(number) and None not in counts
        tables = all(isinstance(table, dict) for table in (shard.left_out, shard.unreadable))
    except TypeError:
        return None
    return shard if sound and tables else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


class _ShardWriter:
    """Writes one shard beside its place and moves it there when it is whole."""

    def __init__(self, out: Path, number: int, first_block: int) -> None:
        self._path = out / SHARD.format(number)
        self._part = out / f".{self._path.name}.part"
        self._file = open(self._part, "wb")  # noqa: SIM115 - closed by close(), and a leftover is overwritten
        self._file.write(bytes(TOKENS_HEADER))
        self._digest = hashlib.sha256()
        self._first_block = first_block
        self.tokens = self._documents = 0
        self._left_out: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}

    def add(self, block: TokenBlock) -> None:
        raw = np.ascontiguousarray(block.ids, "<u2").tobytes()
        self._file.write(raw)
        self._digest.update(raw)
        self.tokens += len(block.ids)
        self._documents += int(np.count_nonzero(block.lengths))
        self._left_out.update(block.left_out)

    def close(self, next_block: int) -> Shard:
        header = np.zeros(TOKENS_HEADER // 4, "<i4")
        header[:3] = TOKENS_MAGIC, TOKENS_VERSION, self.tokens
        self._file.seek(0)
        self._file.write(header.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._part, self._path)
        return Shard(
            self._path.name, self.tokens, self._documents, self._digest.hexdigest(), self._first_block, next_block,
            dict(self._left_out), self.unreadable,
        )  # fmt: skip
