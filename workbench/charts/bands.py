"""The bands behind the chart's curves: between which losses runs of the same recipe lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mygpt2.errors import UserError
from mygpt2.experiments.bands import DIGITS, LEVEL, Band, bands
from mygpt2.experiments.standing import fitting
from workbench.charts.points import Runs
from workbench.charts.view import MAX_RUNS


def bands_of(context: Runs, request: Any) -> dict[str, dict[str, Any]]:
    """{run: {"preset", "words", "step", "low", "high"}} of `request["runs"]` for which a band is good.

    `step`: the middle of each stretch; `low`, `high`: of one more run, in nats per token.
    """
    names = request.get("runs") if isinstance(request, Mapping) else None
    known, found = bands(), dict[str, dict[str, Any]]()
    for name in (names if isinstance(names, list) else [])[:MAX_RUNS]:
        try:
            band = fitting(context.run(str(name)), known)
        except (UserError, OSError):
            continue
        if isinstance(band, Band):
            found[str(name)] = _plain(band)
    return found


def _plain(band: Band) -> dict[str, Any]:
    low, high = band.limits()
    words = f"{LEVEL:.0%} band of {len(band.replicates)} runs of {band.preset} with other seeds"
    return {
        "preset": band.preset, "words": words, "step": band.stretches.mean(axis=1).tolist(),
        "low": low.round(DIGITS).tolist(), "high": high.round(DIGITS).tolist(),
    }  # fmt: skip
