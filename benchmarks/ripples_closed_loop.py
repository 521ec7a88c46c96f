"""The closed loop: a cycle planted in a corpus, trained on for real, found in the loss, and damped as the law says.

    python benchmarks/ripples_closed_loop.py [--steps 420] [--small] [--folder DIR] [--json OUT] [--html DIR]

Planted: seven parquet files of 2,016 documents of some 32 tokens; whether a document is of the hard or of the easy
kind is drawn by a chance that swings three times per file. The tiny preset's model with 16 rows of 64 tokens per step
is trained on it in file order, through a shuffle buffer of 214 documents, and in lanes.

Built in: files of the built-in corpus, as they are, cut to a dozen documents each, read over and
over: their kinds of text differ, so that the loss repeats with the pass over the set.

Marks: in file order the period within 1 % of the planted one; the buffer's amplitude within 15 % of the law's
1/sqrt(1 + (2 pi B / P)^2); lanes leave nothing (p > 0.05). Run under two threads it takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILES, CYCLES, WORDS = 7, 3, 24
ROW_GROUP = 16  # documents
STEP_TOKENS, BLOCK = 1024, 64
SWING = 0.3  # of the chance of a hard document around one half
EASY = "the of and to in is was he for it with as his on be at by had not are but from or have".split()
HARD = (
    "an they which one you were her all she there would their we him been has when who will more no if out so said "
    "what up its about into than them can only other new some could time these two may then do first any my now such "
    "like our over man me even most made after also did many before must through back years where much your way well"
).split()


def document(rng: np.random.Generator, hard: bool) -> str:
    """Words drawn evenly from many (hard) or from few (easy): a model can learn no more than their number."""
    words = HARD if hard else EASY[:8]
    return " ".join(words[i] for i in rng.integers(0, len(words), WORDS))


def plant(folder: Path, documents: int, files: int = FILES, seed: int = 1) -> Path:
    """A corpus whose share of hard documents swings CYCLES times per file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(files):
        place = (np.arange(documents) + 0.5) / documents
        hard = rng.random(documents) < 0.5 + SWING * np.sin(2 * np.pi * CYCLES * place)
        table = pa.table({"text": [document(rng, bool(h)) for h in hard]})
        pq.write_table(table, folder / f"{number:03d}.parquet", row_group_size=ROW_GROUP)
    return folder


def built_in(folder: Path, cache: Path, files: int, documents: int) -> Path:
    """The beginnings of some files of the built-in corpus, spread over it, with their row groups made smaller."""
    from mygpt2.data.pydocs import harvest

    folder.mkdir(parents=True, exist_ok=True)
    paths = [p for p in sorted(harvest(cache).glob("*.parquet")) if pq.read_metadata(p).num_rows >= documents]
    for number in np.linspace(0, len(paths) - 1, files).round().astype(int):
        table = pq.read_table(paths[number])
        pq.write_table(table.slice(0, documents), folder / paths[number].name, row_group_size=ROW_GROUP)
    return folder


def train(name: str, source: Path, runs: Path, cache: Path, steps: int, order: str, **more: Any) -> Path:
    """A run folder of the tiny preset's model with a small batch."""
    from mygpt2.config import load_config
    from mygpt2.train import attempt

    settings = {
        "data.source": str(source), "data.order": order, "data.cache_dir": str(cache), "train.steps": steps,
        "train.batch_tokens": STEP_TOKENS, "model.block_size": BLOCK, "data.validation_tokens": 1024, "eval.interval": 0,
        "eval.yardstick": "off", "sample.interval": 0, "sample.max_new_tokens": 1, "log.plot_interval": 0,
        "checkpoint.interval": 10**6, "schedule.name": "constant", **more,
    }  # fmt: skip
    config = load_config("tiny", None, settings)
    with contextlib.redirect_stdout(sys.stderr):
        code = attempt.main(config, name, runs, "never", ["train"])
    if code:
        raise SystemExit(f"training {name} ended with {code}")
    return runs / name


ORDERS = {"sequential": {"data.lanes": 4}, "buffer": {"data.lanes": 4}, "lanes": {}}


def study(args: argparse.Namespace, kind: str, documents: int, buffer: int, files: int) -> dict[str, Path]:
    """The run folders of a corpus under the three orders; what is there already is not trained again."""
    from mygpt2.machine import cache_folder

    cache = cache_folder(None)
    corpus = args.folder / f"{kind}-{documents}"
    if not corpus.exists():
        if kind == "planted":
            plant(corpus, documents, files)
        else:
            built_in(corpus, cache, files, documents)
    runs = {}
    for order, more in ORDERS.items():
        name = f"{kind}-{documents}-{order}-{args.steps}"
        runs[order] = args.folder / "runs" / name
        if not (runs[order] / "exit.json").exists():
            settings = {**more, "data.buffer_documents": buffer}
            train(name, corpus, args.folder / "runs", args.folder / "cache", args.steps, order, **settings)
    return runs
