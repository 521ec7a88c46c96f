"""Two runs with the same data order, step against step: the noise that both share cancels.

The interval of the mean difference uses the noise's long-run variance (its autoregression's power at frequency zero),
so that steps which are alike are not counted as so many measurements.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mygpt2.errors import UserError
from mygpt2.ripples.detrend import SPIKE, robust_scale, without_warmup
from mygpt2.ripples.log import Floats, Log
from mygpt2.ripples.null import NORMAL, autoregression
from mygpt2.ripples.runs import read_config
from mygpt2.run_dir.ghost import check_weights
from mygpt2.run_dir.paths import RunDir

RESOLVE = 0.001  # nats
FEWEST = 32  # common steps
LATE = 0.25  # share of the common steps whose mean difference is the headline
PIECES = 40  # of the curve of differences
SHORTEST_PIECE = 8
SURE, HINT = 0.5, 0.2  # a correlation that shows the same batches, and one that is enough where the settings say so
SAME_ORDER = ("data", "train.batch_tokens", "model.block_size")  # what the batches depend on
FREE = ("cache_dir", "cache_gb", "token_cache", "threads", "prefetch_steps", "encoder", "outage_minutes", "fork")


def compare_runs(first: Log, second: Log) -> dict[str, Any]:
    """The difference first - second per step with its interval, JSON-ready.

    UserError where they share too few steps, and for an imported log, whose batches are not those of a run of ours.

    `difference` and `interval`: mean over the last quarter of the common steps. `steps_to_resolve`: so many such steps
    have an interval of 0.001 nats on either side, with pairing and without. `curve`: means over PIECES stretches.
    """
    for log in (first, second):
        if log.run is not None:
            check_weights(RunDir(log.run))
    steps, mine, its = np.intersect1d(first.step, second.step, assume_unique=True, return_indices=True)
    if len(steps) < FEWEST:
        raise UserError(
            f"{first.name} and {second.name} have {len(steps)} steps in common; a comparison needs {FEWEST}; "
            "give two logs of the same steps"
        )
    a, b = first.loss[mine], second.loss[its]
    late = slice(len(steps) - max(FEWEST, int(LATE * len(steps))), None)
    difference = a - b
    mean, error = mean_and_error(difference[late])
    paired, single = _long_run(difference[late]), math.sqrt(_long_run(a[late]) ** 2 + _long_run(b[late]) ** 2)
    correlation = _correlation(first, mine, a, b)
    why, known = order_differs(first, second), first.run is not None and second.run is not None
    same = correlation > (SURE if why or not known else HINT)
    report = {
        "first": first.name, "second": second.name, "steps": len(steps),
        "from_step": float(steps[late][0]), "to_step": float(steps[-1]),
        "difference": mean, "interval": [mean - NORMAL * error, mean + NORMAL * error], "standard_error": error,
        "significant": abs(mean) > NORMAL * error, "correlation": correlation,
        "same_order": same, "order_differs": why,
        "steps_to_resolve": {"nats": RESOLVE, "paired": _steps(paired), "unpaired": _steps(single)},
        "noise_ratio": single / paired if paired > 0 else None,
        "curve": _curve(steps, difference),
    }  # fmt: skip
    return report | {"verdict": _words(report)}


def mean_and_error(x: Floats) -> tuple[float, float]:
    """Mean of a series (n,) and its standard error, for noise that remembers."""
    return float(x.mean()), _long_run(x) / math.sqrt(len(x))


def _long_run(x: Floats) -> float:
    """Square root of the long-run variance per step: of the innovations, divided by what the memory adds up to.

    A straight line is taken off first: a difference that changes steadily is not noise.
    """
    t = np.linspace(-1, 1, len(x))
    rest = x - x.mean() - t * float(t @ x) / float(t @ t)
    if np.ptp(rest) < 1e-15:
        return 0.0
    coefficients, _, variance = autoregression(rest[None], np.ones(len(x)))
    return math.sqrt(float(variance[0])) / max(1e-3, abs(1 - float(coefficients[0].sum())))


def _steps(noise: float) -> int:
    return max(1, math.ceil((NORMAL * noise / RESOLVE) ** 2))


def _correlation(first: Log, mine: np.ndarray, a: Floats, b: Floats) -> float:
    """Of the two losses from step to step: near one for the same batches, near nothing for others.

    Changes between steps, since models of another size or rate descend along another curve, which no trend of one
    shape takes from both; what neighbouring batches are made of is left in them.
    """
    kept, skipped = without_warmup(first)
    inside = mine >= skipped
    if inside.sum() < FEWEST or len(kept) < FEWEST:
        inside = np.ones(len(a), bool)
    x, y = (_clipped(np.diff(v[inside])) for v in (a, b))
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0


def _clipped(x: Floats) -> Floats:
    """Without what a spike alone would make of a correlation."""
    limit = SPIKE * robust_scale(x)
    middle = float(np.median(x))
    return np.clip(x - middle, -limit, limit) if limit > 0 else x - middle


def order_differs(first: Log, second: Log) -> list[str]:
    """The settings that give the two run folders other batches; empty for logs that are not run folders."""
    if first.run is None or second.run is None:
        return []
    one, two = (_flat(read_config(RunDir(log.run))) for log in (first, second) if log.run is not None)
    keys = [
        k for k in sorted({*one, *two}) if k.startswith(("data.", *SAME_ORDER[1:])) and k.split(".")[-1] not in FREE
    ]
    return [f"{key}: {one.get(key)} and {two.get(key)}" for key in keys if one.get(key) != two.get(key)]


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    return {f"{s}.{k}": v for s, values in config.items() if isinstance(values, dict) for k, v in values.items()}


def _curve(steps: Floats, difference: Floats) -> list[dict[str, float]]:
    """Means of the difference over stretches of the run, each with its interval."""
    found = []
    for part in np.array_split(np.arange(len(steps)), max(1, min(PIECES, len(steps) // SHORTEST_PIECE))):
        mean, error = mean_and_error(difference[part])
        low, high = mean - NORMAL * error, mean + NORMAL * error
        middle = float(steps[part].mean())
        found.append({"step": middle, "difference": mean, "low": low, "high": high})
    return found


def _words(report: dict[str, Any]) -> str:
    mean, (low, high) = report["difference"], report["interval"]
    stretch = f"over the steps {report['from_step']:.0f} to {report['to_step']:.0f}"
    name, other = report["first"], report["second"]
    if report["significant"]:
        word = "higher" if mean > 0 else "lower"
        text = f"{name} is {word} than {other} by {abs(mean):.4f} nats [{low:+.4f}, {high:+.4f}] {stretch}."
    else:
        text = f"No difference of {name} to {other} is resolved: {mean:+.4f} nats [{low:+.4f}, {high:+.4f}] {stretch}."
    need = report["steps_to_resolve"]
    ratio = report["noise_ratio"]
    gain = "" if ratio is None else f", from which pairing takes {ratio:.3g} times the noise"
    if report["same_order"]:
        text += (
            f" Their batches are the same (the losses move together from step to step: correlation "
            f"{report['correlation']:.2f}){gain}: 0.001 nats is resolved in {need['paired']:,} steps, which without "
            f"pairing would take {need['unpaired']:,}."
        )
    else:
        text += (
            f" Their batches are not the same (from step to step the losses correlate {report['correlation']:.2f}), so "
            f"that pairing gains little: 0.001 nats takes {need['paired']:,} steps."
        )
    if report["order_differs"]:
        text += f" They differ in {'; '.join(report['order_differs'][:4])}."
    return text
