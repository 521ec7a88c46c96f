"""The number of ids of a tokenizer, without loading it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

GPT2_IDS = 50257


def vocabulary_size(spec: str) -> int | None:
    """Ids of `data.tokenizer`: gpt2, gpt2:N, or a tokenizer.json or its folder. None where that cannot be told.

    Whether the tokenizer can be used is for `mygpt2.tokenizer` to say; this is quick enough for every key press.
    """
    if spec == "gpt2":
        return GPT2_IDS
    if spec.startswith("gpt2:"):
        size = spec.removeprefix("gpt2:")
        return int(size) if size.isascii() and size.isdecimal() and 257 <= int(size[:9]) <= GPT2_IDS else None
    path = Path(spec).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        return _ids_in(str(path), path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _ids_in(path: str, changed: int) -> int | None:
    """One more than the largest id of a tokenizer.json, read once per state of the file."""
    try:
        content = json.loads(Path(path).read_bytes())
        ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content.get("added_tokens") or ())]
        return max(int(i) for i in ids) + 1
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
