"""From an item to rows of tokens: the two ways of asking that people quote, which differ in everything but the idea.

completion   Karpathy's (build-nanogpt, llm.c, modded-nanogpt): the context as it is; " " + ending tokenized apart;
             acc takes the least total nll, acc_norm the least mean nll per token of the ending.
harness      EleutherAI's lm-evaluation-harness (hellaswag, version 1.0): the activity's label before the context,
             bracketed marks of WikiHow removed; context and ending tokenized together and cut at the length of the
             context alone; acc as above, acc_norm divides by the characters of the ending.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mygpt2.errors import UserError
from mygpt2.evals.items import ENDINGS, Item
from mygpt2.evals.protocols import Quoted
from mygpt2.tokenizer import Tokenizer

PROTOCOLS = {"completion": "tokens", "harness": "characters"}
"""The protocols, and what acc_norm divides by in each."""

_SOURCE = "hellaswag.py of karpathy/build-nanogpt"
QUOTED = {
    "completion": {"acc": Quoted(0.2859, "GPT-2 124M", _SOURCE), "acc_norm": Quoted(0.2955, "GPT-2 124M", _SOURCE)},
    "harness": {"acc": Quoted(0.2892, "GPT-2 124M", _SOURCE), "acc_norm": Quoted(0.3114, "GPT-2 124M", _SOURCE)},
}

_MARK = re.compile(r"\[.*?\]")


@dataclass(frozen=True)
class Row:
    """Context and ending; the last `scored` tokens are the ending's. `length` is what acc_norm divides by."""

    ids: np.ndarray
    scored: int
    length: int


def harness_text(text: str) -> str:
    """The harness's clean-up. What it leaves at the ends after removing marks stays, as there."""
    return _MARK.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def harness_query(item: Item) -> str:
    """The harness's context. `capitalize` also lowers the rest of ctx_b, as there."""
    return harness_text(f"{item.activity_label}: {item.ctx_a} {item.ctx_b.capitalize()}")


def rows_of(items: Sequence[Item], protocol: str, tokenizer: Tokenizer, block_size: int) -> list[list[Row]]:
    """Four rows for each item, cut on the left to `block_size` + 1 tokens.

    UserError when an ending alone does not fit the context.
    """
    rows = {"completion": _completion, "harness": _harness}[protocol](items, tokenizer)
    return [[_fitted(row, block_size, number, protocol) for row in four] for number, four in enumerate(rows)]


def _completion(items: Sequence[Item], tokenizer: Tokenizer) -> list[list[Row]]:
    contexts = _contexts([item.ctx for item in items], tokenizer)
    endings = tokenizer.encode_batch([f" {ending}" for item in items for ending in item.endings])
    return [
        [
            Row(np.concatenate([context, ending]), len(ending), len(ending))
            for ending in endings[ENDINGS * i : ENDINGS * (i + 1)]
        ]
        for i, context in enumerate(contexts)
    ]


def _harness(items: Sequence[Item], tokenizer: Tokenizer) -> list[list[Row]]:
    queries = [harness_query(item) for item in items]
    endings = [[harness_text(ending) for ending in item.endings] for item in items]
    stems = [query.rstrip() for query in queries]  # blanks at the end of a context are counted to the ending
    contexts = tokenizer.encode_batch(stems)
    heads = _contexts(stems, tokenizer)
    joint = tokenizer.encode_batch(
        list(chain.from_iterable([f"{q} {e}" for e in four] for q, four in zip(queries, endings, strict=True)))
    )
    found = []
    for i, four in enumerate(endings):
        rests = [ids[len(contexts[i]) :] for ids in joint[ENDINGS * i : ENDINGS * (i + 1)]]
        found.append([Row(np.concatenate([heads[i], r]), len(r), len(e)) for r, e in zip(rests, four, strict=True)])
    return found


def _contexts(texts: Sequence[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Tokens of contexts; an empty one is end-of-text, so that an ending's first token has something to follow."""
    end = np.array([tokenizer.eot_id], dtype=tokenizer.dtype)
    return [ids if len(ids) else end for ids in tokenizer.encode_batch(texts)]


def _fitted(row: Row, block_size: int, number: int, protocol: str) -> Row:
    if row.scored > block_size:
        raise UserError(
            f"an ending of HellaSwag item {number} is {row.scored} tokens ({protocol}) and the model's context is "
            f"{block_size}; choose a model with a longer context"
        )
    return Row(row.ids[-(block_size + 1) :], row.scored, row.length)
