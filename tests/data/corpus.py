"""Small sources for the data tests: a byte tokenizer, files of every kind, and a source in memory that can fail."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.config.data import DataConfig
from mygpt2.data.batch import Batch
from mygpt2.data.loader import Loader
from mygpt2.data.sources.faults import Clock
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks

EOT = 256


class Bytes:
    """A tokenizer whose ids are the bytes of the text, and 256 for end-of-text."""

    name, vocab_size, eot_id, fingerprint, dtype = "bytes", 257, EOT, "f" * 64, np.uint16

    def encode_batch(self, texts):
        return [np.frombuffer(t.encode(), np.uint8).astype(self.dtype) for t in texts]


def texts(count: int, start: int = 0) -> list[str]:
    """Documents of 8 to 98 characters that can be told apart."""
    return [f"<{i:05d}>" + "abcdefghij"[i % 10] * (1 + i * 37 % 91) for i in range(start, start + count)]


def write_parquet(folder: Path, files: int = 3, documents: int = 120, row_group: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for f in range(files):
        table = pa.table({"id": list(range(documents)), "text": texts(documents, f * documents)})
        pq.write_table(
            table, folder / f"part-{f}.parquet", row_group_size=row_group, write_page_checksum=True, compression="none"
        )
    return folder


def write_jsonl(folder: Path, files: int = 2, documents: int = 4000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for f in range(files):
        lines = "".join(json.dumps({"text": t, "n": i}) + "\n" for i, t in enumerate(texts(documents, f * documents)))
        (folder / f"part-{f}.jsonl").write_text(lines)
    return folder


def write_txt(folder: Path, paragraphs: int = 6000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "long.txt").write_text("\n\n".join(texts(paragraphs)))
    for i, text in enumerate(texts(40, paragraphs)):
        (folder / f"small-{i:03d}.txt").write_text(text)
    return folder


def write_tokens(folder: Path, documents: int = 6000, header: bool = False, eot_first: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ids: list[int] = []
    for text in texts(documents):
        ids += [EOT, *text.encode()] if eot_first else [*text.encode(), EOT]
    content = np.array(ids, "<u2").tobytes()
    if header:
        head = np.zeros(256, "<i4")
        head[:3] = 20240520, 1, len(ids)
        content = head.tobytes() + content
    (folder / "train.bin").write_bytes(content)
    return folder


def write_gz(folder: Path, files: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for f in range(files):
        lines = "".join(json.dumps({"text": t}) + "\n" for t in texts(40, f * 40))
        (folder / f"part-{f}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def write_arrow(folder: Path, files: int = 3, documents: int = 120, batch: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for f in range(files):
        table = pa.table({"id": list(range(documents)), "text": texts(documents, f * documents)})
        with pa.ipc.new_stream(str(folder / f"part-{f}.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=batch)
    return folder


def write_tar(folder: Path, files: int = 2, documents: int = 120) -> Path:
    """Of longer texts, as a block of small ones would be many members."""
    folder.mkdir(parents=True, exist_ok=True)
    for f in range(files):
        with tarfile.open(folder / f"part-{f}.tar", "w") as tar:
            for i, text in enumerate(40 * text for text in texts(documents, f * documents)):
                member = tarfile.TarInfo(f"{i:06d}.txt")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "parquet": write_parquet,
    "arrow": write_arrow,
    "tar": write_tar,
    "jsonl": write_jsonl,
    "txt": write_txt,
    "tokens": write_tokens,
    "jsonl.gz": write_gz,
}


class Memory:
    """A source in memory that counts what is read; `fail(block, nth read of it)` may raise instead of answering."""

    def __init__(
        self,
        blocks: list[list[Any]],
        fail: Callable[[int, int], None] | None = None,
        block_bytes: int = 4 << 20,  # as stored: of a row group of a large set, whatever is in it
    ) -> None:
        self.blocks, self.fail, self.reads, self.lock = blocks, fail, [], threading.Lock()
        self.size = len(blocks) * block_bytes

    def read(self, block: int) -> list[Any]:
        with self.lock:
            self.reads.append(block)
            nth = self.reads.count(block)
        if self.fail is not None:
            self.fail(block, nth)
        return self.blocks[block]

    def close(self) -> None:
        pass

    @property
    def manifest(self) -> Manifest:
        digest = hashlib.sha256(json.dumps(self.blocks, default=repr).encode()).hexdigest()
        table = make_blocks(0, range(len(self.blocks)), 0, -1, [len(b) for b in self.blocks])
        return Manifest("memory", "parquet", None, "text", (SourceFile("memory", self.size, digest),), table)


def memory(
    blocks: int = 60, documents: int = 6, fail: Callable[[int, int], None] | None = None, **settings: int
) -> Memory:
    return Memory([texts(documents, b * documents) for b in range(blocks)], fail, **settings)


class Virtual(Clock):
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.time, self.lock = 0.0, threading.Lock()

    def now(self) -> float:
        return self.time

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        with self.lock:
            self.time += max(seconds, 0.01)
        return stop.is_set()


class Ranks:
    """All ranks of a run in one process, polled together."""

    def __init__(
        self, data: DataConfig, cache: Path, ranks: int = 1, state=None, source: Memory | None = None, **given
    ):
        settings: dict[str, Any] = {"block_size": 32, "batch_sequences": 8, "seed": 1, "tokenizer": Bytes(), **given}
        self.batch_sequences = settings["batch_sequences"]
        if source is not None:
            settings.update(manifest=source.manifest, reader=source)
        self.loaders: list[Loader] = []
        for rank in range(ranks):
            self.loaders.append(Loader(data, rank=rank, world_size=ranks, cache_dir=cache, state=state, **settings))
        self.last: list[Batch] = []

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for loader in self.loaders:
            loader.close()

    def step(self) -> np.ndarray:
        """The next global batch, (G, T + 1)."""
        self.last = [poll(loader) for loader in self.loaders]
        batch = np.zeros((self.batch_sequences, self.last[0].tokens.shape[1]), np.uint16)
        for part in self.last:
            batch[part.slots] = part.tokens
        return batch

    def steps(self, count: int) -> list[np.ndarray]:
        return [self.step() for _ in range(count)]

    @property
    def state(self) -> dict[str, Any]:
        """As a checkpoint after the last batch would hold it: through JSON."""
        places = sum(loader.places(part) for loader, part in zip(self.loaders, self.last, strict=True))
        cursor, epochs = self.loaders[0].read_places(np.asarray(places))
        bad = {block for part in self.last for block in part.quarantine}
        return json.loads(json.dumps(self.loaders[0].state(cursor, sorted(bad), epochs)))

    def rows(self) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """(slot, lane, documents) of every row of the last batch, by slot."""
        return sorted(
            (int(slot), int(lane), documents)
            for part in self.last
            for slot, lane, documents in zip(part.slots, part.lanes, part.provenance, strict=True)
        )


def poll(loader: Loader) -> Batch:
    """The next batch; a loader that has none after 20 seconds has failed the test."""
    batch = loader.poll(20.0)
    assert batch is not None, loader.waiting or "no batch"
    return batch


def sha256(batches: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(batch.astype("<u2").tobytes())
    return digest.hexdigest()


def config(source: Path | str = "memory", **settings: Any) -> DataConfig:
    """The reference encoder and no token cache unless a test asks for them."""
    return DataConfig(**{"source": str(source), "encoder": "tiktoken", "token_cache": False, **settings})


def check_ranks(path: Path, folder: Path) -> None:
    """A source gives one rank without a cache what two ranks with one give, stopped and gone on with on four."""
    with Ranks(config(path), folder / "cache", 1) as run:
        expected = run.steps(30)
    with Ranks(config(path, token_cache=True), folder / "other", 2) as run:
        found, state = run.steps(12), run.state
    with Ranks(config(path, token_cache=True), folder / "other", 4, state=state) as run:
        found += run.steps(18)
    assert sha256(found) == sha256(expected)
