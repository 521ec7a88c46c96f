"""HellaSwag: which of four endings does the model find likeliest, counted under both protocols in one pass.

The protocols are the two ways of asking that people quote, which differ in everything but the idea.

completion   Karpathy's (build-nanogpt, llm.c, modded-nanogpt): the context as it is; " " + ending tokenized apart;
             acc takes the least total nll, acc_norm the least mean nll per token of the ending.
harness      EleutherAI's lm-evaluation-harness (hellaswag, version 1.0): the activity's label before the context,
             bracketed marks of WikiHow removed; context and ending tokenized together and cut at the length of the
             context alone; acc as above, acc_norm divides by the characters of the ending.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from mygpt2.errors import UserError
from mygpt2.evals.items import ENDINGS, Item, ItemFile, items_sha256
from mygpt2.evals.loss import TOKENS_AT_ONCE, Ranks, Scorer
from mygpt2.evals.protocols import Quoted
from mygpt2.model.loss import IGNORE
from mygpt2.tokenizer import Tokenizer

WHOLE = 10_042  # items of the validation set; quoted figures are of all of them
METRICS = ("acc", "acc_norm")
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


@dataclass(frozen=True)
class Table:
    """Items with their rows, `rows[protocol][item][ending]`, and what identifies them."""

    items: list[Item]
    rows: dict[str, list[list[Row]]]
    sha256: str

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> np.ndarray:
        return np.array([item.label for item in self.items])

    def lengths(self, protocol: str) -> np.ndarray:
        """(items, 4): tokens or characters of the endings."""
        return np.array([[row.length for row in four] for four in self.rows[protocol]])


def tabulate(items: list[Item], tokenizer: Tokenizer, block_size: int) -> Table:
    """The rows of both protocols. UserError when an ending does not fit the context."""
    rows = {protocol: rows_of(items, protocol, tokenizer, block_size) for protocol in PROTOCOLS}
    return Table(items, rows, items_sha256(items))


def header(table: Table, scorer: Scorer, tokenizer: Tokenizer, name: str, weights_sha256: str) -> dict[str, Any]:
    """The first line of a file of items: which scoring this is."""
    return {
        "kind": "hellaswag", "model": name, "weights_sha256": weights_sha256, "items_sha256": table.sha256,
        "items": len(table), "tokenizer": tokenizer.fingerprint, "block_size": scorer.block_size,
        "precision": scorer.precision, "protocols": list(PROTOCOLS),
    }  # fmt: skip


def score(
    scorer: Scorer,
    table: Table,
    *,
    ranks: Ranks,
    tokens_at_once: int = TOKENS_AT_ONCE,
    file: ItemFile | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Σ nll (items, 4) float64 of the endings under each protocol, the same on every rank.

    Items of similar length share a batch. A batch depends on the items alone, and one that is not in the file as a
    whole is done again as a whole: an interrupted scoring ends with the same numbers. `progress`: items just done.
    """
    sums = np.zeros((len(table), len(PROTOCOLS), ENDINGS))
    known = file.known if file else {}
    for number, batch in enumerate(_batches(table, tokens_at_once)):
        if number % ranks.size != ranks.rank:
            continue
        if all(item in known for item in batch):
            for item in batch:
                sums[item] = [known[item][protocol]["nll"] for protocol in PROTOCOLS]
        else:
            rows = [row for item in batch for protocol in PROTOCOLS for row in table.rows[protocol][item]]
            found = _row_nll(scorer, rows)
            if not np.isfinite(found).all():
                raise UserError("the model's losses are not finite, its weights are damaged; use an earlier checkpoint")
            sums[batch] = found.reshape(len(batch), len(PROTOCOLS), ENDINGS)
            if file:
                file.append(_line(table, item, sums[item]) for item in batch)
        if progress:
            progress(len(batch))
    total = np.array(ranks.sum(sums.reshape(-1).tolist())).reshape(sums.shape)
    return {protocol: total[:, i] for i, protocol in enumerate(PROTOCOLS)}


def lines(table: Table, nll: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The outcome of every item, as a file of items holds it."""
    stacked = np.stack([nll[protocol] for protocol in PROTOCOLS], axis=1)
    return [_line(table, item, stacked[item]) for item in range(len(table))]


def _line(table: Table, item: int, nll: np.ndarray) -> dict[str, Any]:
    outcome: dict[str, Any] = {"item": item, "ind": table.items[item].ind, "label": table.items[item].label}
    for (protocol, unit), four in zip(PROTOCOLS.items(), nll, strict=True):
        outcome[protocol] = {"nll": four.tolist(), unit: [row.length for row in table.rows[protocol][item]]}
    return outcome


def _batches(table: Table, tokens_at_once: int) -> list[list[int]]:
    """Items by falling length of their longest row, so that padding is short and memory runs out at once or never."""
    longest = [max(len(row.ids) for rows in table.rows.values() for row in rows[i]) for i in range(len(table))]
    rows_each = ENDINGS * len(PROTOCOLS)
    batches: list[list[int]] = []
    width = 0
    for item in sorted(range(len(table)), key=lambda i: (-longest[i], i)):
        if not batches or (len(batches[-1]) + 1) * rows_each * width > tokens_at_once:
            batches.append([])
            width = longest[item]
        batches[-1].append(item)
    return batches


def _row_nll(scorer: Scorer, rows: Sequence[Row]) -> np.ndarray:
    """Σ nll (rows,) float64 of the endings alone. Rows are filled up on the right, which nothing before it can see."""
    width = max(len(row.ids) for row in rows) - 1
    inputs = np.zeros((len(rows), width), dtype=np.int64)
    targets = np.full((len(rows), width), IGNORE, dtype=np.int64)
    for i, row in enumerate(rows):
        last = len(row.ids) - 1
        inputs[i, :last] = row.ids[:-1]
        targets[i, last - row.scored : last] = row.ids[len(row.ids) - row.scored :]
    return scorer.nll(torch.from_numpy(inputs), torch.from_numpy(targets)).double().sum(-1).numpy()


def correct(nll: np.ndarray, lengths: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Which items (items,) are right by total nll (acc) and by nll per unit of length (acc_norm); ties: the first."""
    with np.errstate(divide="ignore", invalid="ignore"):
        normed = np.where(lengths > 0, nll / lengths, np.inf)  # an ending that clean-up left empty is never chosen
    return {"acc": nll.argmin(-1) == labels, "acc_norm": normed.argmin(-1) == labels}


def summary(table: Table, nll: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{protocol: {acc, acc_norm, stderr, n, ...}}; `stderr` is that of acc_norm. Shares, not percent."""
    found: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        right = correct(nll[protocol], table.lengths(protocol), table.labels)
        shares = {metric: float(right[metric].mean()) for metric in METRICS}
        errors = {f"{metric}_stderr": share_error(shares[metric], len(table)) for metric in METRICS}
        found[protocol] = {**shares, "stderr": errors["acc_norm_stderr"], **errors, "n": len(table)}
        if len(table) == WHOLE:
            found[protocol]["quoted"] = {metric: QUOTED[protocol][metric].to_json() for metric in METRICS}
    return found | {"items_sha256": table.sha256}


def against(table: Table, nll: Mapping[str, np.ndarray], baseline: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """{protocol: {metric: paired test}} against another model's outcomes on the same items."""
    found: dict[str, Any] = {}
    for protocol, unit in PROTOCOLS.items():
        theirs = [baseline[item][protocol] for item in range(len(table))]
        mine = correct(nll[protocol], table.lengths(protocol), table.labels)
        other = correct(np.array([o["nll"] for o in theirs]), np.array([o[unit] for o in theirs]), table.labels)
        found[protocol] = {metric: paired(mine[metric], other[metric])._asdict() for metric in METRICS}
    return found


def share_error(share: float, n: int) -> float | None:
    """Standard error of the mean of n zeros and ones; None for fewer than two."""
    return math.sqrt(share * (1.0 - share) / (n - 1)) if n > 1 else None


class Paired(NamedTuple):
    """Two models on the same items. `difference` is the first's share of correct items less the second's."""

    difference: float
    stderr: float | None
    better: int  # items that only the first gets right
    worse: int  # items that only the second gets right
    p_value: float  # McNemar's exact test, two-sided


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """Compares two boolean arrays (items,) of correct answers item by item."""
    difference = first.astype(np.float64) - second.astype(np.float64)
    n = len(difference)
    error = float(difference.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    return Paired(float(difference.mean()) if n else 0.0, error, better, worse, mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p of `better` against `worse` discordant items under a fair coin, in whole numbers."""
    n, few = better + worse, min(better, worse)
    tail, term = 0, 1
    for i in range(few + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    return min(1.0, 2 * tail / 2**n)


def words(found: dict[str, Any]) -> str:
    """Accuracies in percent with their standard errors, and what a baseline makes of them."""
    lines = []
    for protocol in PROTOCOLS:
        own = found[protocol]
        lines.append(
            f"HellaSwag {protocol}: acc {_percent(own['acc'], own['acc_stderr'])}, "
            f"acc_norm {_percent(own['acc_norm'], own['acc_norm_stderr'])} ({own['n']:,} items)"
        )
        for metric, figure in own.get("quoted", {}).items():
            lines.append(f"  quoted: {figure['of']} {metric} {100 * figure['figure']:.2f} % ({figure['source']})")
        for metric, test in found.get("against_baseline", {}).get(protocol, {}).items():
            lines.append(
                f"  {metric} against {found['baseline']['model']}: {100 * test['difference']:+.2f} points, "
                f"paired error {100 * (test['stderr'] or 0.0):.2f}; right alone {test['better']} : {test['worse']}, "
                f"McNemar p = {test['p_value']:.3g}"
            )
    return "\n".join(lines)


def _percent(share: float, error: float | None) -> str:
    return f"{100 * share:.2f} %" if error is None else f"{100 * share:.2f} ± {100 * error:.2f} %"
