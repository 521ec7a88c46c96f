"""The arms of an experiment as small multiples: every arm's loss over the same axes, the others faint behind it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.metrics import read_metrics
from workbench import html, words
from workbench.context import Context
from workbench.html import Markup, escape
from workbench.tabs.experiments.experiment import Experiment, Member

POINTS = 60  # of a curve
MOST_ARMS = 40  # drawn
KEPT = 500  # curves held in memory
WIDTH, HEIGHT = 160.0, 70.0
Curve = Sequence[tuple[float, float]]
BRANCH = re.compile(r"(.+)-d\d+")  # of an arm of a sweep: it decays to a look


@dataclass(frozen=True)
class Arm:
    """An arm with its runs. `why`: why it was stopped before its end, or "" where it was not; `going`: the
    experiment is at work."""

    name: str
    label: str
    members: Sequence[Member]
    why: str = ""
    going: bool = False

    @property
    def own(self) -> list[Member]:
        """Its runs without the branches that decayed to a look."""
        return [member for member in self.members if member.arm == self.name]

    @property
    def state(self) -> str:
        """The state of the run that tells most: one at work, else the first that is not over, else finished."""
        by = {member.state: member for member in self.members}
        if any(member.diverged for member in self.members):
            return "diverged"
        if self.why:
            return "stopped"
        if self.going and "stopped" in by:
            by.pop("stopped")  # until its next look
        for state in ("running", "saving", "starting", "failed", "lost", "stopped", "queued"):
            if state in by:
                return state
        return "finished" if all(member.over for member in self.own) else "waiting"


class Curves:
    """Losses of runs in so many points; read again only when a run has grown."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, tuple[tuple[int, int], Curve]] = {}

    def of(self, name: str) -> Curve:
        """(step, mean loss) of a run; empty where there is none."""
        try:
            run = self._context.run(name)
            found = run.metrics_file.stat()
        except (UserError, OSError):
            return []
        stamp = (found.st_size, found.st_mtime_ns)
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            if len(self._known) >= KEPT:
                self._known.clear()
            known = self._known[name] = (stamp, curve(run))
        return known[1]


def curve(run: RunDir) -> list[tuple[float, float]]:
    """The loss of a run as means over equal stretches of its steps."""
    found = read_metrics(run)
    if "loss" not in found.columns or not len(found):
        return []
    steps, losses = np.asarray(found["step"], dtype=float), np.asarray(found["loss"], dtype=float)
    good = np.isfinite(losses)
    steps, losses = steps[good], losses[good]
    if not len(steps):
        return []
    pieces = np.array_split(np.arange(len(steps)), min(POINTS, len(steps)))
    return [(float(steps[piece].mean()), float(losses[piece].mean())) for piece in pieces]


def arms(experiment: Experiment, labels: Mapping[str, str], why: Mapping[str, str]) -> list[Arm]:
    """The arms in the order of their labels, then as they were planned. `labels` and `why` by the arm's name."""
    found: dict[str, list[Member]] = {}
    for member in experiment.members:
        branch = BRANCH.fullmatch(member.arm)
        found.setdefault(branch[1] if branch and branch[1] in labels else member.arm, []).append(member)
    names = [*(name for name in labels if name in found), *(name for name in found if name not in labels)]
    going = experiment.at_work
    return [Arm(name, labels.get(name, name), found[name], why.get(name, ""), going) for name in names]


def multiples(shown: Sequence[Arm], curves: Curves) -> Markup:
    """A cell for each arm, all on the same axes; nothing before the first step."""
    some = list(shown)[:MOST_ARMS]
    drawn = {member.run: curves.of(member.run) for arm in some for member in arm.members}
    points = [point for line in drawn.values() for point in line]
    scale = _scale(points, [m.steps or 0 for arm in some for m in arm.members])
    cells = html.join(_cell(arm, drawn, scale) for arm in some)
    more = (
        html.note(f"{len(shown) - MOST_ARMS} more arms are not drawn; all are in the table.")
        if len(shown) > MOST_ARMS
        else ""
    )
    axes = (
        html.note(
            f"Training loss over steps 0 to {scale.last:,.0f}, in every cell from {scale.low:.3g} to "
            f"{scale.high:.3g} nats per token."
        ) if points else ""
    )  # fmt: skip
    return html.join([Markup(f'<ul class="wb-exp-arms">{cells}</ul>'), axes, more])


@dataclass(frozen=True)
class Scale:
    """Axes that all cells share; the top leaves out the first, highest losses."""

    last: float
    low: float
    high: float

    def path(self, line: Curve) -> str:
        return "".join(f"{'L' if i else 'M'}{self._x(x):.1f} {self._y(y):.1f}" for i, (x, y) in enumerate(line))

    def _x(self, step: float) -> float:
        return WIDTH * step / self.last

    def _y(self, loss: float) -> float:
        share = (loss - self.low) / (self.high - self.low)
        return HEIGHT * (1 - min(1.05, max(-0.05, share)))


def _scale(points: Curve, steps: Sequence[int]) -> Scale:
    last = max([1.0, *(float(count) for count in steps), *(x for x, _ in points)])
    losses = sorted(y for _, y in points)
    if not losses:
        return Scale(last, 0.0, 1.0)
    low, high = losses[0], losses[min(len(losses) - 1, math.floor(0.9 * len(losses)))]
    if not high > low:
        low, high = low - 0.5, low + 0.5
    room = 0.05 * (high - low)
    return Scale(last, low - room, high + room)


def _cell(arm: Arm, drawn: Mapping[str, Curve], scale: Scale) -> Markup:
    own = {member.run for member in arm.members}
    faint = "".join(f'<path d="{scale.path(line)}"/>' for run, line in drawn.items() if line and run not in own)
    lines = "".join(f'<path class="wb-exp-own" d="{scale.path(drawn[run])}"/>' for run in own if drawn[run])
    state = arm.state
    badge = html.chip("diverged", "bad") if state == "diverged" else html.badge(state)
    losses = [drawn[member.run][-1][1] for member in arm.own if drawn[member.run]]
    loss = f"{sum(losses) / len(losses):.4f}" if losses else "no step yet"
    why = arm.why or next(
        (m.reason.splitlines()[0] for m in arm.members if m.reason and m.state in ("failed", "lost")), ""
    )
    said = f"{arm.label}: {state}, loss {loss}"
    grey = " wb-exp-grey" if arm.why or state in ("diverged", "failed", "lost") else ""
    done = sum(min(m.step, m.steps or m.step) for m in arm.own)
    of = sum(m.steps or 0 for m in arm.own)
    there = " ".join(member.run for member in arm.members if member.state != "missing")
    open_it = html.button("monitor", there, "Monitor", f"Open {arm.label} in Monitor") if there else ""
    return Markup(
        f'<li class="wb-exp-arm{grey}" data-key="{escape(arm.name)}"><div class="wb-exp-arm-head"><strong>'
        f"{escape(arm.label)}</strong>{badge}</div>"
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(said)}"><g class="wb-exp-faint">{faint}</g>{lines}</svg>'
        f'<div class="wb-exp-arm-told"><span>{escape(loss)}</span><span>{words.count(done)}'
        f"{f' of {of:,}' if of else ''} steps</span></div>"
        f"{f'<p>{escape(why)}</p>' if why else ''}{open_it}</li>"
    )
