"""What is drawn: thinned for the eye by the extremes of each bucket, after everything was computed on all points."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from mygpt2.ripples.forecast import convolved
from mygpt2.ripples.log import Floats
from mygpt2.ripples.repetition import autocorrelation
from mygpt2.ripples.runs import BINS, Traced
from mygpt2.ripples.search import limits
from mygpt2.ripples.sliding import picture
from mygpt2.ripples.study import ALPHA, Study

POINTS = 1600  # of a curve
SPECTRUM_POINTS = 700
FOLDS = 48


def thinned(x: Floats, *ys: Floats, most: int = POINTS) -> list[list[float]]:
    """x and ys as lists of at most `most` points: of each bucket the lowest and highest of the first y."""
    n = len(x)
    if n <= most:
        return [list(map(float, column)) for column in (x, *ys)]
    bounds = np.linspace(0, n, most // 2 + 1).astype(int)
    kept: list[int] = []
    for a, b in pairwise(bounds):
        kept += sorted({a + int(np.argmin(ys[0][a:b])), a + int(np.argmax(ys[0][a:b]))})
    return [column[kept].astype(float).tolist() for column in (x, *ys)]


def figures(study: Study, rest: Floats, traced: Traced | None) -> dict[str, Any]:
    """All figures of a report, JSON-ready. Periods and lags are in steps."""
    kept, grid = study.kept, study.grid
    step, loss, trend = thinned(kept.step, kept.loss, study.trend)
    at, residual = thinned(kept.step, study.residual)
    found: dict[str, Any] = {
        "series": {"step": step, "loss": loss, "trend": trend},
        "residual": {"step": at, "value": residual},
        "periodogram": _periodogram(study),
        "autocorrelation": _autocorrelation(study, rest),
        "folded": _folded(study),
        "sliding": _sliding(study),
    }
    if kept.tokens is not None:
        found["series"]["tokens"] = np.interp(step, kept.step, kept.tokens).tolist()
    if traced is not None:
        found["by_place_in_file"] = _by_place(traced, kept.layout.file_tokens, kept.layout.document_tokens)
    found["steps_per_cell"] = grid.steps_per_cell
    return found


def _periodogram(study: Study) -> dict[str, Any]:
    """Semi-amplitude by period, with the null's mean, and what the null exceeds somewhere in one run of twenty."""
    transform, found = study.transform, study.found
    first, last = limits(transform)
    at = np.arange(first, last + 1)
    scale = 4 / transform.total
    cycles = transform.frequency[at] * transform.n
    need = np.maximum(study.law.level(ALPHA) + np.log(cycles), 0)
    columns = [found.power[at], found.null.power[at], found.null.power[at] * need]
    edges = np.unique(np.geomspace(first, last + 1, SPECTRUM_POINTS).astype(int)) - first
    pieces = list(pairwise(edges))
    peak = [a + int(np.argmax(found.power[at[a:b]])) for a, b in pieces]
    amplitude, mean, limit = (np.sqrt(np.maximum(scale * column[peak], 0)).tolist() for column in columns)
    steps = study.grid.steps_per_cell / transform.frequency[at[peak]]
    per_step = study.kept.tokens_per_step
    return {
        "period_steps": steps.tolist(), "period_tokens": (steps * per_step).tolist() if per_step else None,
        "amplitude": amplitude, "null": mean, "level": limit, "level_p": ALPHA,
    }  # fmt: skip


def _autocorrelation(study: Study, rest: Floats) -> dict[str, Any]:
    both = [autocorrelation(values, study.grid.weight) for values in (study.y, rest)]
    lag = np.arange(1, len(both[0])) * study.grid.steps_per_cell
    x, whole, without = thinned(lag, both[0][1:], both[1][1:])
    return {"lag_steps": x, "value": whole, "without_line": without, "error": 2 / math.sqrt(study.grid.points)}


def _folded(study: Study) -> dict[str, Any]:
    """The residual by phase of the period that was found, with the line, over the stretch where it was found."""
    start, stop = study.main
    line = study.fitted.line
    weight, y = study.grid.weight[start:stop], study.y[start:stop]
    y = y - weight @ y / weight.sum()
    phase = np.mod(np.arange(stop - start) * line.frequency, 1.0)
    bins = int(np.clip(line.period, 8, FOLDS))
    index = np.minimum((phase * bins).astype(int), bins - 1)
    count = np.bincount(index, weight, bins)
    mean = np.bincount(index, weight * y, bins) / np.maximum(count, 1e-12)
    spread = np.bincount(index, weight * (y - mean[index]) ** 2, bins) / np.maximum(count, 1e-12)
    centre = (np.arange(bins) + 0.5) / bins
    fine = np.linspace(0, 1, 129)
    return {
        "phase": centre.tolist(), "mean": mean.tolist(), "error": np.sqrt(spread / np.maximum(count, 1)).tolist(),
        "fit_phase": fine.tolist(), "fit": line.folded(fine).tolist(),
    }  # fmt: skip


def _sliding(study: Study) -> dict[str, Any]:
    edges, amplitude = picture(study.windows)
    grid, unit = study.grid, study.grid.steps_per_cell
    return {
        "period_steps": (edges * unit).tolist(),
        "window_steps": [[float(grid.steps(w.start)), float(grid.steps(w.stop))] for w in study.windows],
        "amplitude": amplitude.tolist(),
        "best_period_steps": [unit / w.found.frequency for w in study.windows],
        "best_amplitude": [w.amplitude for w in study.windows],
    }


def _by_place(traced: Traced, file_tokens: float | None, document_tokens: float | None) -> dict[str, Any]:
    """The profile of loss by place in the file; and, where a file's length is known, as two buffers would leave it."""
    place = (np.arange(BINS) + 0.5) / BINS
    good = np.isfinite(traced.profile)
    filled = np.interp(place, place[good], traced.profile[good], period=1.0) if good.any() else np.zeros(BINS)
    found: dict[str, Any] = {
        "place": place.tolist(),
        "mean": [float(x) if np.isfinite(x) else None for x in traced.profile],
        "error": traced.error.tolist(),
        "rows": traced.rows,
    }
    if file_tokens and document_tokens:
        documents = file_tokens / document_tokens
        found["under_buffer"] = {
            f"{share:g} of a file": convolved(filled, share * documents, documents).tolist() for share in (0.1, 0.5)
        }
    return found
