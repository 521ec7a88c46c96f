"""Where a loss falls at once and stays down, as when a learning rate is lowered in steps that no column tells.

A curve in the logarithm of tokens cannot follow such a stair; what is left of it rises and falls like a saw, and if the
rate is lowered every so often, with a period. A fall is looked for in the medians of short stretches, placed to a step,
and given a time in which the loss gets there. Falls are taken all together or not at all: together they must leave far
less than the curve alone does, and between them the loss must go on falling. A ripple rises again.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mygpt2.ripples.log import Floats

STRETCHES, WINDOW, APART = 160, 6, 3  # of a log; on either side of a fall; between two
TIMES = (0.01, 0.5, 1.5, 4.0)  # stretches in which a fall is two thirds done
CLEAR = 5.0  # deviations
MOST, ROUNDS = 24, 3
SHALLOW = 0.05  # of the deepest fall: what is less is the edge of another
LEFT = 0.5  # of the variance that the curve alone leaves, at most, with the falls
RISE = 0.25  # of all falls, by which the curve may rise between them


def fallen(t: Floats, place: float, time: float) -> Floats:
    """0 before a place, and on its way to 1 after it."""
    return -np.expm1(-np.maximum(0.0, t - place) / time)


@lru_cache(maxsize=2)
def _kernels() -> tuple[Floats, list[tuple[int, float]]]:
    """(kernels (k, STRETCHES) of unit length, the place and time of each): a fall without a straight line, nearby."""
    rows, meaning = [], []
    t = np.arange(STRETCHES, dtype=np.float64)
    for place in range(3, STRETCHES - 2):
        first, last = max(0, place - WINDOW), min(STRETCHES, place + WINDOW)
        line = np.linalg.qr(np.column_stack([np.ones(last - first), t[first:last]]))[0]
        for time in TIMES:
            shape = fallen(t[first:last] + 0.5, place, time)
            shape = shape - line @ (line.T @ shape)
            row = np.zeros(STRETCHES)
            row[first:last] = shape / np.linalg.norm(shape)
            rows.append(row)
            meaning.append((place, time))
    return np.array(rows), meaning


def _medians(y: Floats) -> tuple[Floats, int]:
    """(B, STRETCHES) of y (B, n), and the length of a stretch."""
    every = y.shape[1] // STRETCHES
    return np.median(y[:, : STRETCHES * every].reshape(-1, STRETCHES, every), axis=2), every


def falls(columns: Floats, y: Floats) -> list[Floats | None]:
    """For each of series y (B, n): columns (n, k) of its falls, which with `columns` (n, m) explain it; else None."""
    found: list[Floats | None] = [None] * len(y)
    if y.shape[1] < 4 * STRETCHES:
        return found
    medians, every = _medians(y)
    kernels, meaning = _kernels()
    scale = np.median(np.abs(np.diff(medians, 2, axis=1)), axis=1) / 0.6745 / np.sqrt(6)
    size = medians @ kernels.T / np.maximum(scale, 1e-300)[:, None]
    for row in np.flatnonzero((size.min(axis=1) < -CLEAR) & (scale > 0)):
        places = _peaks(size[row], meaning)
        if places:
            found[row] = _together(columns, y[row], places, every)
    return found


def _peaks(size: Floats, meaning: list[tuple[int, float]]) -> list[int]:
    """Stretches at which the clearest falls begin, none too near another."""
    chosen: list[int] = []
    for index in np.argsort(size):
        if size[index] > -CLEAR or len(chosen) == MOST:
            break
        place = meaning[index][0]
        if all(abs(place - other) > APART for other in chosen):
            chosen.append(place)
    return sorted(chosen)


def _together(columns: Floats, y: Floats, places: list[int], every: int) -> Floats | None:
    """The falls, placed to a step; None where they do not explain the series as falls do."""
    t = np.arange(len(y), dtype=np.float64)
    found = [_placed(y, place * every, every) for place in places]
    q = np.linalg.qr(columns)[0]
    alone = _medians((y - q @ (q.T @ y))[None])[0][0]
    for _ in range(ROUNDS):
        shapes = np.column_stack([fallen(t, *fall) for fall in found])
        solution = np.linalg.lstsq(np.column_stack([columns, shapes]), y, rcond=None)[0]
        depth = -solution[columns.shape[1] :]
        kept = np.flatnonzero(depth > SHALLOW * max(depth.max(), 0.0))
        if not len(kept):
            return None
        if len(kept) == len(found):  # each again, without what all others explain
            rest = y - columns @ solution[: columns.shape[1]] + shapes @ depth
            found = [
                _placed(rest - depth[i] * shapes[:, i], round(place), every, time)
                for i, (place, time) in enumerate(found)
            ]
        else:
            found = [found[i] for i in kept]
    shapes = np.column_stack([fallen(t, *fall) for fall in found])
    solution = np.linalg.lstsq(np.column_stack([columns, shapes]), y, rcond=None)[0]
    depth, curve = -solution[columns.shape[1] :], columns @ solution[: columns.shape[1]]
    left = _medians((y - curve + shapes @ depth)[None])[0][0]
    first, last = (round(edge) for edge in (found[0][0], found[-1][0]))
    rise = float(np.maximum(np.diff(curve[first : last + 2 : max(1, every // 4)]), 0).sum())
    return shapes if left.var() < LEFT * alone.var() and (depth > 0).all() and rise < RISE * depth.sum() else None


def _placed(y: Floats, middle: int, every: int, about: float = 0.0) -> tuple[float, float]:
    """(beginning, time) of the fall that explains most of the series near a place, beside a straight line; with the
    time known roughly (`about`), of a series that holds nothing else.
    """
    first, last = max(0, middle - WINDOW * every), min(len(y), middle + WINDOW * every)
    t = np.arange(first, last, dtype=np.float64)
    line = np.linalg.qr(np.column_stack([np.ones(len(t)), t - t.mean()])[:, : 0 if about else 2])[0]
    part = y[first:last] - line @ (line.T @ y[first:last])
    times = about * np.geomspace(0.5, 2.0, 9) if about else np.geomspace(0.5, TIMES[-1] * every, 8)
    step = max(1, every // 16)
    best = (-1.0, float(middle), 1.0)
    for places, tried in ((np.arange(-2 * every, 2 * every + 1, step), times), (np.arange(-step, step + 1), None)):
        centre = best[1]
        for place in centre + places:
            own = np.array([best[2]]) if tried is None else tried
            shapes = np.stack([fallen(t, place, time) for time in own])
            shapes = shapes - (shapes @ line) @ line.T
            gain = np.minimum(shapes @ part, 0) ** 2 / np.maximum((shapes**2).sum(1), 1e-9)
            top = int(np.argmax(gain))
            if gain[top] > best[0]:
                best = (float(gain[top]), float(place), float(own[top]))
    return best[1], best[2]
