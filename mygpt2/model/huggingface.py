"""Weights of a GPT-2 saved by Hugging Face's transformers, mapped by name. transformers itself is not needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mygpt2.errors import UserError
from mygpt2.model.gpt import GPT, GPTConfig
from mygpt2.model.weights import load_state

# Stored as (in, out), the transpose of nn.Linear's.
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
NOT_PARAMETERS = (".attn.bias", ".attn.masked_bias", "lm_head.weight")  # masks, and the tied matrix again


def is_huggingface(folder: Path) -> bool:
    """Whether a folder holds a model the way transformers saves one."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def load_huggingface(folder: Path) -> GPT:
    """The model of a folder with GPT-2's config.json and model.safetensors; UserError if it is not a GPT-2."""
    config = _config(folder / "config.json")
    try:
        saved = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / 'model.safetensors'} ({error}); download or export it again") from error
    model = GPT(config)
    load_state(model, _renamed(saved))
    return model


def _config(path: Path) -> GPTConfig:
    try:
        saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        architecture = saved.get("model_type"), saved.get("activation_function", "gelu_new")
        layers, heads, width, ids = (int(saved[name]) for name in ("n_layer", "n_head", "n_embd", "vocab_size"))
        positions = int(saved.get("n_positions", saved.get("n_ctx", 1024)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not the config.json of a GPT-2 ({error!r}); give a folder that holds one"
        ) from error
    if architecture != ("gpt2", "gelu_new"):
        raise UserError(
            f"{path} is of model_type {architecture[0]} with {architecture[1]}; only gpt2 with gelu_new fits"
        )
    return GPTConfig(layers, heads, width, positions, ids)


def _renamed(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under this package's names and orientation."""
    tensors = {}
    for name, tensor in saved.items():
        if name.endswith(NOT_PARAMETERS):
            continue
        name = name if name.startswith("transformer.") else f"transformer.{name}"
        tensors[name] = tensor.t() if name.endswith(TRANSPOSED) else tensor
    return tensors
