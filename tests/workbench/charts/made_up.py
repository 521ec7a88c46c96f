"""Run folders with made-up curves, written as a trainer writes them, and the context a chart needs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir

BATCH = 524_288


@dataclass(frozen=True)
class Alert:
    step: int | None
    time: float
    text: str
    level: str = "error"
    number: int = 0


@dataclass
class Alerts:
    """Stands for the job runner: a chart asks it for alerts and for who is at work."""

    known: list[Alert] = field(default_factory=list)
    launched: set[str] = field(default_factory=set)

    def alerts(self, run: str | None = None) -> list[Alert]:
        return sorted(self.known, key=lambda alert: alert.time, reverse=True)

    def at_work(self) -> set[str]:
        return self.launched


@dataclass(frozen=True)
class Folder:
    """A folder of runs, as `workbench.context.Context` gives access to one."""

    runs: Path
    jobs: Alerts = field(default_factory=Alerts)
    read_only: bool = False

    def run(self, name: str) -> RunDir:
        return RunDir.open(self.runs, name)

    def path(self, text: str, what: str) -> Path:
        """Only what lies in the folder of the runs."""
        if not Path(text).resolve().is_relative_to(self.runs):
            raise UserError(f"the {what} {text} lies outside")
        return Path(text)


def new_run(folder: Path, name: str, state: str = "stopped") -> RunDir:
    run = RunDir.create(folder, name)
    status = {"schema": 1, "state": state, "phase": state, "step": 0, "attempt": 1, "heartbeat": time.time()}
    run.status_file.write_text(json.dumps(status))
    return run


def loss_at(steps: np.ndarray, seed: int = 0) -> np.ndarray:
    """A falling curve with noise that depends on the step and the seed only."""
    noise = np.random.default_rng(seed).normal(0, 0.05, int(steps.max(initial=0)) + 1)
    return 3 + 8 * (steps + 1.0) ** -0.4 + noise[steps]


def write_steps(
    run: RunDir, first: int, last: int, *, attempt: int = 1, seed: int = 0, nulls: Iterable[int] = ()
) -> None:
    """Appends metrics of the steps first ... last; the loss of `nulls` is null. Quick enough for 70,000 of them."""
    steps, missing = np.arange(first, last + 1), set(nulls)
    losses = loss_at(steps, seed)
    rng = np.random.default_rng([seed, first])
    norms, waits = rng.gamma(40, 0.3 / 40, len(steps)), rng.exponential(0.4, len(steps))
    with open(run.metrics_file, "a") as file:
        for step, loss, norm, wait in zip(steps.tolist(), losses.tolist(), norms.tolist(), waits.tolist(), strict=True):
            shown = "null" if step in missing else repr(loss)
            file.write(
                f'{{"schema":1,"attempt":{attempt},"step":{step},"tokens":{step * BATCH},"epoch":{step / 19000},'
                f'"loss":{shown},"lr":{6e-4 * min(1.0, step / 700)},"grad_norm":{norm},"tokens_per_second":1.5e6,'
                f'"step_ms":350.0,"data_wait_ms":{wait},"mfu":null,"memory_bytes":9876543210,"time":{1.79e9 + step}}}\n'
            )


def write_event(run: RunDir, kind: str, *, attempt: int = 1, **values: Any) -> None:
    with open(run.events_file, "a") as file:
        file.write(json.dumps({"schema": 1, "attempt": attempt, "kind": kind, **values, "time": 1.79e9}) + "\n")
