"""How long evaluations will take, told before they begin: from what runs needed for their own validation here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.evals.protocols import PROTOCOLS
from workbench.context import GPT2_NAMES, Context
from workbench.evaluations.results import Result
from workbench.models import resolve

START_SECONDS = 8.0  # a process that imports PyTorch and loads a model
BYTES_PER_TOKEN = 4.0  # of English in GPT-2's tokens
DOCUMENT_TOKENS = 1030  # of FineWeb-Edu
GPT2_BYTES = dict(zip(GPT2_NAMES, (4 * 124e6, 4 * 355e6, 4 * 774e6, 4 * 1558e6), strict=True))


def seconds(context: Context, models: Sequence[Any], protocol: str, own: Sequence[Result]) -> float | None:
    """One model after the other on one text. None where the text's length or this machine's speed is not known.

    A forward pass takes time with tokens times weights; the weights are told by the size of their file.
    """
    tokens, speed = _tokens(context, protocol, own), _speed(context, own)
    sizes = [_weights(context, str(model)) for model in models]
    if not tokens or not speed or not sizes or None in sizes:
        return None
    return sum(START_SECONDS + tokens * (size or 0.0) / speed for size in sizes)


def _tokens(context: Context, protocol: str, own: Sequence[Result]) -> float | None:
    if protocol in PROTOCOLS:
        found = PROTOCOLS[protocol]
        return found.targets or (found.documents or 0) * DOCUMENT_TOKENS
    if protocol.startswith("run:"):
        name = protocol.removeprefix("run:")
        return next((r.loss.tokens for r in own if r.loss and r.model.partition("/")[0] == name), None)
    try:
        path = context.path(protocol, "text")
        return path.stat().st_size / BYTES_PER_TOKEN if path.is_file() else None
    except (UserError, OSError):
        return None


def _speed(context: Context, own: Sequence[Result]) -> float | None:
    """Tokens times bytes of weights a second, of the newest validation whose weights are still there."""
    for result in sorted(own, key=lambda r: -r.time):
        took = result.raw.get("seconds")
        size = _weights(context, result.model.partition("/")[0]) if result.step is not None else None
        if size and result.loss and isinstance(took, int | float) and took > 0:
            return result.loss.tokens * size / float(took)
    return None


def _weights(context: Context, model: str) -> float | None:
    """Bytes of a model's weights."""
    name = model.removeprefix("openai-community/")
    if name in GPT2_BYTES:
        return GPT2_BYTES[name]
    try:
        files = Path(resolve(context, model)).glob("model*.safetensors")
        return float(sum(file.stat().st_size for file in files)) or None
    except (UserError, OSError):
        return None
