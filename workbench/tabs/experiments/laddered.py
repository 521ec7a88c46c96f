"""A ladder's look as the card shows it: the law, its forecasts with their scores, and both drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mygpt2.experiments.arms import parts_of
from mygpt2.experiments.ladder_words import headline, ladder_text
from mygpt2.format import short
from mygpt2.ripples.plot import Plot, axis_of
from workbench import words
from workbench.html import Markup, Tone
from workbench.tabs.experiments.answer import Answer

COLOURS = 9  # that tab-experiments.css gives a line
STAGES: Mapping[str, str] = {"fitted": "fitted", "foretold": "foretold", "scored": "scored"}
LAW = {"alpha": "Loss falls with size to the power", "beta": "with text to the power", "e": "Never below"}


def laddered(look: Mapping[str, Any]) -> Answer:
    """A look of `ladder`. Whatever of it is damaged raises one of `looks.BROKEN`."""
    found = dict(look)
    scores = [one["score"] for one in found["forecasts"] if one["score"]]
    inside = [bool(score["inside"]) for score in scores if score["counts"]]
    tone: Tone = "neutral" if not inside else "good" if all(inside) else "warn"
    said = headline(found)
    return Answer(
        STAGES[found["stage"]], tone, f"{said[:1].upper()}{said[1:]}.", figures=_figures(found),
        decide=[*map(str, found["undecided"])], notices=[*map(str, found["left_out"])],
        decides="What these cells do not decide", drawn=Markup(_drawn(found)), arms=_arms(found),
        text=ladder_text(found),
    )  # fmt: skip


def _figures(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    law = (found["law"] or {}).get("all") or {}
    figures = []
    for name, label in LAW.items():
        if name in law:
            low, high = (words.fixed(law[name][side], 2) for side in ("low", "high"))
            figures.append((label, words.fixed(law[name]["value"], 2), f"80 %: {low} to {high}"))
    cost = found["spent"]
    figures.append(
        ("Cost so far", words.seconds(cost["seconds"]), f"{cost['runs']} runs, {words.brief(cost['tokens'])} tokens")
    )
    return figures


def _arms(found: Mapping[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for cell in [*found["cells"], *found["next"]]:
        if parts := parts_of(str(cell["run"])):
            layers = f"{cell['depth']} layer{'' if cell['depth'] == 1 else 's'}"
            names[parts[1]] = f"{layers}, {short(cell['tokens'])} tokens"
            names.setdefault(parts[1].partition("-")[0], f"{layers}, the trunk")
    return names


def _drawn(found: Mapping[str, Any]) -> str:
    """Losses over tokens: measured cells, the law of each size, the next size's forecast and what it came to."""
    cells, last = [*found["cells"]], [*found["next"]]
    near = _near(found)
    tokens = [float(cell["tokens"]) for cell in [*cells, *last, *near]]
    losses = [float(cell["loss"]) for cell in [*cells, *last]]
    losses += [float(one["loss"][side]) for one in near for side in ("low", "high")]
    plot = Plot(axis_of(tokens, "tokens", log=True), axis_of(losses, "nats per token", pad=0.08))
    depths = sorted({cell["depth"] for cell in [*cells, *last]})
    looks = {depth: f"s{place % COLOURS + 1}" for place, depth in enumerate(depths)}
    for curve in found["curves"]:
        look = looks.get(curve["depth"], f"s{len(looks) % COLOURS + 1}")
        if "low" in curve:
            plot.band(curve["tokens"], curve["low"], curve["high"], look, "foretold, 80 %")
        plot.line(curve["tokens"], curve["loss"], look, f"{curve['depth']} layers, {short(curve['n'])}")
    for cell in [*cells, *last]:
        told = f"{cell['depth']} layers after {short(cell['tokens'])} tokens: {cell['loss']:.4f}"
        plot.dot(float(cell["tokens"]), float(cell["loss"]), told, look=looks[cell["depth"]])
    for one in near:
        at = float(one["tokens"])
        plot.line([at, at], [one["loss"]["low"], one["loss"]["high"]], "limit", "frozen before it was trained")
    desc = (
        f"{len(cells)} cells of {len({cell['depth'] for cell in cells})} sizes; {len(last)} of the next size measured"
    )
    return plot.figure("Loss over text, a line for each size", desc, wide=True)


def _near(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Forecasts that are near enough to be drawn with the cells."""
    far, size = 4 * max(c["tokens"] for c in found["cells"]), 8 * max(c["n"] for c in found["cells"])
    return [
        one for one in found["forecasts"]
        if one["tokens"] <= far and one["n"] <= size and None not in (one["loss"]["low"], one["loss"]["high"])
    ]  # fmt: skip
