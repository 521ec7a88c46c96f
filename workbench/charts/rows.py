"""Columns of a run as short text for the browser."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray


def changes(values: NDArray[np.int64], before: int | None) -> list[list[int]]:
    """[[row, value], ...] where a value differs from the one before it; `before` stands in front of the first."""
    if not len(values):
        return []
    rows = (np.flatnonzero(np.diff(values)) + 1).tolist()
    rows = ([] if values[0] == before else [0]) + rows
    return [[row, int(values[row])] for row in rows]


def packed(values: NDArray[np.float64]) -> str | None:
    """Little-endian float32 as base64; None where there is nothing but nulls."""
    if np.isnan(values).all():
        return None
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype("<f4").tobytes()).decode()


def progression(values: NDArray[Any]) -> list[list[float]] | str:
    """Numbers that mostly rise evenly as [[first, count, difference], ...]; otherwise float64 as base64."""
    n, at = len(values), 0
    pieces: list[list[float]] = []
    numbers = np.nan_to_num(values.astype(np.float64), nan=-1.0)
    steps = np.diff(numbers)
    turns = np.flatnonzero(np.diff(steps)) + 1
    while at < n:
        if len(pieces) > 8 + n // 16:
            return base64.b64encode(numbers.astype("<f8").tobytes()).decode()
        turn = np.searchsorted(turns, at, side="right")
        last = int(turns[turn]) if turn < len(turns) else n - 1
        rise = float(steps[at]) if at < n - 1 else 0.0
        pieces.append([float(numbers[at]), last - at + 1, rise])
        at = last + 1
    return pieces
