"""The worker's models: loaded when first asked for, the least recently used one forgotten when there are too many."""

from __future__ import annotations

import gc
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mygpt2.exchange.load import load_model
from mygpt2.generate import Engine
from mygpt2.model import GPT
from mygpt2.tokenizer import Tokenizer

KEPT = 3


@dataclass(frozen=True)
class Ready:
    """A model to score with, and engines to sample from it, one for each way to store its matrices."""

    model: GPT
    tokenizer: Tokenizer
    name: str
    details: dict[str, Any]
    engines: dict[str, Engine] = field(default_factory=dict)

    def engine(self, weights: str) -> Engine:
        """An engine over the model's own weights for "fp32", over a copy for "bf16" and "int8"; kept once made."""
        if weights not in self.engines:
            self.engines[weights] = Engine(self.model, self.tokenizer, weights=weights)
        return self.engines[weights]

    @property
    def block_size(self) -> int:
        return self.model.config.block_size


class Models:
    """At most `kept` models on one device."""

    def __init__(self, device: torch.device, kept: int = KEPT) -> None:
        self.device, self._kept = device, kept
        self._ready: OrderedDict[tuple[Any, ...], Ready] = OrderedDict()

    def holds(self, spec: str) -> bool:
        return _identity(spec) in self._ready

    def get(self, spec: str) -> Ready:
        """The model of a path or name as it is now. UserError for one that cannot be loaded."""
        key = _identity(spec)
        if key not in self._ready:
            while len(self._ready) >= self._kept:
                self._ready.popitem(last=False)
            gc.collect()
            loaded = load_model(spec)
            model = loaded.model.to(self.device)
            self._ready[key] = Ready(model, loaded.tokenizer, loaded.name, loaded.details)
        self._ready.move_to_end(key)
        return self._ready[key]

    def forget(self) -> None:
        """Gives all memory back, after it ran out."""
        self._ready.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _identity(spec: str) -> tuple[Any, ...]:
    """A folder goes by its place and the state of its weights: a checkpoint may be replaced by another of its step."""
    folder = Path(spec)
    try:
        files = sorted(folder.glob("*.safetensors")) if folder.is_absolute() else []
        return (spec, *((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files))
    except OSError:
        return (spec,)
