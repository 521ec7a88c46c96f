"""What comes back once in a period without being a wave: short pulses, as an evaluation or a save can leave them, or
the same rough stretch again, as data that is read over and over.

Its power is spread over many harmonics, of which none need stand out, and whose highest is as likely the seventh as the
first. So at each period the power at K harmonics is compared with that between them: under any smooth noise, whatever
its level, their share is a Beta law's. No single frequency counts for more than CAP, so that two waves are no comb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import fft, special

from mygpt2.ripples.log import Floats
from mygpt2.ripples.null import Null
from mygpt2.ripples.spectrum import Line, Transform

LEVELS = (6, 12, 24, 48, 0)  # harmonics that are looked at together; 0: all that there are
ALL_HARMONICS = 128  # at most
BETWEEN = (0.25, 0.5, 0.75)  # of a harmonic's distance to the one before: where there is none
FEWEST_CYCLES = 8  # fewer happen to lie evenly
CAP = 8.0  # times the null's power
ALPHA, FEW = 1e-3, 0.01  # of the search over all periods, and of those that are known
PEAKED = 5.0  # kurtosis of a profile beyond which it is a pulse: one of a tenth of the period has 8, noise has 3
FLAT = 0.25  # power of the upper half of the harmonics as a share of the lower half's: a wave of any shape has less
ALL, NEARLY, MOST_PARTS, MOST_TIMES = 0.75, 0.85, 24, 6  # of the power; whole parts and multiples of a period
SNAP = 0.9  # of the best period's power at which the nearest whole number of cells is taken: events come at steps

Kind = Literal["pulse", "again", "wave"]


@dataclass(frozen=True)
class Folded(Line):
    """A curve by its values (bins,) over one period, a bin a cell or nearly so."""

    profile: Floats

    def at(self, t: Floats) -> Floats:
        """The curve at cells t."""
        return self.profile[_bins(t, self.frequency, len(self.profile))]


@dataclass(frozen=True)
class Comb:
    """What recurs: its line, how many harmonics showed it, its chance (look-elsewhere counted), and what it looks like.

    `pulse`: height above the usual level (nats), width and place of its beginning after a period's (cells). `period`
    and `height` have intervals at 95 %.
    """

    line: Folded
    harmonics: int
    score: float
    p_value: float
    kind: Kind
    height: float
    width: int
    start: float
    height_error: float
    cycles: float

    @property
    def period_interval(self) -> tuple[float, float]:
        """An event of so many cells' width is placed to half of it, over all the cycles."""
        slack = max(0.5, self.width / 2) / max(1.0, self.cycles - 1)
        return self.line.period - slack, self.line.period + slack

    def height_of(self, y: Floats, weight: Floats) -> float:
        """The mean height of the pulse in another series (n,) of the same cells."""
        profile, _ = fold(y, weight, self.line.period)
        at = (int(self.start) + np.arange(self.width)) % len(profile)
        return float(np.mean(profile[at]) - np.median(profile))


def find_comb(transform: Transform, y: Floats, null: Null, known: tuple[float, ...] = ()) -> Comb | None:
    """The comb of y (n,) that stands out, None where none does. `known`: periods in cells that are no surprise, tried
    first and at a lower price.
    """
    if transform.n < 64:
        return None
    z = spectrum(transform, y, null)
    for period in known:
        score, many = comb_score(transform, z, period)
        if len(known) * math.exp(-score) < FEW and _whole_comb(transform, z, period) == period:
            return _described(transform, y, null, period, many, score, len(known) * math.exp(-score))
    best = (0.0, 0, 0.0)
    for level in LEVELS:
        frequency, harmonics = _trials(transform.n, level)
        if len(frequency):
            scores = _scores(transform, z, frequency, harmonics)
            at = int(np.argmax(scores))
            best = max(best, (float(scores[at]), int(harmonics[at]), float(frequency[at])))
    score, many, found = best
    p = min(1.0, len(LEVELS) * transform.n * math.exp(-score))
    if p >= ALPHA:
        return None
    period = _whole_comb(transform, z, _refined(transform, z, found, many))
    if not _comes_each_time(transform, y, null, period):
        return None
    return _described(transform, y, null, period, many, score, p)


def comb_score(transform: Transform, z: Floats, period: float) -> tuple[float, int]:
    """(-log of the chance of so much power at a period's harmonics, how many of them show it) for one period."""
    every = max(2, min(ALL_HARMONICS, int(0.5 * period)))
    many = np.array([k for k in LEVELS if 0 < k < every] + [every])
    if transform.n < FEWEST_CYCLES * period or period < 6:
        return 0.0, every
    scores = [float(_scores(transform, z, np.array([1 / period]), many[i : i + 1])[0]) for i in range(len(many))]
    best = int(np.argmax(scores))
    return max(0.0, scores[best] - math.log(len(many))), int(many[best])


def spectrum(transform: Transform, y: Floats, null: Null) -> Floats:
    """(m,): the power of y (n,) in units of the null's, under Hann's taper: what stands out has no skirts."""
    weight = transform.weight * (1 - np.cos(2 * np.pi * (np.arange(transform.n) + 0.5) / transform.n))
    centred = weight * (y - float(weight @ y) / float(weight.sum()))
    power = np.abs(fft.rfft(centred, transform.size)) ** 2 / float(weight @ weight) * float(np.mean(transform.weight))
    return np.asarray(np.minimum(np.divide(power, null.power, out=np.zeros_like(power), where=null.power > 0), CAP))


def _trials(n: int, level: int) -> tuple[Floats, np.ndarray]:
    """(frequencies (f,) ascending, harmonics of each (f,)): so many, or for level 0 all that there are.

    They lie so close that the highest harmonic is never off by more than a quarter of 1/n.
    """
    first = FEWEST_CYCLES / n
    if level:
        frequency = np.arange(first, 0.5 / level, 0.5 / (n * level))
        return frequency, np.full(len(frequency), level)
    first, last = max(first, 0.5 / ALL_HARMONICS), 0.5 / LEVELS[1]
    count = max(0, math.ceil(n * math.log(last / first))) if last > first else 0
    frequency = first * np.exp(np.arange(count) / n)
    return frequency, (0.5 / frequency).astype(np.int64)


def _scores(transform: Transform, z: Floats, frequency: Floats, harmonics: np.ndarray) -> Floats:
    """-log of the chance (f,) under any smooth noise that so large a share of the power is at the harmonics (f,).

    `frequency` ascends and `harmonics` does not. The two highest count as the mean: two waves are no comb.
    """
    on, off, most, next_most = np.zeros((4, len(frequency)))
    place = frequency * transform.size
    for k in range(1, int(harmonics[0]) + 1):
        stop = len(harmonics) if k <= harmonics[-1] else int(np.searchsorted(-harmonics, -k, side="right"))
        at = place[:stop]
        value = z[np.rint(k * at).astype(np.int64)]
        on[:stop] += value
        next_most[:stop] = np.maximum(next_most[:stop], np.minimum(most[:stop], value))
        most[:stop] = np.maximum(most[:stop], value)
        for part in BETWEEN:
            off[:stop] += z[np.rint((k - part) * at).astype(np.int64)]
    mean = off / (len(BETWEEN) * harmonics)
    on += 2 * mean - most - next_most
    share = np.clip(on / np.maximum(on + off, 1e-300), 0.0, 1.0)
    return -np.log(np.maximum(special.betaincc(harmonics, len(BETWEEN) * harmonics, share), 1e-300))


def _refined(transform: Transform, z: Floats, frequency: float, harmonics: int) -> float:
    """The period with the most power at all of its harmonics; a whole number of cells where that is as good."""
    many = max(harmonics, min(ALL_HARMONICS, int(0.49 / frequency)))
    step = 0.25 / (transform.n * many)
    near = frequency + step * np.arange(-8 * many // harmonics, 8 * many // harmonics + 1)
    near = near[near * many < 0.5]
    whole = round(1 / frequency)
    tried = np.r_[near, 1 / whole] if whole > 1 else near
    total = np.zeros(len(tried))
    for k in range(1, many + 1):
        total += z[np.minimum(np.rint(k * tried * transform.size).astype(np.int64), len(z) - 1)]
    if whole > 1 and total[-1] >= SNAP * total.max():
        return float(whole)
    return float(1 / tried[np.argmax(total)])


def _whole_comb(transform: Transform, z: Floats, period: float) -> float:
    """The period whose harmonics hold all the power that a multiple of this one holds, and no more harmonics than that.

    Of what comes every 50 cells, 100 has all and 25 has half; the search may have met with 100, 25 or 75.
    """

    def excess(other: float) -> float:
        many = int(0.5 * other)
        return float(np.sum(z[np.rint(np.arange(1, many + 1) / other * transform.size).astype(np.int64)] - 1))

    longer = [period * j for j in range(1, MOST_TIMES + 1) if transform.n >= FEWEST_CYCLES / 2 * period * j]
    held = [excess(other) for other in longer]
    if not held or max(held) <= 0:
        return period
    period = next(other for other, power in zip(longer, held, strict=True) if power >= NEARLY * max(held))
    parts = [j for j in range(2, MOST_PARTS + 1) if period / j >= 4 and excess(period / j) > ALL * excess(period)]
    period /= max(parts, default=1)
    return float(round(period)) if abs(period - round(period)) < 1e-9 * period else period


def _comes_each_time(transform: Transform, y: Floats, null: Null, period: float) -> bool:
    """Whether y is like itself one period later as it is after several: what is read again after three has power at
    the harmonics of one as well.
    """
    weight = transform.weight
    power = np.abs(fft.rfft(weight * (y - float(weight @ y) / float(weight.sum())), transform.size)) ** 2
    alike = fft.irfft(np.divide(power, null.power, out=np.zeros_like(power), where=null.power > 0), transform.size)
    lags = np.rint(period * np.arange(1, int(0.75 * transform.n / period) + 1)).astype(np.int64)
    value = np.maximum(alike[lags - 1], np.maximum(alike[lags], alike[lags + 1])) / alike[0]
    value = value * transform.n / (transform.n - lags)
    return bool(value[0] + 2 / math.sqrt(transform.n) > 0.5 * value.max())


def _bins(t: Floats, frequency: float, count: int) -> np.ndarray:
    return np.minimum((np.mod(t * frequency + 1e-9, 1.0) * count).astype(np.int64), count - 1)


def fold(y: Floats, weight: Floats, period: float) -> tuple[Floats, Floats]:
    """(mean of y in each cell of a period (bins,), its weight)."""
    count = max(2, round(period))
    index = _bins(np.arange(len(y), dtype=np.float64), 1 / period, count)
    total = np.bincount(index, weight, count)
    mean = np.bincount(index, weight * y, count)
    return np.divide(mean, total, out=np.zeros(count), where=total > 0), total


def _described(
    transform: Transform, y: Floats, null: Null, period: float, harmonics: int, score: float, p: float
) -> Comb:
    """The comb at a period: its profile, and of which kind that is."""
    profile, total = fold(y, transform.weight, period)
    profile = profile - float(total @ profile) / float(total.sum())
    wave = np.fft.rfft(profile)[1 : max(2, len(profile) // 2)] * 2 / len(profile)
    line = Folded(1 / period, np.column_stack([wave.real, -wave.imag]), profile)
    cycles = transform.n / period
    height, width, start = _pulse(profile)
    error = null.deviation / math.sqrt(max(1.0, cycles * max(1, width)))
    return Comb(line, harmonics, score, max(p, 1e-6), _kind(profile, wave, null, transform, period), height, width,
                start, error, cycles)  # fmt: skip


def _pulse(profile: Floats) -> tuple[float, int, float]:
    """(mean height above the usual level, width in bins, its first bin) of what stands out furthest in a profile."""
    above = profile - np.median(profile)
    top = int(np.argmax(np.abs(above)))
    inside = above * np.sign(above[top]) > 0.4 * abs(above[top])
    left = right = 0
    count = len(above)
    while left < count - 1 and inside[(top - left - 1) % count]:
        left += 1
    while right + left < count - 1 and inside[(top + right + 1) % count]:
        right += 1
    at = (top + np.arange(-left, right + 1)) % count
    return float(above[at].mean()), len(at), float((top - left) % count)


def _kind(profile: Floats, wave: np.ndarray, null: Null, transform: Transform, period: float) -> Kind:
    """A pulse by its kurtosis; else read again if the harmonics keep up with the noise's spectrum to the highest."""
    spread = float(np.mean(profile**2))
    if spread > 0 and float(np.mean(profile**4)) / spread**2 > PEAKED:
        return "pulse"
    at = np.minimum(np.rint(np.arange(1, len(wave) + 1) / period * transform.size).astype(int), len(null.power) - 1)
    excess = np.abs(wave) ** 2 * transform.total / 4 / null.power[at] - 1
    half = len(excess) // 2
    return "again" if half >= 4 and excess[half:].mean() > FLAT * max(excess[:half].mean(), 0.5) else "wave"
