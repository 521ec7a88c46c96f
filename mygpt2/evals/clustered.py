"""The error of a loss per token, when what is drawn are documents."""

from __future__ import annotations

import math

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
