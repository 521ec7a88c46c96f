"""For which source is which mixture better? The pairs of a verdict, source by source of the held-out text.

Looking at several sources beside the whole is looking several times. Half of a question's share of the error budget is
the verdict's, the other half the sources' together, among whom Holm's procedure divides it: the chance of any false
word, on the whole or on a source, stays what the question has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mygpt2.errors import UserError
from mygpt2.experiments.estimate import Estimate
from mygpt2.experiments.paired import by_document, check_same_text, over_replicates
from mygpt2.experiments.scores import Scores
from mygpt2.experiments.spending import holm_adjusted

VERDICT_PART = 0.5  # of a question's level; the rest is for its sources


class Scored(Protocol):
    @property
    def base(self) -> Scores: ...

    @property
    def variant(self) -> Scores: ...


def part_of_level(pairs: Sequence[Scored]) -> float:
    """Which part of a question's level its verdict has."""
    return VERDICT_PART if pairs and len(pairs[0].base.sources) > 1 else 1.0


def by_source(pairs: Sequence[Scored], level: float) -> dict[str, dict[str, Any]]:
    """What is known of each source, by name; `level` is that of the whole question. {} for a text of one source.

    `better` is base, variant or None where it is not resolved; `p_adjusted` by Holm, to be held against `level`, which
    is the part of all sources together. `interval` holds for all sources at once (Bonferroni), `interval95` for one.
    """
    if part_of_level(pairs) == 1.0:
        return {}
    first = pairs[0].base
    level *= 1 - VERDICT_PART
    found, estimates = dict[str, dict[str, Any]](), dict[str, Estimate]()
    for source in first.sources:
        own = [(pair.base.of(source.name), pair.variant.of(source.name)) for pair in pairs]
        base, variant = own[0]
        found[source.name] = {
            "documents": int((base.targets > 0).sum()), "tokens": base.tokens, "share": base.tokens / first.tokens,
            "trained_by": _trained_by(pairs[0], source.runs), "base_loss": _mean([each.loss for each, _ in own]),
            "variant_loss": _mean([each.loss for _, each in own]), "better": None,
        }  # fmt: skip
        try:
            estimates[source.name] = _estimate(own)
        except UserError as problem:
            found[source.name] |= {"mean": variant.loss - base.loss, "unresolved": str(problem)}
    adjusted = holm_adjusted([estimate.p for estimate in estimates.values()])
    for (name, estimate), p in zip(estimates.items(), adjusted, strict=True):
        found[name] |= {**estimate.to_json(level / len(estimates)), "level": level, "p_adjusted": p}
        if p <= level:
            found[name]["better"] = "variant" if estimate.mean < 0 else "base"
    return found


def _estimate(own: Sequence[tuple[Scores, Scores]]) -> Estimate:
    if len(own) == 1:
        return by_document(*own[0])
    for base, variant in own:
        check_same_text(base, variant)
    return over_replicates([variant.loss - base.loss for base, variant in own])


def _trained_by(pair: Scored, runs: Sequence[str]) -> list[str]:
    """base, variant or both; unknown of a text that does not say."""
    names = {"base": pair.base.run, "variant": pair.variant.run}
    return [who for who, run in names.items() if run in runs]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
