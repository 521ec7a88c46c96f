"""The search for a ripple, and the chance that noise alone would give one as clear.

At each frequency the power of a line and of its harmonics is divided by the null's. The chance of such a sum under
the null is a gamma law's tail; its negative logarithm, less that of the number of cycles, is the *score*. That last
term shares the error rate evenly among octaves of period: a search over 50,000 short periods would else drown the few
long ones that files have. The chance that the highest score of the whole grid is reached by noise (the look-elsewhere
effect) comes from surrogates of the null that go through everything the residual goes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import fft

from mygpt2.progress import Progress, silent
from mygpt2.ripples.log import Floats
from mygpt2.ripples.null import Null, Nulls, fit_nulls
from mygpt2.ripples.spectrum import FEWEST_CYCLES, HARMONICS, SHORTEST, Transform, harmonics_of, without_lines

LONGEST_SURROGATE = 4096  # cells; the law of the highest score hardly changes with length, and how is known
SURROGATE_CELLS = 260_000  # of all surrogates together
TURNS = 3  # of candidates
MOST_AT_ONCE = 1 << 19  # cells of a transform
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
    """The best line of y (n,)."""
    return search_all(transform, y[None])[0]


def search_all(transform: Transform, y: Floats, progress: Progress = silent) -> list[Found]:
    """The best line of each of y (B, n)."""
    found: list[Found] = []
    for part in _parts(transform, y):
        power = transform.reduction(part) / 2
        best = _searched(transform, part, power)
        for row, index in enumerate(best.index):
            frequency, score, harmonics = transform.frequency[index], best.score[row], best.harmonics[row]
            found.append(
                Found(float(frequency), float(score), int(harmonics), power[row], best.scores[row], best.nulls.one(row))
            )
        progress("search", len(found), len(y), "series")
    return found


def _parts(transform: Transform, y: Floats) -> Iterator[Floats]:
    """Series (B, n) by so many as are searched at once."""
    many = max(1, MOST_AT_ONCE // transform.size)
    for start in range(0, len(y), many):
        yield y[start : start + many]


@dataclass
class _Best:
    """Of B series: the best frequency's index, how many harmonics make its score, and that (B,), all scores (B, m),
    and the nulls.
    """

    index: np.ndarray
    harmonics: np.ndarray
    score: Floats
    scores: Floats
    nulls: Nulls

    def take(self, rows: np.ndarray, other: _Best) -> None:
        """What a later turn found of some series, where that is better."""
        better = other.score > self.score[rows]
        to = rows[better]
        for name in ("index", "harmonics", "score", "scores"):
            getattr(self, name)[to] = getattr(other, name)[better]
        self.nulls.put(to, other.nulls, better)


def _searched(transform: Transform, y: Floats, power: Floats) -> _Best:
    """First a candidate of each series; then it is judged, and perhaps replaced, by the null without it.

    The first null is of order one: a higher order would take a strong line for a property of the noise.
    """
    first = fit_nulls(transform, y, power, None, most=1)
    candidate = _scored(transform, power, first)
    rows, tried = np.arange(len(y)), candidate.index[:, None]
    best = found = _judged(transform, y, power, candidate.index, candidate.harmonics)
    for _ in range(TURNS - 1):
        again = ~(tried[rows] == found.index[:, None]).any(axis=1)
        rows = rows[again]
        if not len(rows):
            break
        tried = np.column_stack([tried, best.index])
        tried[rows, -1] = found.index[again]
        found = _judged(transform, y[rows], power[rows], found.index[again], found.harmonics[again])
        best.take(rows, found)
    return best


def _judged(transform: Transform, y: Floats, power: Floats, index: np.ndarray, harmonics: np.ndarray) -> _Best:
    """What the nulls without the candidates (B,) say."""
    frequency = transform.frequency[index]
    shown = np.array([harmonics_of(f) for f in frequency])
    rest = without_lines(y, transform.weight, frequency, np.minimum(harmonics, shown))
    return _scored(transform, power, fit_nulls(transform, rest, power, frequency))


def _scored(transform: Transform, power: Floats, nulls: Nulls) -> _Best:
    """The scores of series whose half reductions are `power` (B, m); minus infinity where no period is looked for."""
    scores = np.full(power.shape, -np.inf)
    first, last = limits(transform)
    z = np.divide(power, nulls.power, out=np.zeros_like(power), where=nulls.power > 0)
    at = np.arange(first, last + 1)
    best, total = np.zeros((len(power), len(at))), np.zeros((len(power), len(at)))
    for k in range(1, HARMONICS + 1):
        fits = np.searchsorted(at, (power.shape[1] - 1) // k, side="right")
        total[:, :fits] += z[:, k * at[:fits]]
        best[:, :fits] = np.maximum(best[:, :fits], _gamma_tail(total[:, :fits], k))
    scores[:, first : last + 1] = best - np.log(transform.frequency[at] * transform.n)
    index, row = np.argmax(scores, axis=1), np.arange(len(scores))
    total, tails = np.zeros((len(row), 1)), np.zeros((HARMONICS, len(row)))
    for k in range(1, HARMONICS + 1):
        shown = k * index < power.shape[1]
        total[:, 0] += np.where(shown, z[row, np.where(shown, k * index, 0)], 0.0)
        tails[k - 1] = np.where(shown, _gamma_tail(total, k)[:, 0], 0.0)
    return _Best(index, np.argmax(tails, axis=0) + 1, scores[row, index], scores, nulls)


def limits(transform: Transform) -> tuple[int, int]:
    """First and last index of the transform's frequencies that are searched."""
    first = math.ceil(FEWEST_CYCLES * transform.size / transform.n)
    return first, max(first, int(transform.size / SHORTEST))


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


Trend = Callable[[Floats], Floats]  # series (B, n) to what is left of them


def law_of(transform: Transform, level: Floats, trend: Trend | None, seed: int = 0, progress: Progress = silent) -> Law:
    """The law for a series like this one, from surrogates with its null's power (m,): as red as that, drift and all.

    `trend`, if given, takes from surrogates (B, n) what was taken from the series. A series of more than
    LONGEST_SURROGATE cells is judged by surrogates of that length which have the same power at the same number of
    cycles; the law's place moves with the number of octaves.
    """
    n = min(transform.n, LONGEST_SURROGATE)
    short = transform if n == transform.n else Transform(np.ones(n))
    count = int(np.clip(SURROGATE_CELLS // n, 64, 160))
    rng = np.random.default_rng([seed, n, count])
    power = np.interp(short.frequency * n / transform.n, transform.frequency, level)
    many = max(1, MOST_AT_ONCE // short.size)
    scores: list[float] = []
    while len(scores) < count:
        y = _surrogates(power, short, min(many, count - len(scores)), rng)
        y = (y if trend is None else trend(y)) * (short.weight > 0)
        scores += _searched(short, y, short.reduction(y) / 2).score.tolist()
        progress("surrogates", len(scores), count, "series")
    return _gumbel(np.array(scores), math.log(_places(transform.n) / _places(n)))


def _surrogates(power: Floats, transform: Transform, many: int, rng: np.random.Generator) -> Floats:
    """(many, n) of Gaussian noise with a spectrum (m,), cut from a longer circle."""
    z = rng.standard_normal((many, len(power), 2)).view(np.complex128)[..., 0]
    return fft.irfft(z * np.sqrt(power * transform.size / 2), transform.size)[:, : transform.n]


def _gumbel(scores: Floats, moved: float) -> Law:
    """The law whose deviation and mean exponential the scores have."""
    scale = max(1.0, float(scores.std(ddof=1)) * math.sqrt(6) / math.pi)
    middle = -scale * math.log(np.mean(np.exp(-(scores - scores.mean()) / scale))) + float(scores.mean())
    return Law(middle + moved, scale)


def _places(n: int) -> float:
    """To how many independent trials a search of n cells amounts, up to a factor: Rice's formula for a level that
    falls with the logarithm of the cycles, at the scores that matter.
    """
    cycles = np.linspace(math.log(FEWEST_CYCLES), math.log(max(n / SHORTEST, FEWEST_CYCLES + 1)), 200)
    return float(np.trapezoid(np.sqrt(5.0 + cycles), cycles))
