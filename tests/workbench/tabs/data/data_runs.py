"""Sources and runs for the tests of the tokenizer and data tabs: a context, parquet with scores, runs with a trace."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.config import RunConfig, load_config, to_toml
from mygpt2.data.loader import Loader
from mygpt2.data.trace import TraceWriter
from mygpt2.run_dir import RunDir, RunWriter
from mygpt2.tokenizer import load_tokenizer
from workbench.context import Context
from workbench.jobs import Jobs

HOSTILE = '<img src=x onerror="window.hacked=1"> the tree and the river '


def context_of(tmp_path: Path, **options) -> Context:
    """Runs and one data root, both empty."""
    for name in ("runs", "root"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    return Context((tmp_path / "runs").resolve(), ((tmp_path / "root").resolve(),), Jobs(tmp_path / "runs"), **options)


def document(number: int) -> str:
    """Documents of 20 to 300 characters that can be told apart, with characters of two and four bytes."""
    words = np.random.default_rng(number).choice(
        ["tree", "river", "naïve", "light 🙂", "of", "the", "and"], 3 + number % 40
    )
    return f"{HOSTILE if number == 0 else ''}Document {number}: {' '.join(words)}."


def slow_text(words: int = 800_000) -> str:
    """A text of random letters, from which a large vocabulary takes long enough to be stopped on the way."""
    dice, letters = random.Random(1), str.maketrans("0123456789", "ghijklmnop")
    return "\n".join(f"{dice.getrandbits(60):x} {dice.getrandbits(60):x}".translate(letters) for _ in range(words // 2))


def parquet_folder(folder: Path, files: int = 2, groups: int = 6, rows: int = 30) -> Path:
    """A folder of parquet files with a text and two scores."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in range(files):
        numbers = range(file * groups * rows, (file + 1) * groups * rows)
        table = pa.table({
            "text": [document(n) for n in numbers], "id": [f"id-{n}" for n in numbers],
            "score": [n % 7 / 2 for n in numbers], "int_score": [n % 5 for n in numbers],
        })  # fmt: skip
        pq.write_table(table, folder / f"part-{file}.parquet", row_group_size=rows)
    return folder


def small_config(source: Path | str, **settings: object) -> RunConfig:
    """Rows of 32 tokens, 8 of them in a batch."""
    return load_config("tiny", None, {
        "data": {"source": str(source), "tokenizer": "gpt2:300", "token_cache": False, "lanes": 2, **settings},
        "model": {"block_size": 32}, "train": {"batch_tokens": 256, "steps": 8, "micro_batch": 8},
    })  # fmt: skip


def loader_of(config: RunConfig, cache: Path, state: dict[str, Any] | None = None) -> Loader:
    """From the beginning, or forked from a state."""
    return Loader(
        config.data, tokenizer=load_tokenizer(config.data.tokenizer), block_size=config.model.block_size,
        batch_sequences=config.train.batch_tokens // config.model.block_size, seed=config.data.seed, cache_dir=cache,
        state=state, fork=state is not None,
    )  # fmt: skip


def batches_of(config: RunConfig, cache: Path, steps: int) -> list[np.ndarray]:
    """What the loader itself gives for the first steps."""
    with loader_of(config, cache) as loader:
        found = [loader.poll(30.0) for _ in range(steps)]
    assert all(batch is not None for batch in found)
    return [batch.tokens for batch in found if batch is not None]


def traced_run(runs: Path, name: str, config: RunConfig, cache: Path, steps: int = 8) -> RunDir:
    """A run folder with a configuration and the trace of the batches that its loader gave."""
    run = RunDir.create(runs, name)
    with RunWriter(run, 1) as writer:
        writer.config(to_toml(config))
    with loader_of(config, cache) as loader:
        trace = TraceWriter(run.trace_dir, 1, 0, loader.manifest)
        for step in range(1, steps + 1):
            batch = loader.poll(30.0)
            assert batch is not None
            trace.add(step, batch, np.arange(len(batch.slots)) / 100 + step)
        trace.flush()
    return run
