"""A model's parameters as named tensors, the way files hold them: the tied matrix once and no vocabulary padding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mygpt2.errors import UserError
from mygpt2.model.gpt import GPT

_PADDED = "transformer.wte.weight"


def state_for_checkpoint(model: GPT) -> dict[str, Tensor]:
    """Every parameter by name, detached; wte as (vocab_size, C). Views: clone before training on."""
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    tensors[_PADDED] = tensors[_PADDED][: model.config.vocab_size]
    return tensors


def check_state(model: GPT, tensors: Mapping[str, Tensor]) -> None:
    """UserError when a name is missing or unexpected or a shape differs."""
    own = state_for_checkpoint(model)
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {list(tensors[name].shape)}, the model's is {list(p.shape)}"
        for name, p in own.items()
        if name in tensors and tensors[name].shape != p.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"weights do not fit the model: {'; '.join(problems[:3])}{more}; "
            "use the [model] section and tokenizer the weights were trained with"
        )


@torch.no_grad()
def load_state(model: GPT, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the model, converting dtype and device; padded rows become zero.

    What does not fit is refused as by `check_state`, and leaves the model untouched.
    """
    check_state(model, tensors)
    for name, parameter in state_for_checkpoint(model).items():
        parameter.copy_(tensors[name])
    model.wte[model.config.vocab_size :] = 0.0
