"""Two models, or two recipes, compared so that what both share cancels: documents, batches, pairs of seeds.

All differences are variant less base in nats per token: negative is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mygpt2.data.trace import read_manifest, read_trace
from mygpt2.errors import UserError
from mygpt2.evals.clustered import clustered_error
from mygpt2.experiments.estimate import Estimate
from mygpt2.experiments.scores import Scores
from mygpt2.ripples.compare import FEWEST, LATE, compare_runs
from mygpt2.ripples.runs import read_run

FEWEST_DOCUMENTS = 8  # that an error is taken from


def by_document(base: Scores, variant: Scores) -> Estimate:
    """The difference on the same text, its error clustered by document: which of these two models is better on it.

    The freedom is Kish's effective number of documents, less one: a few long ones may hold most of the tokens (Carter,
    Schnepel and Steigerwald, Asymptotic behavior of a t-test robust to cluster heterogeneity, Review of Economics and
    Statistics 99, 2017, where errors within a document go together). Of a mixture's text each source is a stratum: how
    much there is of it was chosen, so that what sets the sources apart is no error of the whole. UserError where the
    texts are not the same.
    """
    check_same_text(base, variant)
    return _of_text(variant.nll - base.nll, base)


def over_documents(pairs: Sequence[tuple[Scores, Scores]]) -> Estimate:
    """The mean difference of several pairs on one text, its error clustered by document: beside what replicates say,
    how far another text of the kind might lead."""
    for base, variant in pairs:
        check_same_text(pairs[0][0], base)
        check_same_text(base, variant)
    return _of_text(np.mean([v.nll - b.nll for b, v in pairs], axis=0), pairs[0][0])


def over_replicates(differences: Sequence[float]) -> Estimate:
    """The mean over pairs of seeds with the spread between them: which recipe is better. Two or more."""
    found = np.asarray(differences, float)
    if len(found) < 2:
        raise ValueError("one replicate speaks of two models")
    return Estimate(float(found.mean()), float(found.std(ddof=1) / math.sqrt(len(found))), len(found) - 1)


def check_same_text(one: Scores, two: Scores) -> None:
    """UserError unless both scored the same tokens of the same documents."""
    if one.token_sha256 != two.token_sha256 or not np.array_equal(one.targets, two.targets):
        raise UserError(
            f"{one.run} and {two.run} were scored on different tokens ({one.protocol} {one.token_sha256[:12]}, "
            f"{two.protocol} {two.token_sha256[:12]}), and losses of different texts do not compare; give both the "
            "same tokenizer, and a --protocol that is the same text for both"
        )


def _of_text(nll: np.ndarray, of: Scores) -> Estimate:
    """`nll` (documents,) of a text: clustered by document, within each source where there are several.

    The freedom of the whole is Welch's and Satterthwaite's. A source of too few documents leaves the strata aside.
    """
    try:
        parts = [(_clustered(nll[s.first : s.stop], of.targets[s.first : s.stop]), s) for s in of.sources]
    except UserError:
        parts = []
    if len(parts) < 2:
        return _clustered(nll, of.targets)
    variances = [(each.error * of.targets[s.first : s.stop].sum() / of.targets.sum()) ** 2 for each, s in parts]
    variance = sum(variances)
    rest = sum(v**2 / each.freedom for v, (each, _) in zip(variances, parts, strict=True))
    freedom = variance**2 / rest if rest else math.inf
    return Estimate(float(nll.sum() / of.targets.sum()), math.sqrt(variance), float(freedom))


def _clustered(nll: np.ndarray, targets: np.ndarray) -> Estimate:
    error = clustered_error(nll, targets)
    effective = targets.sum() ** 2 / np.square(targets).sum()
    if error is None or effective < 2:
        raise UserError(
            f"the text has {int((targets > 0).sum())} documents, too few for the error of a difference; choose a "
            "protocol with more, or a larger data.validation_tokens"
        )
    return Estimate(float(nll.sum() / targets.sum()), error, float(effective - 1))


@dataclass(frozen=True)
class Training:
    """The difference of training losses late in the run. `how` is steps, where both saw equal batches, else documents;
    `count` is how many of them. `correlation` is of the two losses from step to step."""

    estimate: Estimate
    how: str
    count: int
    tokens: int
    correlation: float | None = None
    noise_ratio: float | None = None

    def to_json(self, level: float) -> dict[str, Any]:
        rest = {key: value for key, value in vars(self).items() if key != "estimate"}
        return {**self.estimate.to_json(level), **rest}


def training(base: Path, variant: Path, other_batches: Sequence[str]) -> Training | str:
    """The late training losses of two runs, step against step where their batches are equal, else document against
    document from their traces; where neither is possible, in words why."""
    if other_batches:
        return by_traced_document(base, variant)
    try:
        found = compare_runs(read_run(variant), read_run(base))
    except UserError as error:
        return str(error)
    steps = int(found["to_step"] - found["from_step"]) + 1
    estimate = late(found["difference"], found["standard_error"], steps)
    tokens = _tokens_per_step(base) * steps
    return Training(estimate, "steps", steps, tokens, found["correlation"], found["noise_ratio"])


def late(mean: float, error: float, steps: int) -> Estimate:
    """The estimate of a mean over steps whose long-run error was taken from so few of them.

    A sixth of the steps are its degrees: on logged differences of two seeds, intervals of 95 % by the normal law miss
    13 % of the time over 32 steps and 7 % over 120; with these degrees 7 % and 6 % (benchmarks/judging.py simulate).
    """
    return Estimate(mean, error, max(3.0, steps / 6))


def by_traced_document(base: Path, variant: Path) -> Training | str:
    """Documents that both runs trained on in the last quarter of their steps: the mean loss of the rows that hold each.

    A row that holds k documents counts for each of them as 1/k of a row, so that neighbours share a little. Their error
    is clustered by document.
    """
    try:
        if read_manifest(base).fingerprint != read_manifest(variant).fingerprint:
            return "the two runs were trained on other data, so that their training losses cannot be paired"
    except (OSError, ValueError, LookupError, TypeError):
        return "a run without a trace says not which documents it was trained on, and their losses cannot be paired"
    try:
        rows = [_late_rows(run) for run in (base, variant)]
    except UserError as error:
        return str(error)
    common = np.intersect1d(rows[0][0], rows[1][0])
    if len(common) < FEWEST_DOCUMENTS:
        return (
            f"the two runs have {len(common)} documents in common among those of their last quarters, too few to pair "
            "their training losses"
        )
    means, weights = [], []
    for keys, sums, counts in rows:
        place = np.searchsorted(keys, common)
        means.append(sums[place] / counts[place])
        weights.append(counts[place])
    weight = np.minimum(weights[0], weights[1])
    found = _clustered((means[1] - means[0]) * weight, weight)
    return Training(found, "documents", len(common), 0)


def _late_rows(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(documents, sums of row losses, rows), each (n,), by document, over the last quarter of the run.

    UserError where they are not on record.
    """
    log = read_run(run)
    if len(log) < FEWEST:
        raise UserError(f"{log.name} has {len(log)} steps, too few for the losses of a last quarter")
    first = int(log.step[len(log) - max(FEWEST, int(LATE * len(log)))])
    try:
        table = read_trace(run, first)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"the trace of {log.name} cannot be read: {error}") from None
    if not len(table):
        raise UserError(f"{log.name} kept no trace of its last quarter")
    offsets = np.asarray(table["block"].combine_chunks().offsets)
    lengths = np.diff(offsets)
    blocks, documents = (np.asarray(table[name].combine_chunks().values, np.int64) for name in ("block", "document"))
    share = np.repeat(1.0 / np.maximum(lengths, 1), lengths)
    loss = np.repeat(np.asarray(table["loss"], float), lengths) * share
    keys, place = np.unique((blocks << 32) | documents, return_inverse=True)
    return keys, np.bincount(place, loss), np.bincount(place, share)


def _tokens_per_step(run: Path) -> int:
    found = read_run(run).tokens_per_step
    return round(found) if found else 0
