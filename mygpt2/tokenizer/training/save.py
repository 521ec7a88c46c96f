"""A learnt tokenizer as files: a tokenizer.json that `tokenizers` and `transformers` load, and how it was made.

Ids: 0 .. 255 the bytes in the order of GPT-2's alphabet, then the merges, then `<|endoftext|>`, then further special
tokens. Each file is replaced in one step and tokenizer.json comes last, so where it is, everything is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.files import replace_file
from mygpt2.tokenizer.base import byte_level_json, special_token
from mygpt2.tokenizer.patterns import pre_tokenizer

END_OF_TEXT = "<|endoftext|>"
# Both patterns cut such a token into pieces, behind its last letter at the latest, so no merge can ever spell it.
_SPECIAL = re.compile(r"(?=[!-~]{3,64}$)(<.*[A-Za-z0-9].*>|\[.*[A-Za-z0-9].*\])")


@dataclass(frozen=True)
class Place:
    """Where the files go. In a folder of its own a tokenizer also gets the configuration that `transformers` reads."""

    tokenizer: Path
    report: Path
    config: Path | None

    @classmethod
    def of(cls, out: Path) -> Place:
        """DIR or FILE.json; UserError when something is there already or it cannot be written."""
        if out.suffix == ".json":
            place = cls(out, out.with_suffix(".report.json"), None)
        else:
            place = cls(out / "tokenizer.json", out / "tokenizer_report.json", out / "tokenizer_config.json")
            if out.exists() and not out.is_dir():
                raise UserError(f"--out {out} is a file; give a folder or a new name that ends in .json")
        if os.path.lexists(place.tokenizer):
            raise UserError(f"--out {out}: {place.tokenizer} is there already; choose another name or remove it")
        folder = place.tokenizer.parent
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise UserError(f"--out {out} cannot be made: {folder} is not a folder; choose another place")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"--out {out} cannot be written: no permission in {folder}; choose another place")
        return place


def check_specials(specials: Sequence[str]) -> None:
    """UserError for a special token that text could be mistaken for, or that is there anyhow."""
    for number, token in enumerate(specials):
        if token == END_OF_TEXT or token in specials[:number]:
            raise UserError(f"--special {token} is there already; give each further token once")
        if not _SPECIAL.fullmatch(token):
            raise UserError(
                f"--special {token!r} could be a word of the text; allowed: 3 .. 64 visible ASCII characters "
                "in <> or [], as in <|user|>"
            )


def tokenizer_json(merges: Sequence[tuple[str, str]], pattern: str, specials: Sequence[str]) -> dict[str, Any]:
    """The content of tokenizer.json."""
    added = [special_token(256 + len(merges) + n, token) for n, token in enumerate((END_OF_TEXT, *specials))]
    return byte_level_json(merges, pre_tokenizer(pattern), added)


def _config(specials: Sequence[str]) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "additional_special_tokens": list(specials),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }


def save(place: Place, content: dict[str, Any], report: dict[str, Any]) -> None:
    """Write the files; what was written is taken away again when a later one cannot be, or when it is interrupted."""
    specials = [token["content"] for token in content["added_tokens"][1:]]
    files = [(place.report, report), (place.config, _config(specials)), (place.tokenizer, content)]
    made: list[Path] = []
    try:
        _make_folders(place.tokenizer.parent, made)
        for path, value in files:
            if path is not None:
                made.append(path)
                text = json.dumps(value, ensure_ascii=False, indent=1 if path != place.tokenizer else None)
                replace_file(path, text.encode() + b"\n", durable=True)
    except BaseException as error:
        if not place.tokenizer.is_file():
            for path in reversed(made):
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {place.tokenizer}: {error.strerror or error}; choose another --out"
            ) from error
        raise


def _make_folders(folder: Path, made: list[Path]) -> None:
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        made.append(each)
