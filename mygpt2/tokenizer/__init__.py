"""Text to ids and back: GPT-2's tokenizer, its truncations, and any Hugging Face tokenizer.json."""

from __future__ import annotations

from functools import lru_cache

from mygpt2.errors import UserError
from mygpt2.machine import home_path
from mygpt2.tokenizer.base import Tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]


def load_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer a configuration names.

    `gpt2`; `gpt2:N`, GPT-2's bytes and first merges with N ids in all; or the path of a tokenizer.json or of a folder
    that holds one. Raises UserError for anything else.
    """
    if spec == "gpt2" or spec.startswith("gpt2:"):
        from mygpt2.tokenizer.gpt2 import FULL_SIZE

        size = spec.removeprefix("gpt2").removeprefix(":")
        if spec != "gpt2" and not (size.isascii() and size.isdecimal() and len(size) < 10):
            raise UserError(
                f"tokenizer {spec!r}: after gpt2: comes a number of ids, 257 .. {FULL_SIZE}, as in gpt2:8192"
            )
        return _gpt2(int(size) if size else FULL_SIZE)
    path = home_path(spec)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"tokenizer {spec!r} is not known and {path} is not a file; "
            "give gpt2, gpt2:N, a tokenizer.json or its folder"
        )
    from mygpt2.tokenizer.huggingface import HFTokenizer

    return HFTokenizer(path)


@lru_cache(maxsize=4)
def _gpt2(size: int) -> Tokenizer:
    """Made once per process: 50,000 merges take a tenth of a second to read, and nothing changes one later."""
    from mygpt2.tokenizer.gpt2 import GPT2Tokenizer

    return GPT2Tokenizer(size)
