"""GPT-2 as Hugging Face's transformers saves it, in both directions, mapped by name. transformers is not needed.

A folder holds config.json and model.safetensors, or shards and model.safetensors.index.json. Matrices of the blocks are
stored as (in, out), the transpose of `nn.Linear`'s. Masks and a second copy of the tied matrix may stand beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mygpt2.errors import UserError
from mygpt2.model.gpt import GPT, GPTConfig, check_state, load_state, state_for_checkpoint

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREFIX = "transformer."
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
LAYER = re.compile(r"transformer\.h\.(\d{1,6})\.")
MASK = re.compile(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias")  # buffers that old files carry
WTE = PREFIX + "wte.weight"
ACTIVATIONS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "erf"}  # transformers' names: our form of GELU
WRAPPERS = ("_orig_mod.", "module.")  # what torch.compile and DistributedDataParallel put before every name
MOST = {"n_layer": 4096, "n_head": 4096, "n_embd": 1 << 18, "vocab_size": 1 << 24, "n_positions": 1 << 24}
"""Sizes beyond which a config.json is damaged, not large: a shape must not take all memory before it is compared."""
FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""What config.json may say otherwise and this network cannot; GPT2Config's defaults."""


def is_huggingface(folder: Path) -> bool:
    """Whether a folder holds a model the way transformers saves one."""
    return (folder / CONFIG).is_file() and ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file())


def load_huggingface(folder: Path) -> GPT:
    """The model of a folder on the CPU, in float32 and evaluation mode; UserError if it is not a GPT-2."""
    config = read_config(folder / CONFIG)
    return build(config, from_huggingface(read_weights(folder), config, folder))


def build(config: GPTConfig, tensors: Mapping[str, Tensor]) -> GPT:
    """A model of these weights, named as here; memory is taken once and nothing is drawn at random."""
    model = GPT(config, device="meta")
    check_state(model, tensors)  # before memory is taken for a shape that may be damaged
    model.to_empty(device="cpu")
    load_state(model, tensors)
    return model.eval()


# Configuration


def read_config(path: Path) -> GPTConfig:
    """The shape that a config.json describes. Dropout is 0: it is a matter of training.

    UserError names everything in it that this network does not have.
    """
    saved = read_object(path)
    if saved.get("model_type") != "gpt2":
        raise UserError(f"{path} is of model_type {saved.get('model_type')!r}; only gpt2 is read")
    sizes: dict[str, Any] = {name: saved.get(name) for name in ("n_layer", "n_head", "n_embd", "vocab_size")}
    sizes["n_positions"] = saved.get("n_positions", saved.get("n_ctx", 1024))
    problems = size_problems(sizes)
    activation = saved.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        problems.append(f"activation_function is {activation!r}, not {' or '.join(ACTIVATIONS)}")
    problems += [
        f"{name} is {saved[name]!r}, not {value!r}" for name, value in FIXED.items() if saved.get(name, value) != value
    ]
    width, inner = sizes["n_embd"], saved.get("n_inner")
    if inner is not None and type(width) is int and inner != 4 * width:
        problems.append(f"n_inner is {inner!r}, not {4 * width}, four times n_embd")
    if problems:
        raise UserError(f"{path} does not describe a GPT-2 of the kind built here: {'; '.join(problems)}")
    return GPTConfig(
        n_layer=sizes["n_layer"], n_head=sizes["n_head"], n_embd=sizes["n_embd"], block_size=sizes["n_positions"],
        vocab_size=sizes["vocab_size"], bias=saved.get("bias") is not False, gelu=ACTIVATIONS[activation],
    )  # fmt: skip


def size_problems(sizes: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers of a shape, in words; `sizes` by the names of MOST."""
    wrong = [name for name, value in sizes.items() if type(value) is not int or not 1 <= value <= MOST[name]]
    return [f"{name} is {str(sizes[name])[:40]}, not a number from 1 to {MOST[name]:,}" for name in wrong]


def config_json(config: GPTConfig, eot_id: int) -> dict[str, Any]:
    """config.json of a model. GPT-2 in transformers always has biases; `bias` says whether they are more than zeros."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": None,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "vocab_size": config.vocab_size,
        "activation_function": next(name for name, form in ACTIVATIONS.items() if form == config.gelu),
        **FIXED,
        "bias": config.bias,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "initializer_range": 0.02,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "use_cache": True,
    }


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or a UserError that says why there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; give the folder of a GPT-2") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); save or download it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is JSON but no object; save or download it again")
    return found


# Weights


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the one file, or else all shards that the index names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    placed = read_object(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in placed.values()}) if isinstance(placed, dict) else []
    if not names:
        raise UserError(f"{folder / INDEX} names no files; save or download it again")
    outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if outside:
        raise UserError(f"{folder / INDEX} names {outside[0]!r}; only safetensors files beside it are read")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing[:3])}, which its index names; download it again")
    return [folder / name for name in names]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder under transformers' names, mapped from disk rather than read."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {path} ({error}); save or download it again") from error
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise UserError(f"{folder} has {twice[0]} in two shards; save or download it again")
        tensors |= found
    return tensors


def from_huggingface(saved: Mapping[str, Tensor], config: GPTConfig, where: Path) -> dict[str, Tensor]:
    """transformers' tensors under this package's names and in its orientation, as views.

    UserError names what is missing, unknown or of another shape, in the words of the file.
    """
    saved = without_copies(_prefixed(unwrapped(saved)), where)
    layers = {int(found[1]) for found in map(LAYER.match, saved) if found}
    if len(layers) < config.n_layer:  # before so many are built to be compared
        raise UserError(
            f"the weights of {where} have {len(layers)} layers and its {CONFIG} says {config.n_layer}; "
            "save or download both together"
        )
    wanted = {name: _shape(name, p) for name, p in _with_bias(config).items()}
    problems = [f"missing {name}" for name in wanted if name not in saved]
    problems += [f"unknown {name}" for name in saved if name not in wanted]
    for name in wanted.keys() & saved.keys():
        tensor = saved[name]
        if list(tensor.shape) != wanted[name]:
            problems.append(f"{name} is {list(tensor.shape)}, {CONFIG} makes it {wanted[name]}")
        elif not tensor.is_floating_point():
            problems.append(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, not a floating-point type")
        elif not config.bias and name.endswith(".bias") and tensor.any():
            problems.append(f"{name} is not zero, {CONFIG} says bias is false")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"the weights of {where} are not the GPT-2 of its {CONFIG}: {'; '.join(sorted(problems)[:3])}{more}; "
            "save or download both together"
        )
    keep = saved if config.bias else {name: t for name, t in saved.items() if not name.endswith(".bias")}
    return {name: t.t() if name.endswith(TRANSPOSED) else t for name, t in keep.items()}


def to_huggingface(model: GPT) -> dict[str, Tensor]:
    """transformers' tensors of a model: the tied matrix once, no vocabulary padding. Views, but for biases it lacks."""
    own = state_for_checkpoint(model)
    return {
        name: (own[name].t() if name.endswith(TRANSPOSED) else own[name])
        if name in own
        else torch.zeros(shape.shape, dtype=model.wte.dtype)
        for name, shape in _with_bias(model.config).items()
    }


def without_copies(saved: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """The tensors that are parameters: without masks, and without an output matrix that is wte over again.

    Of two names of one tensor safetensors' save_model keeps one, which may be lm_head.weight: it is then wte.
    """
    head, wte = saved.get("lm_head.weight"), saved.get(WTE)
    if head is not None and wte is None:
        saved = {**saved, WTE: head}
    if head is not None and wte is not None and not torch.equal(head, wte):
        raise UserError(f"{where} has an lm_head.weight of its own; only models that tie it to wte are read")
    return {name: t for name, t in saved.items() if not MASK.fullmatch(name) and name != "lm_head.weight"}


def unwrapped(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names they have without `_orig_mod.` and `module.` before them."""
    tensors = {}
    for name, tensor in saved.items():
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        tensors[name] = tensor
    return tensors


def _prefixed(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name if name.startswith((PREFIX, "lm_head.")) else PREFIX + name: t for name, t in saved.items()}


def _with_bias(config: GPTConfig) -> dict[str, Tensor]:
    """Shapes of all parameters that transformers has for a configuration, as tensors without memory."""
    full = GPTConfig(
        n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd, block_size=config.block_size,
        vocab_size=config.vocab_size,
    )  # fmt: skip
    return state_for_checkpoint(GPT(full, device="meta"))


def _shape(name: str, parameter: Tensor) -> list[int]:
    shape = list(parameter.shape)
    return shape[::-1] if name.endswith(TRANSPOSED) else shape
