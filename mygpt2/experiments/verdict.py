"""From what was measured to keep, drop or undecided, and what that rests on; `telling` has the words."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mygpt2.experiments.arms import Arm, Replicate, changes
from mygpt2.experiments.by_source import by_source, part_of_level
from mygpt2.experiments.cost import Spent
from mygpt2.experiments.estimate import Estimate
from mygpt2.experiments.ledger import Ledger
from mygpt2.experiments.paired import Training, by_document, over_documents, over_replicates
from mygpt2.experiments.power import POWER, effect_found, replicates_needed, tokens_needed
from mygpt2.experiments.scores import Scores

ALL = "all sources together, weighted by their tokens"
WORTH = 0.003  # nats: what is looked for where nobody says, about a seed's noise at 124 M parameters
SCHEMA = 1


@dataclass(frozen=True)
class Pair:
    """What was measured under one pair of seeds. `training` is a sentence where it could not be had."""

    replicate: Replicate
    base: Scores
    variant: Scores
    training: Training | str
    horizon: tuple[int, int]  # tokens that base and variant were trained on

    @property
    def difference(self) -> Estimate:
        return by_document(self.base, self.variant)

    def on(self, source: str) -> Pair:
        """The pair on the documents of one source."""
        return replace(self, base=self.base.of(source), variant=self.variant.of(source))


@dataclass(frozen=True)
class Case:
    """All that a verdict rests on. `notices` are sentences on what of the two arms does not compare as it is.
    `sources`: whether those of the text are looked at one by one as well."""

    experiment: str
    base: Arm
    variant: Arm
    protocol: str
    pairs: Sequence[Pair]
    spent: Spent
    worth: float = WORTH
    notices: tuple[str, ...] = field(default=())
    source: str = ""  # the objective, where it is not all of the held-out text
    sources: bool = False

    @property
    def recipes(self) -> bool:
        """Whether it speaks of recipes; of one pair of runs it can only speak of these two models."""
        return len(self.pairs) > 1

    @property
    def part(self) -> float:
        """The part of the question's level that its verdict has; its sources have the rest."""
        return part_of_level(self.pairs) if self.sources else 1.0

    @property
    def question(self) -> str:
        """A digest of what was compared on what: the same question has the same answer, and spends nothing."""
        what: list[Any] = [
            [p.base.weights, p.variant.weights, p.base.token_sha256, p.base.window, p.variant.window]
            for p in self.pairs
        ]
        what += [self.source] if self.source else []
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]

    @property
    def judged(self) -> Sequence[Pair]:
        """The pairs on the text of the objective."""
        return [pair.on(self.source) for pair in self.pairs] if self.source else self.pairs

    def estimate(self) -> Estimate:
        """On the text of the objective: over replicates, or of one pair over documents."""
        if self.recipes:
            return over_replicates([pair.difference.mean for pair in self.judged])
        return self.judged[0].difference


def answer(estimate: Estimate, level: float) -> str:
    """keep where the variant is better beyond doubt of this level, drop where it is worse, else undecided."""
    if estimate.p > level:
        return "undecided"
    return "keep" if estimate.mean < 0 else "drop"


def decide(case: Case, ledger: Ledger) -> dict[str, Any]:
    """The verdict on a case, at the level that is its turn in the ledger."""
    part, estimate = case.part, case.estimate()
    level = part * ledger.level()
    verdict = answer(estimate, level)
    low, high = estimate.interval(level)
    judged, sources = case.judged, by_source(case.pairs, ledger.level()) if case.sources else {}
    first = judged[0]
    after = part * ledger.level((verdict != "undecided" and all(each["better"] for each in sources.values()),))
    return {
        **_head(case, verdict, ""),
        "p": estimate.p, "level": level,
        "validation": {
            **estimate.to_json(level),
            "over": "replicates" if case.recipes else "documents",
            "within": over_documents([(p.base, p.variant) for p in judged]).error,
            "documents": int((first.base.targets > 0).sum()), "tokens": first.base.tokens,
            "token_sha256": first.base.token_sha256, "windows": [first.base.window, first.variant.window],
        },
        **({"objective": case.source or ALL, "by_source": sources} if sources else {}),
        **_training(case, level),
        "excluded": {"better_by_more_than": max(0.0, -low), "worse_by_more_than": max(0.0, high)},
        "decide": _decide(case, estimate, after),
        "ledger": {
            "number": ledger.next_number, "level": level, "next_level": after, "budget": ledger.budget,
            "spent": ledger.spent_with(1), "damaged_lines": ledger.lines.damaged,
        },
    }  # fmt: skip


def again(known: dict[str, Any], case: Case, ledger: Ledger) -> dict[str, Any]:
    """The verdict that a question has had, with what would decide as of now: what is worth finding may be another, and
    the ledger has gone on. It spends nothing."""
    level = case.part * ledger.level()
    return {
        **known, "decide": _decide(case, case.estimate(), level), "cost": case.spent.to_json(),
        "ledger": {**known["ledger"], "next_level": level},
    }  # fmt: skip


def without_test(case: Case, ledger: Ledger, verdict: str, reason: str) -> dict[str, Any]:
    """A verdict that needs no statistics: nothing was changed, or runs diverged. It spends nothing."""
    spent = {
        "number": ledger.next_number - 1, "level": None, "next_level": ledger.level(), "budget": ledger.budget,
        "spent": ledger.spent_with(0), "damaged_lines": ledger.lines.damaged,
    }  # fmt: skip
    return {**_head(case, verdict, reason), "p": None, "level": None, "validation": None, "training": None,
            "training_why": "", "excluded": None, "decide": None, "ledger": spent}  # fmt: skip


def _head(case: Case, verdict: str, reason: str) -> dict[str, Any]:
    found = changes(case.base.config, case.variant.config)
    return {
        "schema": SCHEMA, "kind": "judge", "time": time.time(), "experiment": case.experiment,
        "question": case.question if case.pairs else "", "verdict": verdict, "reason": reason,
        "speaks_of": "recipes" if case.recipes else "two models",
        "base": case.base.told, "variant": case.variant.name, "told": case.variant.told,
        "changes": {name: list(values) for name, values in found.items()},
        "protocol": case.protocol, "horizon_tokens": list(case.pairs[0].horizon) if case.pairs else None,
        "replicates": [_replicate(pair) for pair in case.judged],
        "cost": case.spent.to_json(), "notices": list(case.notices),
    }  # fmt: skip


def _replicate(pair: Pair) -> dict[str, Any]:
    difference = pair.difference
    return {
        "number": pair.replicate.number, "data_seed": pair.replicate.data_seed, "model_seed": pair.replicate.model_seed,
        "base": pair.base.run, "variant": pair.variant.run, "step": [pair.base.step, pair.variant.step],
        "base_loss": pair.base.loss, "variant_loss": pair.variant.loss,
        "difference": difference.mean, "error": difference.error,
    }  # fmt: skip


def _training(case: Case, level: float) -> dict[str, Any]:
    """The late training losses: each pair's, and over replicates their mean."""
    found = [pair.training for pair in case.pairs]
    good = [each for each in found if isinstance(each, Training)]
    if len(good) < len(found):
        return {"training": None, "training_why": next(each for each in found if isinstance(each, str))}
    if not case.recipes:
        return {"training": good[0].to_json(level), "training_why": ""}
    mean = over_replicates([each.estimate.mean for each in good])
    within = sum(each.estimate.error**2 for each in good) ** 0.5 / len(good)
    ratios = [each.noise_ratio for each in good if each.noise_ratio is not None]
    return {
        "training": {
            **mean.to_json(level), "within": within, "how": good[0].how, "count": sum(each.count for each in good),
            "noise_ratio": sorted(ratios)[len(ratios) // 2] if ratios else None,
        },
        "training_why": "",
    }  # fmt: skip


def _decide(case: Case, estimate: Estimate, level: float) -> dict[str, Any]:
    """How much more would find a difference as large as the one seen, and one that is worth it, nine times in ten."""
    sizes = [_size("seen", abs(estimate.mean), case, estimate, level)]
    sizes.append(_size("worth", case.worth, case, estimate, level))
    seen = len(case.pairs)
    found = effect_found(estimate.error * seen**0.5, seen, level) if case.recipes else None
    return {"power": POWER, "level": level, "sizes": sizes, "found_now": found}


def _size(what: str, nats: float, case: Case, estimate: Estimate, level: float) -> dict[str, Any]:
    seen, horizon = len(case.pairs), sum(case.pairs[0].horizon)
    if case.recipes:
        needed = replicates_needed(nats, estimate.error * seen**0.5, seen, level)
        further = None if needed is None else needed - seen
        seconds = None if further is None or not case.spent.runs else further * 2 * case.spent.seconds / case.spent.runs
        tokens = None if further is None else further * horizon
        return {"what": what, "nats": nats, "replicates": needed, "further_replicates": further,
                "further_tokens": tokens, "seconds": seconds}  # fmt: skip
    have = case.judged[0].base.tokens
    text = tokens_needed(nats, estimate.error, have, estimate.freedom, level)
    return {"what": what, "nats": nats, "text_tokens": text,
            "further_text_tokens": None if text is None else max(0, text - have)}  # fmt: skip
