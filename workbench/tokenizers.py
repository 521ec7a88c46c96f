"""Which tokenizer is meant, and tokenizers that stay loaded between two clicks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer, load_tokenizer
from workbench.context import Context

KEPT = 8
MOST_BYTES = 64_000_000  # of a tokenizer.json; GPT-4's has 9 MB


def tokenizer_of(context: Context, text: str) -> str:
    """A tokenizer as `--data.tokenizer` takes it: gpt2, gpt2:N, or a tokenizer.json or its folder inside the roots."""
    text = str(text or "").strip()
    if not text:
        raise UserError("no tokenizer is chosen; give gpt2, gpt2:N, or a tokenizer.json or its folder")
    if text == "gpt2" or text.startswith("gpt2:"):
        return text
    path = context.path(text, "tokenizer")
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"tokenizer {text!r}: {file} is not there; give gpt2, gpt2:N, or a tokenizer.json or its folder"
        )
    context.path(str(file), "tokenizer")  # the file itself may be a link to elsewhere
    if file.stat().st_size > MOST_BYTES:
        raise UserError(f"tokenizer {text!r} has more than {MOST_BYTES:,} bytes; give a tokenizer.json")
    return str(path)


class Tokenizers:
    """Loaded tokenizers, the last few of them; a file that changed is loaded anew. Usable from any thread."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[str, int, int], Tokenizer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, spec: str) -> Tokenizer:
        """The tokenizer of a name that `tokenizer_of` has allowed."""
        key = _identity(spec)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_tokenizer(spec)
                while len(self._loaded) > KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]


def _identity(spec: str) -> tuple[str, int, int]:
    path = Path(spec)
    file = path / "tokenizer.json" if path.is_dir() else path
    if spec.startswith("gpt2") or not file.is_file():
        return spec, 0, 0
    status = file.stat()
    return spec, status.st_size, status.st_mtime_ns
