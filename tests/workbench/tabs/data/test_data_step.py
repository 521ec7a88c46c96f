"""What was in a step of a run: exactly the batch that was trained on, whatever the source and the order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mygpt2.errors import UserError
from mygpt2.tokenizer import load_tokenizer
from tests.data.corpus import write_jsonl, write_tokens, write_txt
from tests.workbench.tabs.data.data_runs import (
    HOSTILE,
    batches_of,
    context_of,
    document,
    parquet_folder,
    small_config,
    traced_run,
)
from workbench.corpus import show, step
from workbench.corpus.library import Library
from workbench.tokenizers import Tokenizers

STEPS = 8
SOURCES = {
    "parquet": (parquet_folder, {}),
    "jsonl": (lambda folder: write_jsonl(folder, documents=200), {}),
    "txt": (lambda folder: write_txt(folder, paragraphs=3000), {}),
    "tokens": (write_tokens, {"tokenizer": "gpt2:257"}),
    "buffer": (parquet_folder, {"order": "buffer", "buffer_documents": 40}),
    "sequential": (parquet_folder, {"order": "sequential"}),
}


def opened(run, cache):
    return step.traced(run, Library(cache), Tokenizers())


def whole_batch(traced, number):
    """All pages of a step, by slot: (slots, T + 1)."""
    pages = step.rows_of_step(traced, number)[0].pages
    rows = [row for page in range(1, pages + 1) for row in step.rows_of_step(traced, number, page)[2]]
    assert [row.loss for row in rows] == sorted((row.loss for row in rows), reverse=True)
    rows.sort(key=lambda row: row.slot)
    assert [row.slot for row in rows] == list(range(len(rows)))
    return np.stack([row.ids for row in rows])


@pytest.mark.parametrize("kind", SOURCES)
def test_every_row_of_every_step_is_the_loaders_own(kind, tmp_path):
    write, settings = SOURCES[kind]
    config = small_config(write(tmp_path / "data"), **settings)
    traced = opened(traced_run(tmp_path / "runs", "r", config, tmp_path / "cache", STEPS), tmp_path / "cache")
    for number, batch in enumerate(batches_of(config, tmp_path / "cache", STEPS), start=1):
        found = whole_batch(traced, number)
        assert found.tobytes() == batch.tobytes() and found.dtype == batch.dtype


def test_the_batches_of_a_real_run_byte_for_byte(tmp_path):
    source = parquet_folder(tmp_path / "data")
    settings = {
        "model.n_layer": 1, "model.n_head": 1, "model.n_embd": 16, "model.block_size": 32, "train.batch_tokens": 256,
        "train.micro_batch": 4, "train.steps": 4, "data.source": source, "data.tokenizer": "gpt2:300", "data.lanes": 4,
        "sample.interval": 0, "sample.max_new_tokens": 1, "eval.interval": 0, "data.cache_dir": tmp_path / "cache",
        "schedule.warmup_steps": 1, "eval.yardstick": "off", "train.device": "cpu", "data.validation_tokens": 1024,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "mygpt2", "train", "--preset", "tiny", "--run", "real", "--runs", "runs", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300, capture_output=True, env=environment)
    context = context_of(tmp_path)
    traced = opened(context.run("real"), tmp_path / "cache")
    for number, batch in enumerate(batches_of(traced.config, tmp_path / "cache", 4), start=1):
        assert whole_batch(traced, number).tobytes() == batch.tobytes()
    losses = [row.loss for row in step.rows_of_step(traced, 4, 1)[2]]
    metrics = [json.loads(line) for line in context.run("real").metrics_file.read_text().splitlines()]
    assert step.rows_of_step(traced, 4)[1].loss == pytest.approx(metrics[-1]["loss"], abs=1e-3)
    assert all(4 < loss < 8 for loss in losses)
    assert traced.warning == ""


def test_a_row_names_its_documents_and_where_they_begin_and_end(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data"))
    traced = opened(traced_run(tmp_path / "runs", "r", config, tmp_path / "cache"), tmp_path / "cache")
    tokenizer = load_tokenizer("gpt2:300")
    for row in step.rows_of_step(traced, 3)[2]:
        for segment in row.segments:
            file = int(segment.file.removeprefix("part-").removesuffix(".parquet"))
            text = document(file * 180 + segment.part * 30 + segment.document)
            whole = np.array([*tokenizer.encode(text), tokenizer.eot_id])
            assert segment.tokens == len(whole)
            assert (whole[segment.start : segment.start + len(segment.ids)] == segment.ids).all()


def test_only_blocks_of_the_rows_shown_are_read(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data", files=4, groups=20, rows=3), window=8)
    traced = opened(traced_run(tmp_path / "runs", "r", config, tmp_path / "cache"), tmp_path / "cache")
    read = []
    inner = traced.opened._reader.read
    traced.opened._reader.read = lambda block: (read.append(block), inner(block))[1]
    rows = step.rows_of_step(traced, 8, 1, size=1)[2]
    assert len(rows) == 1 and 1 <= len(set(read)) <= len(rows[0].segments)


def test_changed_data_are_said_to_be_changed(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data"))
    run = traced_run(tmp_path / "runs", "r", config, tmp_path / "cache")
    parquet_folder(tmp_path / "data", rows=31)
    with pytest.raises(UserError, match="was changed since the run began"):
        step.rows_of_step(opened(run, tmp_path / "cache"), 1)


def test_another_tokenizer_under_the_same_name_is_noticed(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data"))
    run = traced_run(tmp_path / "runs", "r", config, tmp_path / "cache")
    checkpoint = run.checkpoints_dir / "step-00000008"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text(json.dumps({"data": {"fingerprint": {"tokenizer": "another"}}}))
    assert opened(run, tmp_path / "cache").warning == "not those of the newest checkpoint: tokenizer"


def test_a_run_folder_from_elsewhere_finds_the_same_data_by_name(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data"))
    run = traced_run(tmp_path / "runs", "r", config, tmp_path / "cache")
    manifest = json.loads((run.trace_dir / "manifest.json").read_text())
    for file in manifest["files"]:
        file[3] = "/nowhere" + file[3]
    (run.trace_dir / "manifest.json").write_text(json.dumps(manifest))
    batch = batches_of(config, tmp_path / "cache", 1)[0]
    assert whole_batch(opened(run, tmp_path / "cache"), 1).tobytes() == batch.tobytes()


def test_steps_outside_the_trace_and_runs_without_one_say_so(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data"))
    run = traced_run(tmp_path / "runs", "r", config, tmp_path / "cache")
    with pytest.raises(UserError, match="which holds 1 to 8"):
        step.rows_of_step(opened(run, tmp_path / "cache"), 9)
    for file in run.trace_dir.glob("*.parquet"):
        file.unlink()
    with pytest.raises(UserError, match=r"log\.trace=true"):
        opened(run, tmp_path / "cache")


def test_a_trace_without_offsets_says_what_it_can_tell(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data"))
    run = traced_run(tmp_path / "runs", "r", config, tmp_path / "cache")
    for file in run.trace_dir.glob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns("offset"), file)
    with pytest.raises(UserError, match="traced by an earlier version"):
        step.rows_of_step(opened(run, tmp_path / "cache"), 1)


def test_a_document_that_is_markup_shows_as_text_and_its_ids_stand_beside_it(tmp_path):
    config = small_config(parquet_folder(tmp_path / "data", files=1, groups=4, rows=1))
    traced = opened(traced_run(tmp_path / "runs", "r", config, tmp_path / "cache"), tmp_path / "cache")
    rows = [row for page in (1, 2) for row in step.rows_of_step(traced, 1, page)[2]]
    shown = show.rows(rows, traced.tokenizer, step.batch_of(traced.run, 1).rows())
    assert "<img" not in shown and ("&lt;img" in shown or "onerror" in shown)
    assert " ".join(map(str, rows[0].ids.tolist())) in shown
    assert HOSTILE.startswith("<img")
