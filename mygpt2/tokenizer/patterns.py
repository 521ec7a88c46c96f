"""How text is cut into pieces before merging, in the spelling of each program that has to do it.

Four programs cut text here: `tokenizers` and gigatoken from a tokenizer.json, tiktoken in training, and the library
that learns merges. They differ in dialect: in the one of `tokenizers`, `{1,3}+` repeats and is not possessive. GPT4 is
spelled such that all of them read it alike and gigatoken recognises it; it is the spelling of GPT-4's and Llama 3's
tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# In tiktoken's spelling, which gives the same pieces faster.
GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PATTERNS = {"gpt4": GPT4, "gpt2": GPT2}

# Spellings in a tokenizer.json of which tiktoken makes the same pieces, tested over all of Unicode. Other patterns may
# mean something else in its dialect ($ and {1,3}+ do) and are left to `tokenizers`.
SHARED = frozenset(
    {
        GPT4,
        GPT4.replace(r"\s*[\r\n]+", r"\s*[\r\n]"),
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
        r"|\s+(?!\S)|\s+",
    }
)

# What ffbpe's hand-written scanners answer to: tiktoken's present spelling of either pattern, any other is slow.
_SCANNERS = {
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    "gpt2": GPT2,
}


def scanner(pattern: str) -> str:
    """The spelling that the learning library has a fast scanner for."""
    return _SCANNERS[pattern]


def for_scanner(pattern: str, text: str) -> Iterator[str]:
    """The text in one or two parts, of which the scanner makes exactly the pieces that the pattern makes of the whole.

    The GPT-4 scanner takes all the white space that ends a text as one piece, the pattern only up to its last newline.
    """
    end = len(text.rstrip())
    newline = max(text.rfind("\n", end), text.rfind("\r", end))
    if pattern == "gpt4" and 0 <= newline < len(text) - 1:
        yield text[: newline + 1]
        yield text[newline + 1 :]
    else:
        yield text


def pre_tokenizer(pattern: str) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json: pieces by the pattern, then bytes as visible characters."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if pattern == "gpt2":
        return {**byte_level, "use_regex": True}  # GPT-2's pattern is built in
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}


def tiktoken_pattern(pre_tokenizer: Any) -> str | None:
    """The pattern with which tiktoken makes the same pieces, or None where that is not known."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True} | {
            "type": "Sequence",
            "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}],
        }:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(spelling)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if spelling in SHARED:
            return spelling
    return None
