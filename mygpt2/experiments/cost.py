"""What runs will take, told before anything starts, and what they have taken."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mygpt2.experiments.pieces import Piece, outcome
from mygpt2.format import duration
from mygpt2.planning import likely_device, plan
from mygpt2.run_dir.liveness import read_record
from mygpt2.run_dir.metrics import Metrics, read_metrics
from mygpt2.run_dir.paths import RunDir, list_runs

MOST_LOOKED_AT, ENOUGH = 20, 5  # newest runs, whose metrics are read


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
            why = self.basis.removeprefix("unknown: ").replace("--measure does", "python -m mygpt2 plan --measure does")
            return f"{what}; how long it takes is not known: {why}"
        return f"{what}, about {duration(self.seconds)} ({duration(self.low)} to {duration(self.high)}; {self.basis})"


def cost(pieces: Sequence[Piece], runs: Path, nproc: int = 1) -> Cost:
    """What these runs will take: their steps as `python -m mygpt2 plan` says of each, and beside the steps (start,
    evaluations, saves) what the newest runs of the folder took."""
    totals, basis, beside = [0.0, 0.0, 0.0], "", beside_steps(runs) if pieces else 0.0
    to_go = {piece.run: _to_go(piece, runs) for piece in pieces}
    tokens = round(sum(piece.tokens * to_go[piece.run] for piece in pieces))
    for piece in pieces:
        found = plan(piece.config, world_size=nproc, runs=runs, device=likely_device(piece.config.train.device))
        time_figure = next(figure for figure in found.figures if figure.key == "time.total")
        speed = next(figure for figure in found.figures if figure.key == "time.speed")
        basis = basis or speed.basis
        if time_figure.value is None or time_figure.low is None or time_figure.high is None:
            return Cost(None, None, None, len(pieces), tokens, time_figure.basis)
        for place, value in enumerate((time_figure.value, time_figure.low, time_figure.high)):
            totals[place] += value * to_go[piece.run] + beside
    return Cost(totals[0], totals[1], totals[2], len(pieces), tokens, basis)


def beside_steps(runs: Path) -> float:
    """Seconds that a run of this folder takes beside its steps: the median of the newest that finished in one attempt;
    0 where there is none."""
    found = []
    for run in sorted(list_runs(runs), key=_written, reverse=True)[:MOST_LOOKED_AT]:
        status, ended = (read_record(run, file) or {} for file in (run.status_file, run.exit_file))
        began, end = status.get("started"), ended.get("time")
        if ended.get("state") == "finished" and ended.get("attempt") == 1 and began is not None and end is not None:
            found.append(max(0.0, end - began - spent([run.name], runs).seconds))
    return statistics.median(found[:ENOUGH]) if found else 0.0


def _written(run: RunDir) -> float:
    try:
        return run.exit_file.stat().st_mtime
    except OSError:
        return 0.0


def _to_go(piece: Piece, runs: Path) -> float:
    """The share of a run that is still to be trained; it goes on from its last checkpoint, which may lie before."""
    return max(0.0, 1 - outcome(runs, piece.run).step / piece.config.train.steps)


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
        tokens += _trained(found)
        counted += 1
    return Spent(seconds, tokens, counted)


def _trained(found: Metrics) -> int:
    """Tokens of a run's own steps: a branch counts on from its parent's."""
    counts = found["tokens"][np.isfinite(found["tokens"])]
    if not len(counts):
        return 0
    before = counts[0] - np.diff(counts).max() if len(counts) > 1 else 0
    return int(counts[-1] - max(0, before))
