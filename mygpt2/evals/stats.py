"""Standard errors and paired tests. Pure functions of NumPy arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


def clustered_error(nll: np.ndarray, count: np.ndarray) -> float | None:
    """Standard error of Σ nll / Σ count when what belongs to one document is not independent.

    nll, count (documents,): the sums over each document's targets. This is the sandwich for a ratio of sums (Cochran,
    Sampling Techniques, 3rd ed., eq. 6.9, with documents as the sampled units). None for fewer than two documents.
    """
    used = count > 0
    nll, count = nll[used].astype(np.float64), count[used].astype(np.float64)
    documents = len(count)
    if documents < 2:
        return None
    residual = nll - count * (nll.sum() / count.sum())
    return float(math.sqrt(documents / (documents - 1) * np.square(residual).sum()) / count.sum())


def share_error(share: float, n: int) -> float | None:
    """Standard error of the mean of n zeros and ones; None for fewer than two."""
    return math.sqrt(share * (1.0 - share) / (n - 1)) if n > 1 else None


class Paired(NamedTuple):
    """Two models on the same items. `difference` is the first's share of correct items less the second's."""

    difference: float
    stderr: float | None
    better: int  # items that only the first gets right
    worse: int  # items that only the second gets right
    p_value: float  # McNemar's exact test, two-sided


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """Compares two boolean arrays (items,) of correct answers item by item."""
    difference = first.astype(np.float64) - second.astype(np.float64)
    n = len(difference)
    error = float(difference.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    return Paired(float(difference.mean()) if n else 0.0, error, better, worse, mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p of `better` against `worse` discordant items under a fair coin, in whole numbers."""
    n, few = better + worse, min(better, worse)
    tail, term = 0, 1
    for i in range(few + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    return min(1.0, 2 * tail / 2**n)
