"""What a configuration amounts to, in words and numbers, and the help text of all its settings. No torch needed."""

from __future__ import annotations

import json
import os
import textwrap
from functools import lru_cache
from pathlib import Path

from mygpt2.config.batch import batch_problem, lanes_problem, plan_batch
from mygpt2.config.fields import Setting, sections, settings, toml_value
from mygpt2.config.schema import ModelConfig, RunConfig

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


def count_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Parameters of a GPT-2 with a tied head: embeddings, L blocks of 12 C^2 weights, norms, and biases if any.

    Per block: c_attn 3 C^2, c_proj C^2, c_fc 4 C^2, c_proj 4 C^2; with biases 9 C more and 4 C in two norms.
    """
    width, blocks = model.n_embd, model.n_layer
    vectors = 13 * width if model.bias else 2 * width
    final_norm = 2 * width if model.bias else width
    return (vocab_size + model.block_size) * width + blocks * (12 * width * width + vectors) + final_norm


def describe(config: RunConfig, vocab_size: int) -> str:
    """Size, length and batch of a run, with the division of the batch for common rank counts."""
    train, model = config.train, config.model
    sequences = train.batch_tokens // model.block_size
    lines = [
        f"parameters  {count_parameters(model, vocab_size):,} ({model.n_layer} layers, {model.n_head} heads, "
        f"{model.n_embd} channels, vocabulary {vocab_size:,})",
        f"length      {train.steps:,} steps x {train.batch_tokens:,} = {train.steps * train.batch_tokens:,} tokens",
        f"batch       {sequences:,} sequences of {model.block_size:,} tokens",
    ]
    for ranks in (1, 2, 4, 8):
        problem = batch_problem(train.batch_tokens, model.block_size, train.micro_batch, ranks)
        problem = problem or lanes_problem(sequences, config.data.lanes, ranks)
        if problem:
            lines.append(f"  {ranks} ranks   {problem}")
            continue
        plan = plan_batch(train.batch_tokens, model.block_size, train.micro_batch, ranks, config.data.lanes)
        lines.append(f"  {ranks} ranks   {ranks} x {plan.accumulation} forward passes x {plan.micro_batch} sequences")
    return "\n".join(lines)


def settings_help() -> str:
    """Every setting with default, range, unit and help, grouped by section: the end of `train --help`."""
    lines = ["settings (--section.key VALUE, or key = value below [section] in a TOML file):"]
    for section, model in sections().items():
        lines += ["", f"[{section}] {(model.__doc__ or '').strip()}"]
        for setting in (s for s in settings().values() if s.section == section):
            lines += _help_lines(setting)
    return "\n".join(lines)


def _help_lines(setting: Setting) -> list[str]:
    default = "none" if setting.default is None else toml_value(setting.default)
    text = f"{setting.help} Default {default}; {setting.allowed}."
    return [
        f"  --{setting.name}",
        *textwrap.wrap(text, 100, initial_indent=" " * 8, subsequent_indent=" " * 8, break_on_hyphens=False),
    ]
