"""A tokenizer as the files that transformers reads, and back: the exact ids either way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer, load_tokenizer
from mygpt2.tokenizer.base import printable_bytes, special_token
from mygpt2.tokenizer.gpt2 import FULL_SIZE, SMALLEST, GPT2Tokenizer, read_merges

JSON, SETTINGS, VOCABULARY, MERGES = "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"
END = "<|endoftext|>"
PADDED = -(-FULL_SIZE // 64) * 64  # rows of GPT-2's matrix where it is rounded up for speed, as nanoGPT's is


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """tokenizer.json and tokenizer_config.json; for GPT-2's own tables also vocab.json and merges.txt.

    Another tokenizer's file is copied as it is. `context` is the model's, in tokens.
    """
    if isinstance(tokenizer, GPT2Tokenizer):
        content, end, kind = json.loads(tokenizer.hf_json()), END, "GPT2Tokenizer"
        vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
        vocabulary[END] = tokenizer.eot_id
        content["added_tokens"] = [special_token(tokenizer.eot_id, END)]
        _write(folder / JSON, json.dumps(content, ensure_ascii=False))
        _write(folder / VOCABULARY, json.dumps(vocabulary, ensure_ascii=False))
        _write(folder / MERGES, "\n".join(["#version: 0.2", *merges, ""]))
    else:
        source = Path(tokenizer.name)
        (folder / JSON).write_bytes(source.read_bytes())
        spelling = tokenizers.Tokenizer.from_file(str(source)).id_to_token(tokenizer.eot_id)
        end, kind = str(spelling), "PreTrainedTokenizerFast"
    settings = {
        "tokenizer_class": kind,
        "model_max_length": context,
        **{name: end for name in ("bos_token", "eos_token", "unk_token")},
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    _write(folder / SETTINGS, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def tokenizer_of(folder: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a Hugging Face model folder whose model has `vocab_size` ids.

    Files that hold GPT-2's tables, or the first of them, give `gpt2` or `gpt2:N`: the same ids under the same
    fingerprint, and faster. A folder without tokenizer files is believed to use GPT-2's if the size is GPT-2's.
    """
    if (folder / JSON).is_file():
        size = _gpt2_size(_read(folder / JSON))
        return load_tokenizer(str(folder) if size is None else f"gpt2:{size}")
    if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        words = _read(folder / VOCABULARY)
        lines = (folder / MERGES).read_text(encoding="utf-8", errors="replace").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        if _is_gpt2(words, merges):
            return load_tokenizer(f"gpt2:{len(words)}")
        raise UserError(
            f"{folder} has a {VOCABULARY} that is not GPT-2's and no {JSON}; save the tokenizer as {JSON} beside it"
        )
    if FULL_SIZE <= vocab_size <= PADDED:
        return load_tokenizer("gpt2")
    raise UserError(
        f"{folder} has no {JSON}, and its vocabulary of {vocab_size} is not GPT-2's {FULL_SIZE}; "
        f"put the model's {JSON} beside it"
    )


def _gpt2_size(content: dict[str, Any]) -> int | None:
    """The N of gpt2:N if a tokenizer.json is that and nothing else."""
    model, before = content.get("model"), content.get("pre_tokenizer")
    if not isinstance(model, dict) or not isinstance(before, dict):
        return None
    words, merges, added = model.get("vocab"), model.get("merges"), content.get("added_tokens")
    plain = (
        model.get("type") == "BPE"
        and not any(model.get(name) for name in ("dropout", "byte_fallback", "ignore_merges"))
        and content.get("normalizer") is None
        and before.get("type") == "ByteLevel"
        and before.get("add_prefix_space") is False
        and before.get("use_regex", True) is True
    )
    if not plain or not isinstance(words, dict) or not isinstance(merges, list) or not isinstance(added, list):
        return None
    ends = {t.get("content"): t.get("id") for t in added if isinstance(t, dict)}
    if set(ends) != {END}:
        return None
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]
    return len(words | ends) if _is_gpt2(words | ends, pairs) else None


def _is_gpt2(words: dict[str, Any], merges: list[tuple[str, ...]]) -> bool:
    """Whether these are GPT-2's first merges, with the ids GPT-2 gives and end-of-text as the last one."""
    if not SMALLEST <= len(words) <= FULL_SIZE or len(merges) != len(words) - SMALLEST:
        return False
    ours = read_merges()[: len(merges)]
    spellings = [*printable_bytes(), *(first + second for first, second in ours), END]
    return merges == ours and words == {word: i for i, word in enumerate(spellings)}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}); save or download it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is JSON but no object; save or download it again")
    return found


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
