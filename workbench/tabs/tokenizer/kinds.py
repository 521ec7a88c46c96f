"""How well tokenizers compress several kinds of text, beside GPT-2: what `tokenizer compare` prints, as a table."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import closing

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.errors import UserError
from mygpt2.machine import cache_folder
from mygpt2.tokenizer import Tokenizer
from mygpt2.tokenizer.training.compare import Row, compare, kinds
from mygpt2.tokenizer.training.corpus import Budget, Read, documents
from mygpt2.verbs.tokenizer import PROSE_BYTES
from workbench import html

MOST_TOKENIZERS = 6
MOST_BLOCKS = 512  # read in search of a megabyte of held-out prose
MODULES = (argparse, json.decoder, threading)  # the verb's choice: Python code that is everywhere


def chosen(specs: list[str]) -> list[str]:
    """GPT-2 first, each once. UserError when there are too many."""
    names = ["gpt2", *(name for name in dict.fromkeys(specs) if name != "gpt2")]
    if len(names) > MOST_TOKENIZERS + 1:
        raise UserError(f"{len(names) - 1} tokenizers are chosen; at most {MOST_TOKENIZERS} beside GPT-2")
    return names


def held_out_prose(source: str, text_column: str = "text") -> Iterator[tuple[str, list[str]]]:
    """(what is being done, texts found so far): documents of a source that no tokenizer was learnt from.

    Ends with a megabyte, or after MOST_BLOCKS blocks.
    """
    yield f"resolving {source}", []
    data = DataConfig(source=source, text_column=text_column or "text", outage_minutes=0.5)
    caches = cache_folder()
    manifest = resolve(source, data, cache_dir=caches)
    read = Read()
    texts: list[str] = []
    with closing(open_reader(manifest, cache_dir=caches, eot_id=0)) as reader:
        for batch in documents(manifest, reader, data, Budget(bytes=PROSE_BYTES), 0, read, validation=True):
            texts += batch
            yield f"{read.bytes:,} bytes of held-out prose from {read.blocks} of {len(manifest)} blocks", texts
            if read.blocks >= MOST_BLOCKS:
                return


def texts(prose: list[str]) -> dict[str, list[str]]:
    """Texts by kind; without prose only those that every machine has."""
    return kinds(prose, MODULES)


def compared(tokenizers: list[Tokenizer], texts: dict[str, list[str]]) -> list[Row]:
    return compare(tokenizers, texts)


def table(names: list[str], tokenizers: list[Tokenizer], rows: list[Row]) -> html.Markup:
    """Bytes per token with a bar each; in brackets how many fewer tokens than GPT-2 takes for the same text."""
    most = max((row.bytes / tokens for row in rows for tokens in row.tokens), default=1.0)
    sizes = [f"{n} ({t.vocab_size:,} ids)" for n, t in zip(names, tokenizers, strict=True)]
    lines = [[_kind(row), *_cells(row, most)] for row in rows]
    found = html.table(
        ["kind of text", *sizes], lines, range(1, len(sizes) + 1), "more is better; in brackets against GPT-2"
    )
    return html.Markup(f'<div class="wb-kinds">{found}</div>')


def _kind(row: Row) -> html.Markup:
    return html.Markup(f"{html.escape(row.kind)}<small>{row.bytes:,} bytes</small>")


def _cells(row: Row, most: float) -> list[html.Markup]:
    base = row.tokens[0]
    return [_cell(row.bytes, tokens, base if n else 0, most) for n, tokens in enumerate(row.tokens)]


def _cell(size: int, tokens: int, base: int, most: float) -> html.Markup:
    """`base`: tokens of GPT-2, 0 in its own column; `most`: bytes per token of the longest bar."""
    gain = base / tokens - 1 if base else 0.0
    kind = "wb-good" if gain > 0.005 else "wb-bad" if gain < -0.005 else "wb-muted"
    against = f' <span class="{kind}">({gain:+.1%})</span>' if base else ""
    bar = f'<i class="wb-bpt{" wb-bpt-own" if base else ""}" style="width:{100 * size / tokens / most:.1f}%"></i>'
    return html.Markup(f"{size / tokens:.2f}{against}{bar}")
