"""The search for a ripple, and the chance that noise alone would give one as clear.

At each frequency the power of a line and of its harmonics is divided by the null's. The chance of such a sum under
the null is a gamma law's tail; its negative logarithm, less that of the number of cycles, is the *score*. That last
term shares the error rate evenly among octaves of period: a search over 50,000 short periods would else drown the few
long ones that files have. The chance that the highest score of the whole grid is reached by noise (the look-elsewhere
effect) comes from surrogates of the null that go through everything the residual goes through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mygpt2.ripples.log import Floats
from mygpt2.ripples.null import Null, fit_null, surrogate
from mygpt2.ripples.spectrum import FEWEST_CYCLES, HARMONICS, SHORTEST, Transform, fit_line, harmonics_of

LONGEST_SURROGATE = 4096  # cells; the law of the highest score hardly changes with length, and how is known
SURROGATE_CELLS = 260_000  # of all surrogates together
LEAST_P = 1e-6  # what a null that is itself an estimate can honestly say


@dataclass(frozen=True)
class Found:
    """The best frequency of a series with its score, the null it was judged by, and every frequency's score (m,).

    `power` (m,) is half the reduction: what a null's `power` is compared with. `harmonics` is how many of them made
    the score.
    """

    frequency: float
    score: float
    harmonics: int
    power: Floats
    scores: Floats
    null: Null


def search(transform: Transform, y: Floats) -> Found:
    """The best line of y (n,): a first candidate, then judged, and perhaps replaced, by the null without it.

    The first null is of order one: a higher order would take a strong line for a property of the noise.
    """
    power = transform.reduction(y) / 2
    index, _ = _best(transform, power, fit_null(transform, y, power, [], most=1))
    tried: dict[int, Found] = {}
    while index not in tried and len(tried) < 3:
        tried[index], index = _judged(transform, y, power, index)
    return max(tried.values(), key=lambda found: found.score)


def _judged(transform: Transform, y: Floats, power: Floats, index: int) -> tuple[Found, int]:
    """What the null without a candidate says, and the index of the best frequency under it."""
    frequency = float(transform.frequency[index])
    lines = [k * frequency for k in range(1, harmonics_of(frequency) + 1)]
    rest = y - fit_line(y, transform.weight, frequency).at(np.arange(len(y)))
    null = fit_null(transform, rest, power, lines)
    best, scores = _best(transform, power, null)
    count = int(np.argmax([tail(power, null, transform, best, k) for k in range(1, HARMONICS + 1)])) + 1
    return Found(float(transform.frequency[best]), float(scores[best]), count, power, scores, null), best


def _best(transform: Transform, power: Floats, null: Null) -> tuple[int, Floats]:
    """(index of the highest score, all scores), minus infinity where no period is looked for."""
    scores = np.full(len(power), -np.inf)
    first, last = limits(transform)
    z = np.divide(power, null.power, out=np.zeros(len(power)), where=null.power > 0)
    at = np.arange(first, last + 1)
    best, total = np.zeros(len(at)), np.zeros(len(at))
    for k in range(1, HARMONICS + 1):
        fits = np.searchsorted(at, (len(power) - 1) // k, side="right")
        total[:fits] += z[k * at[:fits]]
        best[:fits] = np.maximum(best[:fits], _gamma_tail(total[:fits], k))
    scores[first : last + 1] = best - np.log(transform.frequency[at] * transform.n)
    return int(np.argmax(scores)), scores


def limits(transform: Transform) -> tuple[int, int]:
    """First and last index of the transform's frequencies that are searched."""
    first = math.ceil(FEWEST_CYCLES * transform.size / transform.n)
    return first, max(first, int(transform.size / SHORTEST))


def tail(power: Floats, null: Null, transform: Transform, index: int, harmonics: int) -> float:
    """Minus the logarithm of the chance of the power of that many harmonics; 0 where one is out of range."""
    places = np.arange(1, harmonics + 1) * index
    if places[-1] >= len(power):
        return 0.0
    return float(_gamma_tail(np.array([np.sum(power[places] / null.power[places])]), harmonics)[0])


def _gamma_tail(total: Floats, shape: int) -> Floats:
    """-log of the chance that a sum of `shape` unit exponentials exceeds `total`."""
    series = np.ones_like(total)
    term = np.ones_like(total)
    for i in range(1, shape):
        term = term * total / i
        series = series + term
    return total - np.log(series)


@dataclass(frozen=True)
class Law:
    """The law of the highest score under the null, Gumbel's: the chance of x or more is 1 - exp(-exp(-(x - m) / s))."""

    middle: float
    scale: float

    def chance(self, score: float) -> float:
        """Of at least this score somewhere on the grid, not below LEAST_P."""
        return max(LEAST_P, -math.expm1(-math.exp(min(700.0, -(score - self.middle) / self.scale))))

    def level(self, chance: float) -> float:
        """The score that noise exceeds with this chance."""
        return self.middle - self.scale * math.log(-math.log1p(-chance))


def law_of(transform: Transform, null: Null, columns: Floats | None, seed: int = 0) -> Law:
    """The law for a series like this one, from surrogates of its null.

    `columns` (n, d), if given, is what a trend was fitted with: the surrogates lose it too. A series of more than
    LONGEST_SURROGATE cells is judged by surrogates of that length; the law's place moves with the number of octaves.
    """
    n = min(transform.n, LONGEST_SURROGATE)
    short = transform if n == transform.n else Transform(np.ones(n))
    projector = (
        None if columns is None or n < transform.n else np.linalg.qr(columns * (transform.weight > 0)[:, None])[0]
    )
    count = int(np.clip(SURROGATE_CELLS // n, 64, 160))
    rng = np.random.default_rng([seed, n, count])
    scores = np.empty(count)
    for i in range(count):
        y = surrogate(null, n, rng) * (short.weight > 0)
        if projector is not None:
            y -= projector @ (projector.T @ y)
        scores[i] = search(short, y).score
    scale = max(1.0, float(scores.std(ddof=1)) * math.sqrt(6) / math.pi)
    middle = -scale * math.log(np.mean(np.exp(-(scores - scores.mean()) / scale))) + float(scores.mean())
    return Law(middle + math.log(_places(transform.n) / _places(n)), scale)


def _places(n: int) -> float:
    """To how many independent trials a search of n cells amounts, up to a factor: Rice's formula for a level that
    falls with the logarithm of the cycles, at the scores that matter.
    """
    cycles = np.linspace(math.log(FEWEST_CYCLES), math.log(max(n / SHORTEST, FEWEST_CYCLES + 1)), 200)
    return float(np.trapezoid(np.sqrt(5.0 + cycles), cycles))
