"""What a trace adds to a log, gathered in one reading: the mean wave of each step's rows for every candidate, and the
loss by place in the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mygpt2.progress import Progress, silent
from mygpt2.ripples.log import Floats, Log
from mygpt2.ripples.runs import Trace

BINS = 96  # of a file, for the profile


@dataclass(frozen=True)
class Traced:
    """`waves`: by candidate, the mean of exp(2 pi i place) over the rows of each of the log's steps (n,), complex.

    `profile` (BINS,) is the mean loss above the trend by place in the file, `error` its standard error; `rows` counts
    what they are made of.
    """

    waves: dict[str, np.ndarray]
    profile: Floats
    error: Floats
    rows: int


def gather(trace: Trace, log: Log, trend: Floats, progress: Progress = silent) -> Traced | None:
    """The sums over the trace's rows whose steps are in the log; None when there are none. `trend` is (n,)."""
    n = len(log)
    sums = {name: np.zeros(n, complex) for name in trace.places}
    count = np.zeros(n)
    bins = np.zeros((3, BINS))  # rows, losses, squares
    for piece in trace.pieces(progress):
        at = np.searchsorted(log.step, piece.step)
        good = (at < n) & (log.step[np.minimum(at, n - 1)] == piece.step) & np.isfinite(piece.loss)
        if not good.any():
            continue
        index = at[good]
        count += np.bincount(index, minlength=n)
        for name, total in sums.items():
            wave = np.exp(2j * np.pi * trace.phases(piece, name)[good])
            total += np.bincount(index, wave.real, n) + 1j * np.bincount(index, wave.imag, n)
        place = np.minimum((trace.phases(piece, "a file")[good] * BINS).astype(np.int64), BINS - 1)
        above = piece.loss[good] - trend[index]
        for row, values in zip(bins, (np.ones(len(above)), above, above**2), strict=True):
            row += np.bincount(place, values, BINS)
    if not count.any():
        return None
    waves = {name: np.divide(total, count, out=np.zeros(n, complex), where=count > 0) for name, total in sums.items()}
    number = np.maximum(bins[0], 1)
    mean = bins[1] / number
    error = np.sqrt(np.maximum(bins[2] / number - mean**2, 0) / number)
    return Traced(waves, np.where(bins[0] > 0, mean, np.nan), error, int(count.sum()))
