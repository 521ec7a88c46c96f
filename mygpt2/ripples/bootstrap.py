"""The period to a fraction of the grid's resolution, and how sure it and the amplitude are, by a block bootstrap.

Close to a frequency a series is told by few numbers: multiplied by that frequency's wave and summed over some
thousand pieces, it holds the periodogram near there exactly enough. Blocks of noise are moved among the pieces with
the phase that their new place gives them, which is the moving-block bootstrap (Kuensch 1989) at a thousandth of its
cost. Longer blocks than the noise remembers keep its spectrum near the line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mygpt2.ripples.log import Floats
from mygpt2.ripples.search import Found
from mygpt2.ripples.spectrum import Line, fit_line, harmonics_of

PIECES = 1024
REPLICATES = 400
SMALL = 6  # coefficients of a trend, at most
LEVEL = 0.95
_STEPS = 61  # frequencies within 1.2/T on either side of the grid's best


@dataclass(frozen=True)
class Estimate:
    """A line with the intervals of its period (cells) and semi-amplitude, at 95 %."""

    line: Line
    period_interval: tuple[float, float]
    amplitude_interval: tuple[float, float]


def estimate(y: Floats, weight: Floats, found: Found, remembers: int, seed: int = 0) -> Estimate:
    """The line of y (n,) near the frequency that was found. `remembers`: cells over which the noise is alike."""
    n = len(y)
    centre = found.frequency
    harmonics = harmonics_of(centre)
    clearest = _clearest(found, harmonics)
    size = max(1, math.ceil(n / PIECES))
    time = (np.arange(math.ceil(n / size)) + 0.5) * size - n / 2
    offsets = np.linspace(-1.2, 1.2, _STEPS) / n
    waves = np.exp(-2j * np.pi * np.multiply.outer(np.array([1, clearest]), offsets[:, None] * time))
    mean = float(weight @ y) / float(weight.sum())
    pieces = _pieces((y - mean) * weight, centre, harmonics, size)
    offset, _ = _peak(pieces[[0, clearest - 1], None], waves, offsets)
    line = fit_line(y, weight, centre + float(offset[0]))

    noise = _pieces((y - mean - line.at(np.arange(n))) * weight, centre, harmonics, size)
    rng = np.random.default_rng([seed, n, harmonics])
    block = min(max(4 * remembers, 4 * n ** (1 / 3)), n / 6)
    signal = pieces - noise
    moved = _moved(noise * _lost(n, block, harmonics), max(1, math.ceil(block / size)), centre, size, rng)
    replicates = (signal[:, None] + moved)[[0, clearest - 1]]
    shifts, sums = _peak(replicates, waves, offsets)
    amplitudes = 2 * np.abs(sums) / weight.sum()
    frequencies = centre + shifts
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    # Turned round the estimate (the basic bootstrap): replicates carry noise twice, and are too large by that.
    periods = np.sort(2 * line.period - 1 / frequencies)
    amplitude = np.maximum(0.0, 2 * line.amplitude - amplitudes)
    return Estimate(
        line,
        (float(np.quantile(periods, low)), float(np.quantile(periods, high))),
        (float(np.quantile(amplitude, low)), float(np.quantile(amplitude, high))),
    )


def _lost(n: int, block: float, harmonics: int) -> float:
    """By how much the residual is smaller than the noise was, for what the fits took.

    The trend and the line take a few numbers from n; the line takes two complex ones (its wave, and that wave growing
    along the run, which is its frequency) from the n / block that a block's length cannot tell apart.
    """
    apart = n / block
    return math.sqrt(n / max(1, n - 2 * harmonics - SMALL) * apart / max(1.0, apart - 2))


def _pieces(y: Floats, frequency: float, harmonics: int, size: int) -> np.ndarray:
    """(K, pieces): sums of y times the harmonics' conjugate waves over pieces of `size` cells."""
    padded = np.zeros(math.ceil(len(y) / size) * size)
    padded[: len(y)] = y
    angle = 2 * np.pi * np.mod(frequency * np.arange(len(padded)), 1.0)
    return np.stack([(padded * np.exp(-1j * k * angle)).reshape(-1, size).sum(1) for k in range(1, harmonics + 1)])


def _moved(noise: np.ndarray, block: int, frequency: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """(K, replicates, pieces): noise (K, pieces) in blocks drawn with replacement, turned to their new places."""
    harmonics, pieces = noise.shape
    blocks = math.ceil(pieces / block)
    starts = rng.integers(0, pieces - block + 1, (REPLICATES, blocks))
    source = (starts[:, :, None] + np.arange(block)).reshape(REPLICATES, -1)[:, :pieces]
    turn = np.mod(frequency * size * (source - np.arange(pieces)), 1.0)
    return np.stack([noise[k - 1][source] * np.exp(2j * np.pi * k * turn) for k in range(1, harmonics + 1)])


def _peak(pieces: np.ndarray, waves: np.ndarray, offsets: Floats) -> tuple[Floats, np.ndarray]:
    """(best offsets (r,), the fundamental's sums there (r,)) of the fundamental and the clearest, pieces (2, r, n)."""
    fundamental, clearest = (part @ wave.T for part, wave in zip(pieces, waves, strict=True))  # (r, offsets)
    power = np.abs(clearest) ** 2
    best = np.clip(np.argmax(power, axis=1), 1, len(offsets) - 2)
    row = np.arange(len(best))
    left, middle, right = (power[row, best + d] for d in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.divide(0.5 * (left - right), bend, out=np.zeros(len(best)), where=bend < 0)
    found = offsets[best] + np.clip(shift, -1, 1) * (offsets[1] - offsets[0])
    return found, fundamental[row, best]


def _clearest(found: Found, harmonics: int) -> int:
    """The harmonic that stands out most from the null. It alone tells the period: the others' phases follow the shape
    of the ripple, which changes along a run, and would make the interval narrower than it is.
    """
    numbers = np.arange(1, harmonics + 1)
    places = np.rint(numbers * found.frequency * 2 * (len(found.power) - 1)).astype(np.int64)
    places = np.minimum(places, len(found.power) - 1)
    return int(np.argmax(found.power[places] / found.null.power[places])) + 1
