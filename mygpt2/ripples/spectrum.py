"""The generalised Lomb-Scargle periodogram (floating mean) of a grid, by Fourier transforms; lines fitted by least
squares.

For each frequency, by how much a sine and a constant fit better than the constant alone (Zechmeister & Kuerster 2009,
equations 4 to 15). On a regular grid with weights the sums are transforms of w*y and of w, so that all frequencies
cost N log N. Frequencies are in cycles per cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from mygpt2.ripples.log import Floats

OVERSAMPLING = 4  # frequencies per 1/T
HARMONICS = 3
SHORTEST = 4.0  # cells of a period
FEWEST_CYCLES = 3.0


class Transform:
    """The sums that depend only on where data is missing, made once for a series and its surrogates.

    `frequency` is (m,), from 0 to one half. Weights count how many values a cell is the mean of.
    """

    def __init__(self, weight: Floats) -> None:
        self.weight = weight
        self.n = len(weight)
        self.total = float(weight.sum())
        self.size = fft.next_fast_len(OVERSAMPLING * self.n, real=True)
        self.size += self.size % 2
        self.frequency = np.arange(self.size // 2 + 1) / self.size
        p = fft.rfft(weight / self.total, self.size)
        c, s = p.real, -p.imag
        double = 2 * np.arange(len(p))
        folded = np.where(double < len(p), double, self.size - double)
        c2, s2 = p.real[folded], np.where(double < len(p), 1, -1) * -p.imag[folded]
        cc, ss, cs = (1 + c2) / 2 - c * c, (1 - c2) / 2 - s * s, s2 / 2 - c * s
        determinant = cc * ss - cs * cs
        good = determinant > 1e-4
        inverse = np.divide(self.total, determinant, out=np.zeros_like(determinant), where=good)
        self._ss, self._cc, self._cs = ss * inverse, cc * inverse, 2 * cs * inverse

    def reduction(self, y: Floats) -> Floats:
        """(..., m): the weighted sum of squares that a sine at each frequency explains of y (..., n).

        With white noise of variance v its mean is 2 v for an unweighted series.
        """
        mean = (y @ self.weight)[..., None] / self.total
        f = fft.rfft(self.weight * (y - mean) / self.total, self.size)
        yc, ys = f.real, -f.imag
        return self._ss * yc * yc + self._cc * ys * ys - self._cs * yc * ys


@dataclass(frozen=True)
class Line:
    """A periodic curve: frequency in cycles per cell, and (cos, sin) coefficients (K, 2) of its harmonics."""

    frequency: float
    coefficients: Floats

    @property
    def period(self) -> float:
        return 1 / self.frequency

    @property
    def amplitude(self) -> float:
        """Semi-amplitude of the fundamental."""
        return float(np.hypot(*self.coefficients[0]))

    def at(self, t: Floats) -> Floats:
        """The curve at cells t."""
        angle = 2 * np.pi * np.mod(self.frequency * t, 1.0)
        return sum(
            (a * np.cos(k * angle) + b * np.sin(k * angle) for k, (a, b) in enumerate(self.coefficients, 1)),
            np.zeros(len(t)),
        )

    def folded(self, phase: Floats) -> Floats:
        """The curve at phases 0 to 1 of its period."""
        return self.at(phase / self.frequency)


def harmonics_of(frequency: float) -> int:
    """How many harmonics lie below the highest frequency the grid can show, three at most."""
    return max(1, min(HARMONICS, int(0.49 / frequency)))


def fit_line(y: Floats, weight: Floats, frequency: float) -> Line:
    """The harmonics at a frequency, by weighted least squares with a floating mean."""
    count = harmonics_of(frequency)
    angle = 2 * np.pi * np.mod(frequency * np.arange(len(y)), 1.0)
    columns = np.empty((2 * count + 1, len(y)))
    columns[0] = 1.0
    for k in range(1, count + 1):
        np.cos(k * angle, out=columns[2 * k - 1])
        np.sin(k * angle, out=columns[2 * k])
    weighted = columns * weight
    solution = np.linalg.lstsq(weighted @ columns.T, weighted @ y, rcond=None)[0]
    return Line(frequency, solution[1:].reshape(count, 2))


def without_lines(y: Floats, weight: Floats, frequency: Floats, harmonics: np.ndarray) -> Floats:
    """Series y (B, n) without the line of each one's frequency (B,), with so many harmonics (B,), by least squares."""
    n = y.shape[-1]
    wave = np.exp(2j * np.pi * np.mod(frequency[:, None] * np.arange(n), 1.0))
    columns = np.empty((len(y), 2 * HARMONICS + 1, n))
    columns[:, 0] = 1.0
    power = wave
    for k in range(1, HARMONICS + 1):
        power = wave if k == 1 else power * wave
        shown = (harmonics >= k)[:, None]
        columns[:, 2 * k - 1], columns[:, 2 * k] = power.real * shown, power.imag * shown
    weighted = columns * weight
    normal = weighted @ columns.transpose(0, 2, 1)
    size = np.arange(2 * HARMONICS + 1)
    normal[:, size, size] += normal[:, size, size] == 0  # of harmonics that are left out
    solution = np.linalg.solve(normal, weighted @ y[:, :, None])
    return y - (solution.transpose(0, 2, 1) @ columns)[:, 0]
