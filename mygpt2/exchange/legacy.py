"""Models that lie in a pickle: nanoGPT's checkpoints and transformers' pytorch_model.bin.

Read on request only, by `python -m mygpt2 import`, and never where a model is merely named.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mygpt2.errors import UserError
from mygpt2.exchange.huggingface import (
    CONFIG,
    WTE,
    build,
    from_huggingface,
    read_config,
    size_problems,
    unwrapped,
    without_copies,
)
from mygpt2.model.gpt import GPT, GPTConfig


def load_legacy(path: Path, gelu: str = "erf") -> GPT:
    """The model of a nanoGPT checkpoint, or of a pytorch_model.bin with its config.json beside it.

    A nanoGPT checkpoint does not say which form of GELU it was trained with: `gelu` does; erf is what nanoGPT has had
    since it uses nn.GELU. In float32 on the CPU. UserError for anything else, and for a pickle that holds more than
    tensors and plain values.
    """
    content = _unpickle(path)
    if isinstance(content, Mapping) and {"model", "model_args"} <= content.keys():
        return _nanogpt(content["model"], content["model_args"], path, gelu)
    if not _is_state(content):
        raise UserError(
            f"{path} is neither a nanoGPT checkpoint (with model and model_args) nor a state dict; "
            "give one of those, or a folder with model.safetensors to --model directly"
        )
    if not (path.parent / CONFIG).is_file():
        raise UserError(f"{path} holds weights without their shape; put the model's {CONFIG} beside it")
    config = read_config(path.parent / CONFIG)
    return build(config, from_huggingface(content, config, path))


def _unpickle(path: Path) -> Any:
    """The content of a file that torch.save wrote, provided it is tensors and plain values.

    This is the only torch.load there is. A pickle is a program; `weights_only=True` runs it in an interpreter that
    knows tensors and containers and refuses every other name, so a file cannot call anything.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; give a nanoGPT checkpoint (.pt) or a pytorch_model.bin")
    mapped = zipfile.is_zipfile(path)  # optimizer states are then never read from disk; the older layout cannot do it
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged stream ends in whatever it happens to lead to
        raise UserError(
            f"{path} is refused ({_reason(error)}); only files with tensors and plain values are read: save the "
            "model's state_dict, or convert it to safetensors where you trust it"
        ) from error


def _reason(error: Exception) -> str:
    """The one line of torch's explanation that says what was wrong."""
    text = " ".join(str(error).split())
    _, found, rest = text.partition("WeightsUnpickler error: ")
    reason = (rest if found else text).partition(" Please file an issue")[0].partition(" Please use ")[0]
    return reason.rstrip(". ")[:160] or type(error).__name__


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items())
    )


def _nanogpt(state: Any, settings: Any, path: Path, gelu: str) -> GPT:
    """nanoGPT has OpenAI's names and nn.Linear's orientation, as here."""
    if not _is_state(state) or not isinstance(settings, Mapping):
        raise UserError(f"{path}: model is not a state dict or model_args no table; save it again with nanoGPT")
    sizes: dict[str, Any] = {name: settings.get(name) for name in ("n_layer", "n_head", "n_embd", "vocab_size")}
    problems = size_problems({**sizes, "n_positions": settings.get("block_size")})
    if problems:
        raise UserError(f"{path}: in model_args {'; '.join(problems)} (block_size); save it again with nanoGPT")
    bias = bool(settings.get("bias", True))
    config = GPTConfig(**sizes, block_size=settings["block_size"], bias=bias, gelu=gelu)
    tensors = without_copies(unwrapped(state), path)
    integer = next((name for name, t in tensors.items() if not t.is_floating_point()), None)
    if integer or WTE not in tensors:
        raise UserError(f"{path}: {integer or WTE} is {'not floating point' if integer else 'missing'}; not a GPT-2")
    return build(config, tensors)
