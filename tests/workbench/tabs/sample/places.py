"""Models small enough to sample from in no time: a run with a checkpoint, and Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mygpt2.model import GPT, GPTConfig
from mygpt2.tokenizer import load_tokenizer
from mygpt2.tokenizer.folder import write_tokenizer
from tests.exchange.folders import SHAPE, randomised, saved_run, write_folder

REQUEST: dict[str, Any] = {
    "max_new_tokens": 12, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
    "seed": 5, "stop": [],
}  # fmt: skip


def folder_model(folder: Path, vocabulary: int = 300, seed: int = 3, block_size: int = 48) -> Path:
    """A random GPT-2 in Hugging Face's format, with the first `vocabulary` ids of GPT-2's tokenizer."""
    shape = SHAPE | {"block_size": block_size}
    write_folder(folder, randomised(GPT(GPTConfig(**shape, vocab_size=vocabulary)), seed))
    write_tokenizer(load_tokenizer(f"gpt2:{vocabulary}"), folder, block_size)
    return folder


def small_place(tmp: Path) -> tuple[Path, Path]:
    """runs/ with `first` (step 5) and data/ with the models `other` (its tokenizer) and `wide` (another one)."""
    runs, data = tmp / "runs", tmp / "data"
    runs.mkdir()
    data.mkdir()
    run, _, _ = saved_run(runs, "first")
    run.status_file.write_text(json.dumps({"state": "finished"}))
    folder_model(data / "other")
    folder_model(data / "wide", vocabulary=600, seed=9)
    return runs, data
