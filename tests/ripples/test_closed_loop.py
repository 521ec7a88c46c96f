"""A small form of benchmarks/ripples_closed_loop.py: trained for real, found, damped as the law says, and gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.config import load_config
from mygpt2.ripples import Log, analyse, read_log
from mygpt2.ripples.forecast import buffer_factor
from mygpt2.ripples.spectrum import fit_line
from mygpt2.ripples.study import Study, study
from mygpt2.train import attempt
from tests.life.harness import SETTINGS, signals

FILES, DOCUMENTS, CYCLES, BUFFER, STEPS = 4, 720, 3, 80, 180
LETTERS = "a b c d f h m p s t w o n l r e".split()  # noqa: SIM905


def corpus(folder: Path) -> Path:
    """Whether a document is drawn from sixteen letters or from three swings three times per file."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(FILES):
        chance = 0.5 + 0.35 * np.sin(2 * np.pi * CYCLES * (np.arange(DOCUMENTS) + 0.5) / DOCUMENTS)
        texts = [" ".join(rng.choice(LETTERS if hard else LETTERS[:3], 30)) for hard in rng.random(DOCUMENTS) < chance]
        pq.write_table(pa.table({"text": texts}), folder / f"{number}.parquet", row_group_size=8)
    return folder


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> dict[str, Log]:
    folder = tmp_path_factory.mktemp("loop")
    source = corpus(folder / "data")
    with pytest.MonkeyPatch.context() as patch, signals():
        patch.setenv("OMP_NUM_THREADS", "1")
        for order in ("sequential", "buffer", "lanes"):
            settings = {
                **SETTINGS, "data.source": str(source), "data.cache_dir": str(folder / "cache"), "data.order": order,
                "data.buffer_documents": BUFFER, "data.window": 16, "data.validation_fraction": 0.01,
                "model.n_layer": 1, "model.n_embd": 32, "model.dropout": 0.0, "schedule.name": "constant",
                "train.steps": STEPS, "train.batch_tokens": 512, "eval.interval": 0, "checkpoint.interval": 1000,
                "optimizer.name": "adamw",
            }  # fmt: skip
            assert attempt.main(load_config("tiny", None, settings), order, folder / "runs", "never", ["train"]) == 0
    return {order: read_log(folder / "runs" / order) for order in ("sequential", "buffer", "lanes")}


def amplitude(log: Log, period_tokens: float) -> float:
    done = study(log)
    assert isinstance(done, Study)
    return fit_line(done.y, done.grid.weight, done.grid.spacing / period_tokens).amplitude


def test_a_planted_cycle_is_found_damped_and_gone(logs: dict[str, Log]) -> None:
    layout = logs["sequential"].layout
    true = layout.file_tokens / CYCLES
    found = analyse(logs["sequential"])
    assert found.significant and found.period_tokens == pytest.approx(true, rel=0.02)
    assert found.part_of_file == CYCLES and "structure inside the file" in found.verdict
    left = amplitude(logs["buffer"], true) / amplitude(logs["sequential"], true)
    assert left == pytest.approx(buffer_factor(BUFFER, true / layout.document_tokens), rel=0.25)
    assert analyse(logs["lanes"]).p_value > 0.05
    assert amplitude(logs["lanes"], true) < 0.15 * amplitude(logs["sequential"], true)
