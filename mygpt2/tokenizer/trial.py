"""A tokenizer.json is a program of sorts: patterns may take exponential time, normalizers may grow a text without end,
and the library that runs them can panic. One whose parts are all known to be harmless is loaded as it is; any other
first encodes hard texts in a process of its own, within limits of time and memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from mygpt2.errors import UserError
from mygpt2.tokenizer.fast import PROBES
from mygpt2.tokenizer.patterns import PATTERNS, SHARED

SECONDS = 10  # of processor time, for some hundred kilobytes of text: the library does megabytes in a second
MEMORY = 2 << 30  # bytes of address space; the library with a vocabulary of 250,000 takes a fifth
GROWTH = 64  # tokens for a character
HARMLESS_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "Strip", "StripAccents", "BertNormalizer",
                        "Precompiled", "Prepend"}  # fmt: skip
HARD = ("a" * 20_000 + "!", "ab" * 10_000 + "\n", " " * 20_000 + ".", "\n" * 5_000 + "x", "1" * 20_000 + "a",
        "a b c d e f g " * 2_000, "é" * 5_000, "你好" * 5_000, "'s" * 5_000, "_" * 20_000)  # fmt: skip
_CHILD = """
import json, resource, sys
limits = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"]))
resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import tokenizers
given = json.load(sys.stdin)
tokenizer = tokenizers.Tokenizer.from_str(given["content"])
most = max(len(tokenizer.encode(text, add_special_tokens=False).ids) / max(len(text), 16) for text in given["texts"])
print(most)
"""


def is_harmless(content: dict[str, Any]) -> bool:
    """Whether every part is one that takes time and memory in proportion to the text."""
    return all(_normalizer_is_harmless(part) for part in _parts(content.get("normalizer"), "normalizers")) and all(
        _cut_is_harmless(part) for part in _parts(content.get("pre_tokenizer"), "pretokenizers")
    )


def _parts(part: Any, inside: str) -> list[dict[str, Any]]:
    """The components of a part that may be a sequence; one more that is nothing known for each odd one."""
    if part is None:
        return []
    if not isinstance(part, dict):
        return [{"type": "odd"}]
    if part.get("type") == "Sequence" and isinstance(part.get(inside), list):
        found = [piece for item in part[inside][:16] for piece in _parts(item, inside)]
        return [*found, {"type": "odd"}] if len(part[inside]) > 16 else found
    return [part]


def _normalizer_is_harmless(part: dict[str, Any]) -> bool:
    if part.get("type") == "Replace":
        pattern = part.get("pattern")
        old = pattern.get("String") if isinstance(pattern, dict) else None
        return isinstance(old, str) and isinstance(part.get("content"), str) and len(part["content"]) <= len(old)
    if part.get("type") == "Prepend":
        return len(str(part.get("prepend"))) <= 8
    return part.get("type") in HARMLESS_NORMALIZERS


def _cut_is_harmless(part: dict[str, Any]) -> bool:
    if part.get("type") == "Split":
        pattern = part.get("pattern")
        pattern = pattern if isinstance(pattern, dict) else {}
        return isinstance(pattern.get("String"), str) or pattern.get("Regex") in SHARED | set(PATTERNS.values())
    return part.get("type") in {"ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Digits",
                                "Punctuation", "UnicodeScripts", "CharDelimiterSplit"}  # fmt: skip


def try_out(text: str, name: str) -> None:
    """UserError when the tokenizer.json `text` does not encode hard texts within the limits."""
    texts = [*PROBES[:6], *HARD]  # without lone surrogates, which JSON in a pipe does not carry
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD, json.dumps({"seconds": SECONDS, "memory": MEMORY})],
            input=json.dumps({"content": text, "texts": texts}).encode(),
            capture_output=True, timeout=6 * SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _refused(name, f"it did not encode them in {6 * SECONDS} s") from None
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    if ended.returncode < 0:
        raise _refused(name, f"it took more than {SECONDS} s or {MEMORY >> 30} GB and was ended")
    if ended.returncode:
        raise _refused(name, said[-1][:200] if said else f"exit code {ended.returncode}")
    if float(ended.stdout) > GROWTH:
        raise _refused(name, f"it makes {float(ended.stdout):.0f} tokens of a character")


def _refused(name: str, why: str) -> UserError:
    return UserError(
        f"tokenizer {name} was tried on {len(HARD)} hard texts and cannot be used: {why}; "
        "its patterns or normalizers are damaged or hostile, give another tokenizer.json"
    )
