"""A model as one GGUF file for llama.cpp and Ollama, made whole or not at all. The `gguf` package, an extra, writes it.

Names of tensors and keys: the package's own table for the architecture "gpt2". Names of pre-tokenizers: llama.cpp's,
src/llama-vocab.cpp, where "gpt-2" cuts by GPT-2's pattern and "dbrx" by GPT-4's.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mygpt2.checkpoint import FileSystem
from mygpt2.checkpoint.files import scratch_name
from mygpt2.errors import UserError, shown
from mygpt2.exchange.export import OTHER_BYTES, check_room, sweep_beside
from mygpt2.exchange.huggingface import TRANSPOSED, to_huggingface
from mygpt2.exchange.load import Loaded
from mygpt2.tokenizer import Tokenizer
from mygpt2.tokenizer.folder import END
from mygpt2.tokenizer.gpt2 import GPT2Tokenizer
from mygpt2.tokenizer.patterns import GPT2, SHARED, tiktoken_pattern

DTYPES = ("float32", "float16", "bfloat16")
INSTALL = 'python -m pip install "mygpt2[gguf]"'
KEPT_WHOLE = ("position_embd.weight",)  # in float32 as vectors are: llama.cpp adds them and does not multiply by them
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # exFAT, some network shares
# By the pattern: llama.cpp's name for it where whole pieces are merged like any other, and where they are taken whole.
PRE_TOKENIZERS = {GPT2: ("gpt-2", None), **dict.fromkeys(SHARED, ("dbrx", "llama-bpe"))}


@dataclass(frozen=True)
class Vocabulary:
    """`tokens` by id; `control`: ids of special tokens; `merges` as "left right"; `pre`: llama.cpp's split."""

    tokens: list[str]
    control: frozenset[int]
    merges: list[str]
    pre: str


def check_gguf_target(to: Path) -> None:
    """UserError unless the file and its Modelfile can be made, and the package that writes it is there."""
    if to.suffix != ".gguf":
        raise UserError(f"--to-gguf {to}: give the name of a file that ends in .gguf")
    if not to.name.isprintable():
        raise UserError(f"--to-gguf {shown(to)}: a Modelfile cannot name it; give a name without line breaks and tabs")
    for path in (to, modelfile_of(to)):
        if os.path.lexists(path) and not _left_over(path, to):
            raise UserError(f"--to-gguf {to}: {path} is there already and nothing is overwritten; give another name")
    if not to.resolve().parent.is_dir():
        raise UserError(f"--to-gguf {to}: there is no folder {to.resolve().parent}; make it or choose another")
    _package()


def modelfile_of(to: Path) -> Path:
    """model.gguf -> model.Modelfile"""
    return to.with_suffix(".Modelfile")


def export_gguf(loaded: Loaded, to: Path, dtype: str = "float32") -> Path:
    """Writes `to`, matrices in `dtype` (one of DTYPES) and vectors in float32, and an Ollama Modelfile beside it.

    UserError where llama.cpp would read something else than was trained: another GELU, or a tokenizer it cannot follow.
    """
    check_gguf_target(to)
    config = loaded.model.config
    if config.gelu != "tanh":
        raise UserError(
            f"{loaded.name} uses the exact GELU and llama.cpp's gpt2 its tanh form, which gives other logits; export "
            "with --to, which transformers reads exactly"
        )
    words = vocabulary(loaded.tokenizer, config.vocab_size)
    to = to.resolve()
    rest, files = modelfile_of(to), FileSystem()
    check_room(files, "--to-gguf", to, loaded.details["parameters"] * (4 if dtype == "float32" else 2) + OTHER_BYTES)
    scratch, beside = (path.with_name(f".{path.name}{scratch_name('tmp')}") for path in (to, rest))
    made: list[Path] = []  # of the two, so far
    try:
        for path in (to, rest):
            sweep_beside(files, path)
        _write(loaded, words, scratch, dtype)
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        with open(beside, "x", encoding="utf-8", newline="\n") as file:
            file.write(modelfile(to.name, config.block_size, words.tokens[loaded.tokenizer.eot_id]))
        if _left_over(rest, to):
            rest.unlink()
        for aside, path in ((beside, rest), (scratch, to)):
            _place(aside, path)
            made.append(path)
    except OSError as error:
        reason = error.strerror or f"only a part could be written, {error}"
        raise UserError(f"cannot write --to-gguf {to}: {reason}; choose another folder") from error
    finally:
        for path in (scratch, beside, *(made if len(made) == 1 else ())):
            with contextlib.suppress(OSError):
                path.unlink()
    return to


def _left_over(path: Path, to: Path) -> bool:
    """Whether a file is the Modelfile of an export that was killed before its model was there, as it was written."""
    if path != modelfile_of(to) or os.path.lexists(to) or path.is_symlink() or not path.is_file():
        return False
    try:
        found = path.read_text("utf-8")
        context, end = re.findall(r'^PARAMETER num_ctx (\d+)\nPARAMETER stop (".*")\n\Z', found, re.MULTILINE)[0]
        return found == modelfile(to.name, int(context), json.loads(end))
    except (OSError, ValueError, IndexError):
        return False


def _place(aside: Path, path: Path) -> None:
    """Unlike a rename, never over what somebody else has made meanwhile; file systems without links are looked at."""
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in WITHOUT_LINKS or os.path.lexists(path):
            raise
        os.rename(aside, path)


def modelfile(name: str, context: int, end: str) -> str:
    """How Ollama is to run the file: text is continued as it is, without a chat's frame."""
    return (
        f"# ollama create NAME -f {Path(name).with_suffix('.Modelfile')}, then: ollama run NAME\n"
        f"FROM ./{name}\n"
        'TEMPLATE """{{ .Prompt }}"""\n'
        f"PARAMETER num_ctx {context}\n"
        f"PARAMETER stop {json.dumps(end)}\n"
    )


def vocabulary(tokenizer: Tokenizer, rows: int) -> Vocabulary:
    """The tokens of a model with `rows` rows in its matrix; UserError for a tokenizer that llama.cpp cannot follow."""
    if isinstance(tokenizer, GPT2Tokenizer):
        content = json.loads(tokenizer.hf_json())
        content["added_tokens"] = [{"id": tokenizer.eot_id, "content": END, "special": True}]
    else:
        content = json.loads(Path(tokenizer.name).read_text(encoding="utf-8"))
    model, added = content["model"], content.get("added_tokens") or []
    pre = _pre_tokenizer(tokenizer.name, content)
    by_id = {int(id): token for token, id in model["vocab"].items()} | {int(a["id"]): a["content"] for a in added}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    tokens = [by_id.get(id, f"[PAD{id}]") for id in range(rows)]
    control = {int(a["id"]) for a in added if a.get("special")} | {tokenizer.eot_id}
    return Vocabulary(tokens, frozenset(control), merges, pre)


def _pre_tokenizer(name: str, content: dict[str, Any]) -> str:
    model = content["model"]
    wrong = []
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        wrong.append(f"its model is {model.get('type')}{' with byte fallback' if model.get('byte_fallback') else ''}")
    if content.get("normalizer"):
        wrong.append("it changes the text before it cuts it (a normalizer)")
    names = PRE_TOKENIZERS.get(tiktoken_pattern(content.get("pre_tokenizer")) or "")
    pre = names[bool(model.get("ignore_merges"))] if names else None
    if pre is None and not wrong:
        wrong.append("it cuts text by a pattern that llama.cpp has no name for")
    if wrong or pre is None:
        raise UserError(
            f"llama.cpp cannot follow the tokenizer {name}: {'; '.join(wrong)}; it reads byte-level BPE that cuts by "
            "GPT-2's or GPT-4's pattern. Export with --to, which transformers reads exactly"
        )
    return pre


def _write(loaded: Loaded, words: Vocabulary, path: Path, dtype: str) -> None:
    gguf, config, end = _package(), loaded.model.config, loaded.tokenizer.eot_id
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_name(loaded.name)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(config.vocab_size)
    kinds = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16"}
    writer.add_file_type(gguf.LlamaFileType[kinds[dtype]])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types([_kind(gguf, id, words) for id in range(len(words.tokens))])
    writer.add_token_merges(words.merges)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, tensor in to_huggingface(loaded.model).items():
        told = names.get_name(name, try_suffixes=(".weight", ".bias"))  # no output matrix: it is the embedding's
        _add(gguf, writer, told, tensor.T if name.endswith(TRANSPOSED) else tensor, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _kind(gguf: ModuleType, id: int, words: Vocabulary) -> int:
    if id in words.control:
        return int(gguf.TokenType.CONTROL)
    return int(gguf.TokenType.UNUSED if words.tokens[id] == f"[PAD{id}]" else gguf.TokenType.NORMAL)


def _add(gguf: ModuleType, writer: Any, name: str, tensor: Tensor, dtype: str) -> None:
    values = tensor.detach().to(torch.float32).contiguous().numpy()
    if dtype == "float32" or tensor.dim() == 1 or name in KEPT_WHOLE:
        writer.add_tensor(name, values)
    elif dtype == "float16":
        writer.add_tensor(name, values.astype("float16"))
    else:
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _package() -> ModuleType:
    try:
        importlib.import_module("gguf.quants")
        return importlib.import_module("gguf")
    except ImportError as error:
        raise UserError(f"--to-gguf needs the package gguf, which cannot be imported ({error}); {INSTALL}") from None
