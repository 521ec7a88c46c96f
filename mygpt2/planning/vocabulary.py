"""The number of ids of a tokenizer, without loading it."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

GPT2_IDS, SMALLEST = 50257, 257  # as in tokenizer.gpt2, which takes longer to import
LARGEST_FILE = 256 << 20  # bytes; as in tokenizer.bpe


def vocabulary_size(spec: str) -> int | None:
    """Ids of `data.tokenizer`: gpt2, gpt2:N, or a tokenizer.json or its folder. None where that cannot be told.

    Whether the tokenizer can be used is for `mygpt2.tokenizer` to say; this is quick enough for every key press.
    """
    if spec == "gpt2":
        return GPT2_IDS
    if spec.startswith("gpt2:"):
        size = spec.removeprefix("gpt2:")
        known = size.isascii() and size.isdecimal() and len(size) < 10 and SMALLEST <= int(size) <= GPT2_IDS
        return int(size) if known else None
    path = Path(os.path.expanduser(spec))
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        return _ids_in(str(path), path.stat().st_mtime_ns)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None


@lru_cache(maxsize=64)
def _ids_in(path: str, changed: int) -> int | None:
    """One more than the largest id of a tokenizer.json, read once per state of the file."""
    try:
        if not Path(path).is_file() or Path(path).stat().st_size > LARGEST_FILE:  # a pipe would be waited for
            return None
        content = json.loads(Path(path).read_bytes())
        ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content.get("added_tokens") or ())]
        return max(int(i) for i in ids) + 1
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
