"""Models to import: random GPT-2s made by transformers, and a GPT-2 that needs no transformers to write down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mygpt2 import checkpoint
from mygpt2.config import RunConfig
from mygpt2.exchange.huggingface import config_json, to_huggingface
from mygpt2.model import GPT, GPTConfig, state_for_checkpoint
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer import load_tokenizer

SHAPE: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 48}


def transformers() -> Any:
    """The library, silenced; the test is skipped where it is not installed."""
    library = pytest.importorskip("transformers", reason="transformers, the reference, is not installed")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return library


def reference(seed: int = 0, **changes: Any) -> Any:
    """A GPT-2 of transformers, in evaluation mode, with every bias and norm away from its first value."""
    library = transformers()
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 48, "vocab_size": 300} | changes
    torch.manual_seed(seed)
    model = library.GPT2LMHeadModel(library.GPT2Config(bos_token_id=0, eos_token_id=0, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def write_folder(folder: Path, model: GPT, tensors: dict[str, Tensor] | None = None, **config: Any) -> Path:
    """A Hugging Face folder without a tokenizer; `tensors` and `config` replace or add, None in them removes."""
    folder.mkdir(exist_ok=True)
    entries = {**to_huggingface(model), **(tensors or {})}
    save_file({k: t.clone().contiguous() for k, t in entries.items() if t is not None}, folder / "model.safetensors")
    settings = config_json(model.config, 0) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return folder


def saved_run(runs: Path, name: str = "first", spec: str = "gpt2:300", **model: Any) -> tuple[RunDir, GPT, Path]:
    """A run with one checkpoint, at step 5, written the way a trainer writes it."""
    run, tokenizer = RunDir.create(runs, name), load_tokenizer(spec)
    config = RunConfig.model_validate({"model": SHAPE | model, "data": {"tokenizer": spec}})
    network = randomised(GPT(GPTConfig(**{**SHAPE, **model}, vocab_size=tokenizer.vocab_size)))
    state = {
        "tokens": 1280,
        "config": config.model_dump(mode="json"),
        "tokenizer": {"spec": spec, "fingerprint": tokenizer.fingerprint},
    }
    run.config_file.write_text("")
    return run, network, checkpoint.write(run.checkpoints_dir, 5, state_for_checkpoint(network), {}, state)


def randomised(model: GPT, seed: int = 7) -> GPT:
    """The same model with every parameter moved, biases and norms included; padded rows stay zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in state_for_checkpoint(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def same_weights(one: GPT, two: GPT) -> bool:
    a, b = state_for_checkpoint(one), state_for_checkpoint(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
