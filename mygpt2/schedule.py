"""The learning rate as a scale of its peak: a pure function of the step, but for the plateau, whose state is saved."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from mygpt2.config.schema import ScheduleConfig


def lr_scale(config: ScheduleConfig, step: int, steps: int) -> float:
    """Learning rate of optimizer step `step` (0 … steps - 1) divided by its peak.

    The first step already learns (1 / warmup_steps), the last one of warm-up is at the peak, and the last step of the
    run is exactly at the end of its schedule.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    low = config.min_lr_ratio
    if config.name in ("constant", "plateau"):
        return 1.0
    first = max(config.warmup_steps - 1, 0)
    if config.name in ("wsd", "trapezoid"):
        first = max(first, decay_begins(config, steps))
    done = min(max((step - first) / max(steps - 1 - first, 1), 0.0), 1.0)
    shape = {"cosine": "cosine", "linear": "linear", "trapezoid": "linear"}.get(config.name, config.decay_shape)
    return low + (1 - low) * _fall(shape, done)


def decay_begins(config: ScheduleConfig, steps: int) -> int:
    """The last step of `wsd` and `trapezoid` at the peak: at least one step is left to fall, however short the run."""
    return steps - 1 - max(1, round(config.decay_share * steps))


def _fall(shape: str, done: float) -> float:
    """From 1 at done = 0 to 0 at done = 1. `sqrt` is 1 - sqrt (Hägele et al. 2024, arXiv 2405.18392)."""
    if shape == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if shape == "sqrt":
        return 1 - math.sqrt(done)
    return 1 - done


class Plateau:
    """Lowers the rate when the mean loss of the recent window has had no new minimum for `plateau_patience` steps."""

    def __init__(self, config: ScheduleConfig):
        self.config = config
        self.factor = 1.0
        self.best = math.inf
        self.since = 0
        self.recent: deque[float] = deque(maxlen=config.plateau_window)

    def observe(self, loss: float) -> None:
        self.recent.append(loss)
        if len(self.recent) < self.config.plateau_window:
            return
        mean = math.fsum(self.recent) / len(self.recent)
        if mean < self.best:
            self.best, self.since = mean, 0
            return
        self.since += 1
        if self.since >= self.config.plateau_patience:
            self.factor = max(self.factor * self.config.plateau_factor, self.config.min_lr_ratio)
            self.best, self.since = mean, 0

    def state_dict(self) -> dict[str, Any]:
        best = self.best if math.isfinite(self.best) else None
        return {"factor": self.factor, "best": best, "since": self.since, "recent": list(self.recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.factor, self.since = float(state["factor"]), int(state["since"])
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.recent = deque(state["recent"], maxlen=self.config.plateau_window)


class Schedule:
    """The scale of the peak for each step of a run, with the state a checkpoint must keep."""

    def __init__(self, config: ScheduleConfig, steps: int):
        self.config, self.steps = config, steps
        self.plateau = Plateau(config) if config.name == "plateau" else None

    def lr_scale(self, step: int) -> float:
        value = lr_scale(self.config, step, self.steps)
        return value * self.plateau.factor if self.plateau else value

    def observe(self, loss: float) -> None:
        if self.plateau and math.isfinite(loss):
            self.plateau.observe(loss)

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self.plateau.state_dict()} if self.plateau else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.plateau and "plateau" in state:
            self.plateau.load_state_dict(state["plateau"])
