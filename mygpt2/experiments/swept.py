"""A sweep in words: what was asked and what it will take, and what came of it. Every number with its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mygpt2.experiments.arms import replicates, run_name
from mygpt2.experiments.cost import cost
from mygpt2.experiments.grid import Plan
from mygpt2.experiments.optimum import SURE
from mygpt2.experiments.pieces import Piece
from mygpt2.experiments.running import missing
from mygpt2.experiments.sweep import compared_in_words, looked
from mygpt2.format import duration
from mygpt2.run_dir.paths import RunDir

TWO_MODELS = (
    "One pair of seeds speaks of these models; with replicates = 3 in the file it would speak of recipes, at three "
    "times the cost."
)


def asked_text(plan: Plan, runs: Path, nproc: int = 1) -> str:
    """Arms, looks, and the time of what is left of the grid, which a sweep takes at most (with the branches of its
    looks more). UserError for a run that has the name of one of its own."""
    axes = " x ".join(f"{axis.setting} {', '.join(f'{v:g}' for v in axis.values)}" for axis in plan.axes)
    steps = ", ".join(f"{step:,}" for step in plan.looks)
    return (
        f"sweep {plan.name} on {plan.base.told}: {axes}; {len(plan.arms)} arms, looks at steps {steps} compare "
        f"{compares(plan)}\n{_left(plan, runs, nproc)}"
    )


def compares(plan: Plan) -> str:
    """Which losses the looks before the last compare."""
    if plan.decays:
        return "losses after a short decay of the rate"
    return (
        f"losses whose rate has not decayed yet, as {plan.base.config.schedule.name} has no trunk to branch from: a "
        "high rate looks worse there than it will be"
    )


def _left(plan: Plan, runs: Path, nproc: int) -> str:
    """What is still to be trained, at most. UserError for a run that has the name and other settings."""
    looks, lost = looked(plan, runs)
    pieces = [
        Piece(run_name(plan.name, name, pair.number), pair.of(arm.config), arm.preset)
        for name, arm in plan.arms.items() if name not in lost
        for pair in replicates(plan.base.config, plan.replicates)
    ]  # fmt: skip
    left = missing(pieces, runs)
    if looks == len(plan.looks):
        return "it is over: nothing is to be trained, and what came of it is told again"
    begun = any(RunDir(Path(runs) / piece.run).exists() for piece in pieces)
    if looks or begun:
        return f"left of it: {cost(left, runs, nproc)}; less where more arms lose"
    return f"the full grid: {cost(left, runs, nproc)}; a sweep takes about half of that where most arms lose early"


def result_text(found: Mapping[str, Any]) -> str:
    """The table of arms, the optimum, the compute."""
    result = found.get("result")
    if not isinstance(result, dict):
        return "the sweep is not over yet; the same command goes on"
    rows = [_row(arm, each) for arm, each in result["arms"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)) for row in rows]
    text = [
        f"loss on {found['protocol']}, nats per token, each arm where it was last seen:",
        *lines,
        _best(found, result),
    ]
    return "\n".join(
        [*text, _optimum(result.get("optimum"), found["horizon_tokens"]), _compute(result["spent"]), _caution(found)]
    )


def _row(arm: str, each: Mapping[str, Any]) -> tuple[str, str, str, str]:
    values = ", ".join(f"{value:g}" for value in each["values"])
    loss = (
        "diverged"
        if each["loss"] is None
        else f"{each['loss']:.4f} at step {each['step']:,} ({compared_in_words(each)})"
    )
    return arm, values, loss, each["why"] if each["stopped"] and each["loss"] is not None else _interval(each)


def _interval(each: Mapping[str, Any]) -> str:
    if each["difference"] is None or each["p"] is None:
        return each["why"]
    return f"{each['difference']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}] to the best"


def _best(found: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if result["best"] is None:
        return "no arm came to its end: all of them diverged"
    values = ", ".join(
        f"{axis['setting']} = {value:g}" for axis, value in zip(found["axes"], result["values"], strict=True)
    )
    near = [
        " and ".join(f"{value:g}" for value in each["values"]) for each in result["arms"].values()
        if not each["stopped"] and each["p"] is not None and each["low"] <= found["margin"]
    ]  # fmt: skip
    beside = f"; {', '.join(near)} {'is' if len(near) == 1 else 'are'} not told apart from it" if near else ""
    return f"best: {values}, loss {result['loss']:.4f} after {found['horizon_tokens']:,} tokens{beside}"


def _optimum(found: Any, horizon: int) -> str:
    if not isinstance(found, dict):
        return "no optimum between the arms is told: that takes one axis and three arms that were compared at one look"
    at = f"(at step {found['step']:,}, {compared_in_words(found)})"
    if found["value"] is None and not found["outside"]:
        return (
            f"the optimum lies between {found['low']:.3g} and {found['high']:.3g} {at}: these neighbours of the best "
            "are too far above it for a parabola, or stopped before; put arms between them"
        )
    if found["value"] is None:
        end = "lowest" if found["outside"] == "below" else "highest"
        if found["share_outside"] < SURE:
            return (
                f"the optimum is not told by these losses {at}: the {end} value of the grid has the lowest loss in "
                f"{found['share_outside']:.0%} of the draws of documents; widen the axis there, or give longer text"
            )
        return f"the optimum lies outside the grid, beyond its {end} value {at}; widen the axis there"
    low, high = (f"{found[key]:.3g}" if found[key] is not None else "the grid's end" for key in ("low", "high"))
    outside = f"; outside the grid in {found['share_outside']:.0%} of the draws" if found["share_outside"] > 0 else ""
    value = f"{found['setting']} = {found['value']:.3g}"
    how = f"a parabola over {found['fitted']} arms {at}"
    early = "; at the full length it may lie elsewhere" if found["tokens"] < horizon else ""
    return f"optimum: {value}, 95 % interval over documents {low} to {high}, {how}{early}{outside}"


def _compute(spent: Mapping[str, Any]) -> str:
    return (
        f"compute: {spent['tokens']:,} tokens in {spent['runs']} runs, {spent['share']:.0%} of the full grid's "
        f"{spent['full_tokens']:,}; {duration(spent['seconds'])} in steps"
    )


def _caution(found: Mapping[str, Any]) -> str:
    parts = [] if found["decays"] else [
        f"Looks compared losses whose rate had not decayed ({found['schedule']}): an arm that would have decayed well "
        "may have stopped."
    ]  # fmt: skip
    parts += [] if found["replicates"] > 1 else [TWO_MODELS]
    return " ".join(parts) or f"It speaks of recipes, over {found['replicates']} pairs of seeds."
