"""HellaSwag: which of four endings does the model find likeliest, counted under both protocols in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mygpt2.data.validation import IGNORED
from mygpt2.errors import UserError
from mygpt2.evals.choices import PROTOCOLS, QUOTED, Row, rows_of
from mygpt2.evals.itemfile import ItemFile
from mygpt2.evals.items import ENDINGS, Item, items_sha256
from mygpt2.evals.loss import TOKENS_AT_ONCE, Ranks
from mygpt2.evals.scorer import Scorer
from mygpt2.evals.stats import paired, share_error
from mygpt2.tokenizer import Tokenizer

WHOLE = 10_042  # items of the validation set; quoted figures are of all of them
METRICS = ("acc", "acc_norm")


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
    targets = np.full((len(rows), width), IGNORED, dtype=np.int64)
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
