"""A repository shaped like FineWeb-Edu, small, and a clock that runs faster, for the hub's tests."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.faults import Clock

REPO = "HuggingFaceFW/fineweb-edu"
SOURCE = "fineweb-edu-10BT"
FILES, GROUPS, ROWS = 4, 30, 8


def parquet(texts: list[list[str]], column: str = "text") -> bytes:
    """A parquet file with one row group for each list of texts, and a few of FineWeb-Edu's other columns."""
    schema = pa.schema(
        [("id", pa.string()), (column, pa.string()), ("token_count", pa.int64()), ("score", pa.float64())]
    )
    out = io.BytesIO()
    with pq.ParquetWriter(
        out, schema, compression="snappy", write_page_checksum=True, write_statistics=False
    ) as writer:
        for group in texts:
            ids = [f"<urn:uuid:{i}>" for i in range(len(group))]
            counts = [len(t) // 4 for t in group]
            writer.write_table(pa.table([ids, group, counts, [3.5] * len(group)], schema=schema))
    return out.getvalue()


def document(file: int, group: int, row: int) -> str:
    words = np.random.default_rng([file, group, row]).choice(
        ["tree", "river", "stone", "light", "of", "the", "and"], 60
    )
    return f"File {file}, group {group}, row {row}: {' '.join(words)}."


def fineweb_edu() -> dict[str, bytes]:
    files = {
        f"sample/10BT/{f:03d}_00000.parquet": parquet([[document(f, g, r) for r in range(ROWS)] for g in range(GROUPS)])
        for f in range(FILES)
    }
    return files | {
        "README.md": b"---\npretty_name: x\n---\n",
        "data/CC-MAIN-2013-20/train-00000.parquet": parquet([["x"]]),
    }


class Bytes:
    """A tokenizer whose ids are the bytes of the text."""

    name, vocab_size, eot_id, fingerprint, dtype = "bytes", 257, 256, "f" * 64, np.dtype(np.uint16)

    def encode_batch(self, texts):
        return [np.frombuffer(t.encode(), dtype=np.uint8).astype(self.dtype) for t in texts]

    def decode_bytes(self, ids):
        return bytes(i for i in np.asarray(ids).tolist() if i < 256)


class FastClock(Clock):
    """Real threads and real order of events, at `speed` times the speed."""

    def __init__(self, speed: float = 200.0) -> None:
        self.speed = speed
        self._start = time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self._start) * self.speed

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(seconds / self.speed)
