"""A ladder's plot as a PNG, drawn from a look of verdict.json."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mygpt2.format import short
from mygpt2.plots import DOTS_PER_INCH, INCHES

# Light to dark with size (ColorBrewer's Blues), and the colour of what was foretold.
SHADES = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
NEXT = "#c8501e"


def ladder_png(look: Mapping[str, Any], title: str) -> bytes:
    """Losses over tokens, a line for each size; the next size's forecast with its interval, and what was measured."""
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for depth, colour in _colours(look).items():
        cells = [cell for cell in look["cells"] if cell["depth"] == depth]
        label = _label(cells[0])
        axes.plot(
            [c["tokens"] for c in cells], [c["loss"] for c in cells], "o", color=colour, markersize=5, label=label
        )
    for curve in look["curves"]:
        colour = _colours(look).get(curve["depth"], NEXT)
        axes.plot(curve["tokens"], curve["loss"], color=colour, linewidth=1.2)
        if "low" in curve:
            axes.fill_between(curve["tokens"], curve["low"], curve["high"], color=NEXT, alpha=0.15, linewidth=0)
    _next(axes, look)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(sorted({cell["tokens"] for cell in look["cells"]}))
    axes.yaxis.set_major_locator(MaxNLocator(8))
    axes.set_xlabel("tokens")
    axes.set_ylabel(f"loss (nats per token, {look['protocol']['name']})")
    axes.set_title(title, fontsize=11)
    axes.grid(True, linewidth=0.4, alpha=0.35)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()


def _next(axes: Axes, look: Mapping[str, Any]) -> None:
    """Frozen intervals of what is near enough to be in the plot, and the measured losses."""
    label: str | None = "foretold, 80 %"
    for one in _near(look):
        loss = one["loss"]
        middle = loss["value"] if loss["value"] is not None else (loss["low"] + loss["high"]) / 2
        reach = [[middle - loss["low"]], [loss["high"] - middle]]
        axes.errorbar([one["tokens"]], [middle], yerr=reach, fmt="_", color=NEXT, capsize=5, label=label)
        label = None
    if look["next"]:
        cells = look["next"]
        axes.plot([c["tokens"] for c in cells], [c["loss"] for c in cells], "D", color=NEXT, markersize=5,
                  label=f"measured: {_label(cells[0])}")  # fmt: skip


def _near(look: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The forecasts of the ladder's next size; presets that lie far away would flatten everything else."""
    names = {cell["run"] for cell in look["next"]}
    last = max(cell["tokens"] for cell in look["cells"])
    sizes = max(cell["n"] for cell in look["cells"])
    return [
        one for one in look["forecasts"]
        if (one["name"] in names or (one["tokens"] <= 4 * last and one["n"] <= 8 * sizes))
        and one["loss"]["low"] is not None and one["loss"]["high"] is not None
    ]  # fmt: skip


def _colours(look: Mapping[str, Any]) -> dict[int, str]:
    depths = sorted({cell["depth"] for cell in look["cells"]})
    last = len(SHADES) - 1
    return {depth: SHADES[round(place * last / max(1, len(depths) - 1))] for place, depth in enumerate(depths)}


def _label(cell: Mapping[str, Any]) -> str:
    return f"{cell['depth']} layer{'s' if cell['depth'] > 1 else ''}, {short(cell['n'])}"
