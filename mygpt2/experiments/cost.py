"""What runs will take, told before anything starts, and what they have taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mygpt2.experiments.pieces import Piece
from mygpt2.format import duration
from mygpt2.planning import likely_device, plan
from mygpt2.run_dir.metrics import read_metrics
from mygpt2.run_dir.paths import RunDir


@dataclass(frozen=True)
class Cost:
    """Time that runs will take, in seconds, with its range; None where no earlier run tells. `basis` says from what."""

    seconds: float | None
    low: float | None
    high: float | None
    runs: int
    tokens: int
    basis: str = ""

    def __str__(self) -> str:
        if not self.runs:
            return "nothing is to be trained"
        what = f"{self.runs} run{'s' if self.runs > 1 else ''} to train, {self.tokens:,} tokens"
        if self.seconds is None or self.low is None or self.high is None:
            return f"{what}; how long it takes is not known ({self.basis})"
        return f"{what}, about {duration(self.seconds)} ({duration(self.low)} to {duration(self.high)}; {self.basis})"


def cost(pieces: Sequence[Piece], runs: Path, nproc: int = 1) -> Cost:
    """What these runs will take, as `python -m mygpt2 plan` says of each; evaluations come on top."""
    totals, basis = [0.0, 0.0, 0.0], ""
    for piece in pieces:
        found = plan(piece.config, world_size=nproc, runs=runs, device=likely_device(piece.config.train.device))
        time_figure = next(figure for figure in found.figures if figure.key == "time.total")
        speed = next(figure for figure in found.figures if figure.key == "time.speed")
        basis = basis or speed.basis
        if time_figure.value is None or time_figure.low is None or time_figure.high is None:
            return Cost(None, None, None, len(pieces), sum(p.tokens for p in pieces), time_figure.basis)
        for place, value in enumerate((time_figure.value, time_figure.low, time_figure.high)):
            totals[place] += value
    return Cost(totals[0], totals[1], totals[2], len(pieces), sum(p.tokens for p in pieces), basis)


@dataclass(frozen=True)
class Spent:
    """What runs have taken so far: seconds in steps (evaluations and saves are not in it), and tokens."""

    seconds: float
    tokens: int
    runs: int

    def to_json(self) -> dict[str, float | int]:
        return vars(self).copy()


def spent(names: Sequence[str], runs: Path) -> Spent:
    """What these runs have taken, those parts included that were trained again after a kill."""
    seconds, tokens, counted = 0.0, 0, 0
    for name in dict.fromkeys(names):
        run = RunDir(Path(runs) / name)
        if not run.exists():
            continue
        found = read_metrics(run)
        for columns in (found.columns, found.overwritten):
            for key in ("step_ms", "data_wait_ms"):
                seconds += float(np.nansum(columns[key])) / 1e3 if key in columns else 0.0
        tokens += int(np.nanmax(found["tokens"])) if len(found) and np.isfinite(found["tokens"]).any() else 0
        counted += 1
    return Spent(seconds, tokens, counted)
