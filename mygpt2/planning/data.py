"""Tokens in a run's source, as far as they can be told without reading it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mygpt2.config.schema import RunConfig
from mygpt2.config.summary import GPT2_IDS
from mygpt2.data.sources.hub.names import FINEWEB_EDU, parse_name
from mygpt2.errors import UserError
from mygpt2.planning.speed import Observed

# Tokens of GPT-2's tokenizer by configuration, as the dataset's card gives them (huggingface.co/datasets/
# HuggingFaceFW/fineweb-edu, "What is it?" and "How to use").
QUOTED = {"sample-10BT": 10e9, "sample-100BT": 100e9, "sample-350BT": 350e9, "default": 1.3e12}

# Bytes per token by vocabulary, measured on 1.9 MB of the built-in corpus with GPT-2's merges cut short.
BYTES_PER_TOKEN = {
    512: 1.82, 1024: 2.17, 2048: 2.48, 4096: 2.75, 8192: 3.10, 16384: 3.41, 32768: 3.67, 50257: 3.81,
}  # fmt: skip
ENOUGH_OF_A_PASS = 0.05  # below that share a run's count of epochs says too little about the whole
MOST_ENTRIES = 5_000  # a folder with more is not worth the wait: somebody may be typing its name
TEXT = (
    "source", "mix", "tokenizer", "validation_fraction", "text_column", "min_score", "score_column", "language",
    "language_column",
)  # fmt: skip
KNOWN = (".parquet", ".jsonl", ".txt", ".bin", ".gz", ".zst")


@dataclass(frozen=True)
class SourceSize:
    """Tokens of one pass over the training documents; None where unknown. `basis` says how it is known."""

    tokens: float | None
    basis: str


def source_size(config: RunConfig, vocab_size: int, observed: Sequence[Observed], cache: Path) -> SourceSize:
    """From earlier runs on the same text, else the dataset's card, else the size of local files."""
    seen = _from_runs(config, observed)
    if seen is not None:
        return seen
    source, training = config.data.source, 1 - config.data.validation_fraction
    held = f", less {config.data.validation_fraction:.3g} held out" if config.data.validation_fraction else ""
    held += ", before what its filters leave out" if config.data.filtered else ""
    if source == "pydocs":
        return _from_pydocs(cache, vocab_size, training, held)
    path = Path(os.path.expanduser(source))
    if path.exists():
        return _from_files(path, config.data.text_column, vocab_size, training, held)
    return _from_card(source, config.data.tokenizer, vocab_size, training, held)


def bytes_per_token(vocab_size: int) -> float:
    """Of English prose, between the measured vocabularies by the logarithm of their size."""
    sizes = sorted(BYTES_PER_TOKEN)
    if vocab_size <= sizes[0] or vocab_size >= sizes[-1]:
        return BYTES_PER_TOKEN[sizes[0] if vocab_size <= sizes[0] else sizes[-1]]
    above = next(i for i, size in enumerate(sizes) if size >= vocab_size)
    low, high = sizes[above - 1], sizes[above]
    share = math.log(vocab_size / low) / math.log(high / low)
    return BYTES_PER_TOKEN[low] + share * (BYTES_PER_TOKEN[high] - BYTES_PER_TOKEN[low])


def _from_runs(config: RunConfig, observed: Sequence[Observed]) -> SourceSize | None:
    """What the run with the largest share of a pass counted: tokens trained on by epochs behind it."""
    d = config.data
    same = [
        o for o in observed
        if all(getattr(o.config.data, name) == getattr(d, name) for name in TEXT) and o.epochs >= ENOUGH_OF_A_PASS
    ]  # fmt: skip
    if not same:
        return None
    best = max(same, key=lambda o: o.epochs)
    return SourceSize(
        best.tokens / best.epochs, f"from run {best.run}: {best.tokens:,} tokens in {best.epochs:.3g} passes"
    )


def _from_card(source: str, tokenizer: str, vocab_size: int, training: float, held: str) -> SourceSize:
    try:
        name = parse_name(source)
    except UserError:
        return SourceSize(None, "unknown: the source is not on this machine")
    quoted = QUOTED.get(name.config or "default") if name.repo == FINEWEB_EDU else None
    if quoted is None:
        return SourceSize(None, "unknown until the source is read")
    basis = f"quoted: the card of {FINEWEB_EDU} gives about {quoted:,.0f} tokens of GPT-2's tokenizer{held}"
    if tokenizer != "gpt2":
        quoted *= bytes_per_token(GPT2_IDS) / bytes_per_token(vocab_size)
        basis += f", more with {vocab_size:,} ids"
    return SourceSize(quoted * training, basis)


def _from_pydocs(cache: Path, vocab_size: int, training: float, held: str) -> SourceSize:
    """The newest harvest's own count of characters."""
    made = sorted(cache.glob("pydocs/*/made.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in made:
        try:
            characters = int(json.loads(path.read_bytes())["characters"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
        per_token = bytes_per_token(vocab_size)
        basis = f"derived: {characters:,} characters at {per_token:.3g} per token{held}"
        return SourceSize(training * characters / per_token, basis)
    return SourceSize(None, "unknown until the built-in corpus is made, at the first run")


def _from_files(path: Path, column: str, vocab_size: int, training: float, held: str) -> SourceSize:
    try:
        files = _list_files(path)
    except OSError as error:
        return SourceSize(None, f"unknown: {error.strerror or error}")
    endings = {Path(name).suffix for name, _, _ in files}
    if len(endings) != 1:
        return SourceSize(None, "unknown until the source is read")
    ending, size = endings.pop(), sum(size for _, size, _ in files)
    if ending == ".bin":
        return SourceSize(training * size / 2, f"derived: {size:,} bytes at 2 per token{held}")
    if ending == ".parquet":
        size = sum(_column_bytes(name, stamp, column) for name, _, stamp in files)
    if ending not in (".parquet", ".jsonl", ".txt") or not size:
        return SourceSize(None, "unknown until the source is read")
    per_token = bytes_per_token(vocab_size)
    what = f"bytes of column {column}" if ending == ".parquet" else "bytes"
    return SourceSize(training * size / per_token, f"derived: {size:,} {what} at {per_token:.3g} per token{held}")


def _list_files(path: Path) -> list[tuple[str, int, int]]:
    """(path, bytes, time of change) of a file or of a folder's visible files; nothing for a folder too large."""
    if path.is_file():
        status = path.stat()
        return [(str(path), status.st_size, status.st_mtime_ns)]
    found, entries = [], 0
    for folder, folders, names in os.walk(path):
        entries += len(folders) + len(names)
        if entries > MOST_ENTRIES:
            return []
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in names:
            if Path(name).suffix in KNOWN and not name.startswith((".", "_")):
                status = os.stat(os.path.join(folder, name))
                found.append((os.path.join(folder, name), status.st_size, status.st_mtime_ns))
    return found


@lru_cache(maxsize=4096)
def _column_bytes(path: str, changed: int, column: str) -> int:
    """Uncompressed bytes of a column from a parquet file's footer, read once per state of the file; 0 if unreadable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return 0
    index = footer.schema.names.index(column) if column in footer.schema.names else None
    if index is None:
        return 0
    return sum(footer.row_group(i).column(index).total_uncompressed_size for i in range(footer.num_row_groups))
