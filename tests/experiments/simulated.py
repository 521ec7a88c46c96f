"""Questions asked of noise that was logged: what `judge` would say where nothing differs, or where we know what does.

`noise.json` holds one recipe under twelve seeds of the weights (benchmarks/judging.py noise). Two of them are a pair of
which nothing is true but chance.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mygpt2.experiments.paired import by_document, late, over_replicates
from mygpt2.experiments.power import replicates_needed
from mygpt2.experiments.scores import Scores
from mygpt2.experiments.spending import level
from mygpt2.experiments.verdict import answer
from mygpt2.ripples.compare import mean_and_error
from mygpt2.ripples.null import autoregression

NOISE = Path(__file__).with_name("noise.json")
BLUR = 0.4  # of the spread between seeds
LATE = 32  # steps that a comparison of training losses rests on at least


@dataclass(frozen=True)
class Noise:
    """nll (seeds, documents), targets (documents,), training losses (seeds, steps)."""

    nll: np.ndarray
    targets: np.ndarray
    losses: np.ndarray

    @classmethod
    def logged(cls) -> Noise:
        found = json.loads(NOISE.read_text())
        return cls(*(np.array(found[key], float) for key in ("nll", "targets", "losses")))

    @property
    def seeds(self) -> int:
        return len(self.nll)

    @property
    def means(self) -> np.ndarray:
        """Loss per token of each seed, on the whole text."""
        return self.nll.sum(axis=1) / self.targets.sum()

    @property
    def spread(self) -> float:
        """Standard deviation of the difference of two seeds."""
        return float(np.sqrt(2) * self.means.std(ddof=1))

    def models_losses(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Losses of `count` further models of the recipe: those logged, drawn anew and blurred (a smoothed bootstrap,
        Silverman and Young, Biometrika 74, 1987). Without the blur three of twelve are equal too often."""
        means = self.means
        mean, sd = means.mean(), means.std(ddof=1)
        drawn = rng.choice(means, count) + BLUR * sd * rng.normal(size=count)
        return mean + (drawn - mean) / np.sqrt(1 + BLUR**2)

    def differences(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` differences of two models of the recipe."""
        return self.models_losses(rng, count) - self.models_losses(rng, count)

    def models(self, rng: np.random.Generator, effect: float = 0.0) -> tuple[Scores, Scores]:
        """Two models that differ by `effect` on all text there is, on documents drawn from those that were logged."""
        a, b = rng.choice(self.seeds, 2, replace=False)
        rest = self.nll[b] - self.nll[a]
        rest = rest - self.targets * (rest.sum() / self.targets.sum() - effect)
        drawn = rng.integers(0, len(self.targets), len(self.targets))
        base, targets = self.nll[a][drawn], self.targets[drawn]
        return _scores(base, targets), _scores(base + rest[drawn], targets)

    def series(self, rng: np.random.Generator, steps: int = LATE) -> np.ndarray:
        """Differences from step to step of two seeds on equal batches, without their mean: logged shocks, drawn anew,
        under the memory that was logged with them."""
        a, b = rng.choice(self.seeds, 2, replace=False)
        last = (self.losses[b] - self.losses[a])[-48:]
        last = last - np.polyval(np.polyfit(np.arange(48), last, 1), np.arange(48))
        memory = autoregression(last[None], np.ones(48))[0][0]
        shocks = last[len(memory) :] - sum(c * last[len(memory) - 1 - i : 47 - i] for i, c in enumerate(memory))
        found = list(np.zeros(len(memory)))
        for shock in rng.choice(shocks - shocks.mean(), steps + 50):
            found.append(float(shock + sum(c * found[-1 - i] for i, c in enumerate(memory))))
        return np.array(found[-steps:])


def _scores(nll: np.ndarray, targets: np.ndarray) -> Scores:
    return Scores("made", 1, "run", 128, "7" * 64, "fp32", "0", nll, targets)


def false_on_text(noise: Noise, rng: np.random.Generator, at: float = 0.05) -> bool:
    """Whether two models of which neither is better are told apart by their documents."""
    return answer(by_document(*noise.models(rng)), at) != "undecided"


def false_in_training(noise: Noise, rng: np.random.Generator) -> bool:
    """Whether two runs that do not differ late in training are told apart, at 95 %."""
    return late(*mean_and_error(noise.series(rng)), LATE).p <= 0.05


def false_once(noise: Noise, rng: np.random.Generator, replicates: int = 3, at: float = 0.05) -> bool:
    """Whether one recipe is told apart from itself over replicates."""
    return answer(over_replicates(noise.differences(rng, replicates)), at) != "undecided"


def false_in_looks(noise: Noise, rng: np.random.Generator, looks: int = 10) -> bool:
    """Whether one of so many looks at the same challenge, a replicate more each time, decides something."""
    found = noise.differences(rng, looks + 2)
    return any(answer(over_replicates(found[: 3 + k]), level([False] * k)) != "undecided" for k in range(looks))


def loop(noise: Noise, rng: np.random.Generator, effects: np.ndarray, replicates: int = 3) -> list[str]:
    """What challengers of one baseline are told, one after the other: its runs are theirs all, and so is its budget."""
    base = noise.models_losses(rng, replicates)
    decided: list[bool] = []
    told = []
    for effect in effects:
        told.append(answer(over_replicates(noise.models_losses(rng, replicates) - base + effect), level(decided)))
        decided.append(told[-1] != "undecided")
    return told


def found_as_promised(noise: Noise, rng: np.random.Generator, effect: float, spread: float) -> tuple[bool, int]:
    """Whether a planted difference is found at the promised number of replicates, and that number; the logged noise is
    scaled to a spread."""
    scale = spread / noise.spread
    at = level([False])  # the first look, which promised, has spent its share
    first = effect + scale * noise.differences(rng, 3)
    needed = replicates_needed(effect, float(first.std(ddof=1)), 3, at)
    if needed is None:
        return False, 10_000
    more = effect + scale * noise.differences(rng, needed - 3)
    return answer(over_replicates([*first, *more]), at) == ("keep" if effect < 0 else "drop"), needed
