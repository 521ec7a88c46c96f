"""The steps of the chart's runs whose loss stands out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mygpt2.errors import UserError
from mygpt2.experiments.step import spikes_of
from workbench.charts.points import Runs
from workbench.charts.view import MAX_RUNS

MOST = 1000  # of a run; of more, the clearest


def spikes(context: Runs, request: Any) -> dict[str, list[dict[str, Any]]]:
    """{run: [{"step", "loss", "expected", "z"}]} of `request["runs"]`, by step; null for what is no number.

    Runs that cannot be read have none.
    """
    names = request.get("runs") if isinstance(request, Mapping) else None
    found: dict[str, list[dict[str, Any]]] = {}
    for name in (names if isinstance(names, list) else [])[:MAX_RUNS]:
        try:
            every = spikes_of(context.run(str(name)))
        except (UserError, OSError):
            continue
        kept = sorted(sorted(every, key=lambda one: -one.z)[:MOST], key=lambda one: one.step)
        found[str(name)] = [
            {"step": one.step, **{key: _plain(getattr(one, key)) for key in ("loss", "expected", "z")}} for one in kept
        ]
    return found


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
