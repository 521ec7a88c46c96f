"""A run folder with a descent, rows and a trace, into which a spike of a known cause is planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.config import load_config, to_toml
from mygpt2.data.sources.resolve import resolve
from mygpt2.data.trace import SCHEMA
from mygpt2.run_dir import RunDir, RunWriter

ROWS, WARMUP = 32, 10
TEXTS = 40  # documents of each of two row groups


def source(folder: Path) -> Path:
    """A parquet file of two row groups with a text, an address and a dump."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(2 * TEXTS)
    table = pa.table({
        "text": [f"Document {n} of a small shelf." for n in numbers],
        "url": [f"https://site{n % 3}.example/{n}" for n in numbers], "dump": [f"CC-MAIN-{n % 2}" for n in numbers],
    })  # fmt: skip
    pq.write_table(table, folder / "part-0.parquet", row_group_size=TEXTS)
    return folder


def descent(steps: int) -> np.ndarray:
    """A loss (steps,) that falls as those of small models do."""
    return 3.3 + 5.0 * np.arange(1, steps + 1) ** -0.35


class Planted:
    """Rows of every step around a descent; `change` them, then `write`."""

    def __init__(self, steps: int = 120, seed: int = 0, spread: float = 0.5) -> None:
        dice = np.random.default_rng(seed)
        self.steps = steps
        self.rows = descent(steps)[:, None] + spread * dice.standard_normal((steps, ROWS))  # [step - 1, slot]
        self.rate = np.minimum(1.0, np.arange(1, steps + 1) / WARMUP) * 1e-3
        self.norm = 1.0 + 0.1 * dice.standard_normal(steps)
        self.attempt = np.ones(steps, int)
        # Each row touches a document of its own, by turns through the shelf.
        self.documents = [[[(at * ROWS + slot) % (2 * TEXTS)] for slot in range(ROWS)] for at in range(steps)]
        self.epoch = np.array([[(at * ROWS + slot) // (2 * TEXTS) for slot in range(ROWS)] for at in range(steps)])
        self.events: list[dict[str, Any]] = []

    def write(self, folder: Path, name: str = "r", tokenizer: str = "gpt2:4096") -> RunDir:
        """The run folder; its source beside it."""
        config = load_config("tiny", None, {
            "data": {"source": str(source(folder / "data")), "tokenizer": tokenizer},
            "schedule": {"warmup_steps": WARMUP}, "train": {"steps": self.steps},
        })  # fmt: skip
        run = RunDir.create(folder / "runs", name)
        for attempt in np.unique(self.attempt):
            with RunWriter(run, int(attempt)) as writer:
                writer.config(to_toml(config))
                for event in self.events if attempt == self.attempt[-1] else []:
                    writer.event(event["kind"], **{key: value for key, value in event.items() if key != "kind"})
                for at in np.flatnonzero(self.attempt == attempt):
                    writer.metrics(step=int(at) + 1, tokens=8192 * (int(at) + 1), loss=float(self.rows[at].mean()),
                                   lr=float(self.rate[at]), grad_norm=float(self.norm[at]))  # fmt: skip
                writer.finish("finished", 0, "finished")
        self._trace(run, resolve(config.data.source, config.data, cache_dir=folder / "cache").to_dict())
        return run

    def _trace(self, run: RunDir, manifest: dict[str, Any]) -> None:
        records = [
            {"attempt": 1, "step": at + 1, "slot": slot, "lane": slot, "epoch": int(self.epoch[at, slot]),
             "loss": float(self.rows[at, slot]), "block": [n // TEXTS for n in self.documents[at][slot]],
             "document": [n % TEXTS for n in self.documents[at][slot]], "offset": 0}
            for at in range(self.steps) for slot in range(ROWS)
        ]  # fmt: skip
        name = f"attempt-0001-rank-0000-step-00000001-{self.steps:08d}.parquet"
        pq.write_table(pa.Table.from_pylist(records, SCHEMA), run.trace_dir / name)
        (run.trace_dir / "manifest.json").write_text(json.dumps(manifest))


def plant(folder: Path, change: Callable[[Planted], None] | None = None, **options: Any) -> RunDir:
    """A run of 120 steps with what `change` did to it."""
    made = Planted(**options)
    if change:
        change(made)
    return made.write(folder)
