"""What a ladder found, as JSON: cells, the law, its forecasts, and what has to be said of them.

The page and the terminal show this and count nothing themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt2.evals.clustered import clustered_error
from mygpt2.experiments.fit import EXPONENTS, Cells, Laws
from mygpt2.experiments.forecast import bounds, caution
from mygpt2.experiments.intervals import LEVEL, Documents, Estimate, Fitted, fitted
from mygpt2.experiments.isoflop import slices
from mygpt2.experiments.paired import check_same_text
from mygpt2.experiments.rungs import Cell, Plan, Rung
from mygpt2.experiments.scores import Scores

COUNTS = {"all": "n", "blocks": "n_blocks"}  # what N may count, and where a cell has it
COUNT_WORDS = {
    "all": "all parameters (as Hoffmann et al. 2022 count)",
    "blocks": "those of the blocks, without embeddings (as Kaplan et al. 2020 count)",
}
CURVE_POINTS = 25
UNDECIDED = 1.0  # of its own value: an exponent whose interval is wider tells little


@dataclass(frozen=True)
class Scored:
    """A cell with what it scored."""

    rung: Rung
    cell: Cell
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        model, scores = self.cell.piece.config.model, self.scores
        return {
            "run": self.cell.run, "depth": self.rung.depth, "width": model.n_embd, "n": self.rung.n,
            "n_blocks": self.rung.n_blocks, "tokens": self.cell.tokens, "steps": self.cell.piece.config.train.steps,
            "loss": scores.loss, "stderr": clustered_error(scores.nll, scores.targets), "weights": scores.weights,
        }  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The law under both counts of N, or None where the cells do not decide one, for the reason in `why_not`."""

    plan: Plan
    scored: tuple[Scored, ...]
    laws: Mapping[str, Fitted]
    why_not: str

    def cells(self, count: str = "all") -> Cells:
        return cells_of([one.to_json() for one in self.scored], count)

    def forecast(self, n: int, n_blocks: int, tokens: int, notes: Sequence[str] = ()) -> dict[str, Any]:
        """The loss of a model of this size after so many tokens, by both counts: what `freeze` keeps."""
        told: dict[str, Any] = {"n": n, "n_blocks": n_blocks, "tokens": tokens, "protocol": self.protocol()}
        if not self.laws:
            low, high = bounds(self.cells(), n, tokens)
            notes = [*notes, f"{self.why_not}: these are the bounds that any such law keeps, and no best guess"]
            return {**told, "level": None, "loss": {"value": None, "low": low, "high": high}, "notes": notes}
        notes = [*notes, *filter(None, [caution(self.cells(), n, tokens)])]
        by_all, by_blocks = self.laws["all"].loss(n, tokens), self.laws["blocks"].loss(n_blocks, tokens)
        return {
            **told, "level": LEVEL, "loss": by_all.to_json(), "by_blocks": by_blocks.to_json(),
            "law": self.law_json("all"), "notes": notes,
        }  # fmt: skip

    def protocol(self) -> dict[str, Any]:
        """What every loss here is of. Cells of other texts do not come this far."""
        one = self.scored[0].scores
        return {
            "name": one.protocol, "token_sha256": one.token_sha256, "window": one.window, "precision": one.precision,
            "tokens": one.tokens, "documents": len(one.targets), "tokenizer": self.plan.file.base.data.tokenizer,
            "source": self.plan.file.base.data.text,
        }  # fmt: skip

    def law_json(self, count: str) -> dict[str, Any]:
        """The five numbers with their intervals, and how well they hold."""
        found = self.laws[count]
        return {
            "count": count, "words": COUNT_WORDS[count], "a": float(found.law.a[0]), "b": float(found.law.b[0]),
            **{name: estimate.to_json() for name, estimate in numbers(found).items()},
            "scatter": found.scatter, "delta": found.law.delta, "at_bounds": found.law.at_bounds(),
            "cells": len(found.cells),
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        rows = [one.to_json() for one in self.scored]
        if self.laws:
            values = np.exp(np.log(self.cells().loss) - self.laws["all"].law.residuals(self.cells())[0])
            rows = [{**row, "fitted": float(value)} for row, value in zip(rows, values, strict=True)]
        return {
            "level": LEVEL, "protocol": self.protocol(), "cells": rows,
            "law": {count: self.law_json(count) for count in self.laws} or None, "undecided": self.undecided(),
            "isoflop": [one.to_json() for one in slices(self.cells())], "curves": self.curves(),
        }  # fmt: skip

    def undecided(self) -> list[str]:
        """What the cells do not tell, one sentence each."""
        if not self.laws:
            return [self.why_not]
        said = []
        for count, each in self.laws.items():
            if names := each.law.at_bounds():
                it = "it" if len(names) == 1 else "them"
                what = "" if count == "all" else "with N counted without embeddings "
                said.append(
                    f"{what}{' and '.join(names)} stopped at a bound of what was sought: these cells do not tell {it}, "
                    f"and the other numbers are those of a law with {it} there"
                )
        found = self.laws["all"]
        bounds_met = found.law.at_bounds()
        for name, estimate in numbers(found).items():
            if name in ("alpha", "beta") and name not in bounds_met and _wide(estimate):
                said.append(
                    f"{name} lies anywhere from {estimate.low:.2f} to {estimate.high:.2f}: these cells hardly tell it"
                )
            if name == "e" and "E" not in bounds_met and _wide(estimate):
                said.append(
                    f"E, the loss that no size and no text gets below, lies anywhere from {estimate.low:.2f} to "
                    f"{estimate.high:.2f}: what is foretold far beyond these cells hangs on it"
                )
        return said

    def curves(self) -> list[dict[str, Any]]:
        """For a plot: the law of each size over the budgets, and of the next one with its interval."""
        if not self.laws:
            return []
        found, settings = self.laws["all"], self.plan.file.settings
        next_rung = self.plan.next
        last = max(settings.tokens + (settings.next_tokens if next_rung else []))
        tokens = np.geomspace(min(settings.tokens), last, CURVE_POINTS)
        curves = []
        for rung in [*self.plan.rungs, *([next_rung] if next_rung else [])]:
            curve: dict[str, Any] = {"depth": rung.depth, "n": rung.n, "tokens": tokens.tolist()}
            curve["loss"] = [float(found.law.loss(rung.n, d)[0]) for d in tokens]
            if rung is next_rung:
                estimates = [found.loss(rung.n, d) for d in tokens]
                curve["low"], curve["high"] = ([getattr(e, side) for e in estimates] for side in ("low", "high"))
            curves.append(curve)
        return curves


def numbers(found: Fitted) -> dict[str, Estimate]:
    """The numbers of a law that mean something by themselves. One that stopped at its bound may be anything."""
    ranges = {"e": (0.0, float(found.cells.loss.min())), "alpha": EXPONENTS, "beta": EXPONENTS}
    told = {
        "e": found.number(lambda laws: laws.e, ranges["e"]),
        "alpha": found.number(lambda laws: laws.alpha, ranges["alpha"]),
        "beta": found.number(lambda laws: laws.beta, ranges["beta"]),
        "best_n_exponent": found.number(_best_n, (0.0, 1.0)),
    }
    for name in map(str.lower, found.law.at_bounds()):
        told[name] = Estimate(told[name].value, *ranges[name])
        if name != "e":
            told["best_n_exponent"] = Estimate(told["best_n_exponent"].value, 0.0, 1.0)
    return told


def _best_n(laws: Laws) -> np.ndarray:
    return laws.best_n_exponent


def _wide(estimate: Estimate) -> bool:
    return estimate.high - estimate.low > UNDECIDED * estimate.value


def cells_of(rows: Sequence[Mapping[str, Any]], count: str = "all") -> Cells:
    """The cells of rows as JSON holds them; N counts all parameters, or those of the blocks."""
    columns = (np.array([row[key] for row in rows], dtype=np.float64) for key in (COUNTS[count], "tokens", "loss"))
    return Cells(*columns)


def find(plan: Plan, scored: Sequence[Scored]) -> Found:
    """Fits the law to scored cells, by both counts. UserError where they were not scored on one text."""
    for one in scored:
        check_same_text(scored[0].scores, one.scores)
    rows = [one.to_json() for one in scored]
    text = Documents(np.stack([one.scores.nll for one in scored]), scored[0].scores.targets)
    why_not = cells_of(rows).too_few()
    laws = {} if why_not else {count: fitted(cells_of(rows, count), text) for count in COUNTS}
    return Found(plan, tuple(scored), laws, why_not or "")
