"""Made losses with known ripples, and a run folder with a trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.signal import lfilter

from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.data.trace import SCHEMA
from mygpt2.ripples import Log, make_log

ROOT = Path(__file__).parents[2]
TOKENS = 524_288.0  # of a step


def golden(name: str) -> Path:
    """A published log; the test is skipped where it is not beside the checkout."""
    for folder in (ROOT / "shared", ROOT.parent / "shared"):
        if (path := folder / "data" / "ripples" / name).exists():
            return path
    pytest.skip(f"shared/data/ripples/{name} is not on this machine")


def noise(steps: int, seed: int, sd: float = 0.04, memory: float = 0.5) -> np.ndarray:
    """Autoregressive noise of order one with standard deviation `sd`."""
    e = np.random.default_rng(seed).standard_normal(steps + 100) * sd * np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], e)[100:]


def descent(steps: int) -> np.ndarray:
    return 2.8 + 8 * (np.arange(1, steps + 1) + 0.003 * steps) ** -0.4


def wave(steps: int, period: float, amplitude: float, phase: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * np.arange(steps) / period + phase)


def log_of(loss: np.ndarray, **more) -> Log:
    steps = np.arange(1, len(loss) + 1)
    return make_log("made", steps, loss, **{"tokens": steps * TOKENS, **more})


def run_folder(
    path: Path, *, steps: int = 400, files: int = 4, groups: int = 30, per_group: int = 10, cycles: int = 3,
    amplitude: float = 0.1, shuffled: bool = False, seed: int = 5, rows: int = 8, block_size: int = 64,
) -> Path:  # fmt: skip
    """A run that read a parquet set in file order (or at random), a document a row.

    The loss of a row follows a sine of its place in the file, `cycles` to a file, and the score of its document.
    """
    rng = np.random.default_rng(seed)
    source = path.parent / f"{path.name}-data"
    source.mkdir(parents=True)
    per_file = groups * per_group
    scores = rng.normal(size=(files, per_file))
    for f in range(files):
        table = pa.table({
            "text": ["x"] * per_file, "dump": [f"dump-{i % 3}" for i in range(per_file)], "score": scores[f],
            "token_count": rng.integers(50, 80, per_file),
        })  # fmt: skip
        pq.write_table(table, source / f"{f}.parquet", row_group_size=per_group)
    sources = [SourceFile(f"{f}.parquet", 1, str(f), str(source / f"{f}.parquet")) for f in range(files)]
    blocks = make_blocks(np.repeat(range(files), groups), list(range(groups)) * files, 0, -1, per_group)
    manifest = Manifest("made", "parquet", None, "text", tuple(sources), blocks)
    (path / "trace").mkdir(parents=True)
    (path / "trace" / "manifest.json").write_text(json.dumps(manifest.to_dict()))
    document = np.arange(steps * rows) % (files * per_file)
    if shuffled:
        document = rng.integers(0, files * per_file, steps * rows)
    place = document % per_file / per_file
    fall = np.repeat(descent(steps), rows)
    row_noise = rng.normal(scale=0.1, size=len(document))
    loss = fall + amplitude * np.sin(2 * np.pi * cycles * place) + 0.05 * scores.ravel()[document] + row_noise
    step = np.repeat(np.arange(1, steps + 1), rows)
    block = [[int(d // per_group), int((d // per_group + 1) % len(blocks))] for d in document]
    inside = [[int(d % per_group), 0] for d in document]
    zero = np.zeros(len(step), int)
    columns = {
        "attempt": zero + 1, "step": step, "slot": np.tile(np.arange(rows), steps), "lane": zero, "epoch": zero,
        "loss": loss, "block": block, "document": inside,
    }  # fmt: skip
    table = pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})
    pq.write_table(table, path / "trace" / f"attempt-0001-rank-0000-step-00000001-{steps:08d}.parquet")
    means = loss.reshape(steps, rows).mean(1)
    lines = [
        {"schema": 1, "attempt": 1, "step": s + 1, "tokens": (s + 1) * rows * block_size, "loss": means[s], "lr": 1e-3}
        for s in range(steps)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    order = "lanes" if shuffled else "sequential"
    (path / "config.toml").write_text(
        f'[model]\nblock_size = {block_size}\n[data]\norder = "{order}"\nvalidation_fraction = 0.0\n'
        "[schedule]\nwarmup_steps = 5\n[eval]\ninterval = 50\n[checkpoint]\ninterval = 1000\n"
    )
    return path
