"""How far the law of a ladder may be off: cells left out, whole sizes left out, documents drawn again.

An error has three sources, and each needs its own look.

- Chance of a training: one cell has one pair of seeds. Leaving one cell out after the other shows it (jackknife).
- Chance of a trunk: cells of one size are branches of one training and share its chance, so leaving one of them out
  shows too little of it (with half of the chance shared, 80 % intervals cover 58 %). Leaving a whole size out shows it.
  Of the two the larger one counts.
- Chance of the text: other documents would give other losses, in all cells alike. Documents are drawn again in blocks,
  as neighbours are alike (Künsch 1989). A forecast that is scored on the same documents does not have this error.

No interval is narrower than the range of what leaving one cell out gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from mygpt2.experiments.fit import Cells, Floats, Laws, fit, refit

LEVEL = 0.8
TEXTS = 200  # times that documents are drawn again


@dataclass(frozen=True)
class Documents:
    """nll (C, documents), targets (documents,): the sums of each document under each cell's model, the same for all."""

    nll: Floats
    targets: Floats

    def drawn_again(self, count: int, rng: np.random.Generator) -> Floats:
        """(count, C) losses, each over as many documents, drawn in blocks of neighbours around a circle."""
        documents = len(self.targets)
        length = max(1, round(documents ** (1 / 3)))
        starts = rng.integers(0, documents, (count, math.ceil(documents / length)))
        drawn = ((starts[:, :, None] + np.arange(length)) % documents).reshape(count, -1)[:, :documents]
        times = np.stack([np.bincount(row, minlength=documents) for row in drawn]).astype(np.float64)
        return (times @ self.nll.T) / (times @ self.targets)[:, None]


@dataclass(frozen=True)
class Estimate:
    """A value with its 80 % interval; `text_low`, `text_high` are for other text of this kind, None if not known."""

    value: float
    low: float
    high: float
    text_low: float | None = None
    text_high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return vars(self).copy()


@dataclass(frozen=True)
class Fitted:
    """The law of some cells, and the laws of the same cells with parts left out or measured on other documents."""

    cells: Cells
    law: Laws
    cells_out: Laws
    sizes_out: Laws
    texts: Laws | None

    @property
    def scatter(self) -> float:
        """Standard deviation of log losses about the law."""
        return float(np.sqrt(np.square(self.law.residuals(self.cells)).sum() / max(1, len(self.cells) - 5)))

    def loss(self, n: float, d: float) -> Estimate:
        """The loss that a model of n parameters will be measured to have after d tokens: its own chance counts too."""
        return self._estimate(lambda laws: np.log(laws.loss(n, d)), np.exp, self.scatter)

    def number(
        self, of: Callable[[Laws], Floats], within: tuple[float, float] = (-math.inf, math.inf), *, log: bool = False
    ) -> Estimate:
        """A number of the law, which is about the text itself: the error of the documents is in the interval.

        `within`: the range that it was sought in, beyond which nothing is said.
        """
        found = self._estimate((lambda laws: np.log(of(laws))) if log else of, np.exp if log else _same, 0.0)
        low, high = found.low, found.high
        if found.text_low is not None and found.text_high is not None:
            low, high = found.text_low, found.text_high
        return Estimate(found.value, max(low, within[0]), min(high, within[1]))

    def _estimate(self, of: Callable[[Laws], Floats], back: Callable[[float], float], noise: float) -> Estimate:
        value, left_out = float(of(self.law)[0]), of(self.cells_out)
        trained = max(_jackknife(left_out), _jackknife(of(self.sizes_out)))
        times = float(student.ppf(0.5 + LEVEL / 2, max(1, len(self.cells) - 5)))

        def interval(*errors: float) -> tuple[float, float]:
            half = times * math.hypot(*errors)
            return float(back(min(value - half, left_out.min()))), float(back(max(value + half, left_out.max())))

        low, high = interval(trained, noise)
        if self.texts is None:
            return Estimate(float(back(value)), low, high)
        return Estimate(float(back(value)), low, high, *interval(trained, noise, float(np.std(of(self.texts)))))


def fitted(cells: Cells, documents: Documents | None = None, seed: int = 0) -> Fitted:
    """The law with everything that its intervals are made of. ValueError where `cells.too_few()` says why not."""
    if (problem := cells.too_few()) is not None:
        raise ValueError(problem)
    law = fit(cells)
    sizes = np.unique(cells.n)
    texts = None
    if documents is not None and len(documents.targets) > 1:
        drawn = documents.drawn_again(TEXTS, np.random.default_rng(seed))
        own = documents.nll.sum(1) / documents.targets.sum()
        texts = refit(cells, law, losses=cells.loss * drawn / own)
    return Fitted(
        cells, law, refit(cells, law, weights=1.0 - np.eye(len(cells))),
        refit(cells, law, weights=(cells.n != sizes[:, None]).astype(np.float64)), texts,
    )  # fmt: skip


def _jackknife(left_out: Floats) -> float:
    """Standard error from the values without one part each (Efron 1982, The Jackknife, eq. 3.5)."""
    return float(np.sqrt((len(left_out) - 1) / len(left_out) * np.square(left_out - left_out.mean()).sum()))


def _same(value: float) -> float:
    return value
