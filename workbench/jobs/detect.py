"""What a row of metrics has to look like to be worth an alert. Pure: rows in, findings out."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mygpt2.records import number, whole
from mygpt2.run_dir.divergence import beside, limit

WINDOW = 101  # steps the present one is held against
ENOUGH = 30
SPIKE_DEVIATIONS = 8.0
MAD_TO_SIGMA = 1.4826  # of a normal distribution
LEAST_SIGMA = 0.01  # as a share of the median: a loss that barely varies may still vary by that
GRADIENT_FACTOR = 10.0
QUIET_STEPS = 50  # an episode is over after so many ordinary steps
DIVERGING_STEPS = 3  # in a row, from the first step on

STALL_STEPS = 20.0
STALL_SECONDS = {"training": 60.0, "waiting for data": 300.0}
STALL_ELSEWHERE = 900.0  # starting, evaluating, sampling, saving
LONGER_THAN_EVER = 3.0


@dataclass(frozen=True)
class Finding:
    """Something about one step. kind: nonfinite, divergence, spike or gradient."""

    kind: str
    step: int
    text: str
    time: float | None


class Episodes:
    """A value against the median of those before it; one finding per episode, not one per step."""

    def __init__(self) -> None:
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._quiet = QUIET_STEPS

    @property
    def quiet(self) -> bool:
        """Whether no episode goes on."""
        return self._quiet >= QUIET_STEPS

    def middle(self) -> tuple[float, float] | None:
        """Median and median absolute deviation; None while there are too few values."""
        if len(self._window) < ENOUGH:
            return None
        median = statistics.median(self._window)
        return median, statistics.median([abs(value - median) for value in self._window])

    def add(self, value: float, limit: float | None) -> bool:
        """Takes the value into the window; True when it begins an episode."""
        self._window.append(value)
        if limit is None or value <= limit:
            self._quiet += 1
            return False
        begins = self.quiet
        self._quiet = 0
        return begins


class Detector:
    """Follows the rows of one run. `step_seconds` is the median time of its recent steps.

    vocabulary: ids of its tokenizer, where known. The first row's loss is taken for the run's start.
    """

    def __init__(self, vocabulary: int | None = None) -> None:
        self._loss, self._gradient = Episodes(), Episodes()
        self.vocabulary = vocabulary
        self._start: float | None = None
        self._above = 0  # steps in a row
        self._below = QUIET_STEPS
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._broken = False

    @property
    def step_seconds(self) -> float | None:
        return statistics.median(self._seconds) if self._seconds else None

    def row(self, row: Mapping[str, Any]) -> Iterator[Finding]:
        """Findings of one row of metrics.jsonl."""
        step = whole(row.get("step"))
        if step is None:
            return
        when = number(row.get("time"))
        seconds = [number(row.get(key)) for key in ("step_ms", "data_wait_ms")]
        if seconds[0] is not None:
            self._seconds.append((seconds[0] + (seconds[1] or 0.0)) / 1e3)
        loss, gradient = number(row.get("loss")), number(row.get("grad_norm"))
        if row.get("nonfinite") and (loss is None or gradient is None):
            if not self._broken:
                what = "loss" if loss is None else "gradient norm"
                yield Finding("nonfinite", step, f"the {what} of step {step} is not finite", when)
            self._broken = True
            return
        self._broken = False
        if loss is not None and self._diverges(loss):
            text = f"loss {loss:.4g} at step {step}: it diverges, for {beside(self._start, self.vocabulary)}; "
            text += "stop it and lower optimizer.lr"
            yield Finding("divergence", step, text, when)
        if loss is not None and (median := self._spike(loss)) is not None:
            yield Finding("spike", step, f"loss {loss:.4g} at step {step}; the steps before it had {median:.4g}", when)
        if gradient is not None and (median := self._burst(gradient)) is not None:
            text = f"gradient norm {gradient:.3g} at step {step}; the steps before it had {median:.3g}"
            yield Finding("gradient", step, text, when)

    def _diverges(self, loss: float) -> bool:
        """Whether this step makes an episode of losses that no sound run has."""
        self._start = loss if self._start is None else self._start
        most = limit(self._start, self.vocabulary)
        if most is None or loss <= most:
            self._above, self._below = 0, self._below + 1
            return False
        self._above += 1
        if self._above < (DIVERGING_STEPS if self._loss.quiet else QUIET_STEPS):  # a spike is told already
            return False
        begins = self._below >= QUIET_STEPS
        self._below = 0
        return begins

    def _spike(self, loss: float) -> float | None:
        """The median before it where the loss is a spike: beyond SPIKE_DEVIATIONS robust standard deviations."""
        middle = self._loss.middle()
        limit = None
        if middle:
            sigma = max(MAD_TO_SIGMA * middle[1], LEAST_SIGMA * abs(middle[0]))
            limit = middle[0] + SPIKE_DEVIATIONS * sigma
        return middle[0] if self._loss.add(loss, limit) and middle else None

    def _burst(self, gradient: float) -> float | None:
        middle = self._gradient.middle()
        limit = GRADIENT_FACTOR * middle[0] if middle else None
        return middle[0] if self._gradient.add(gradient, limit) and middle else None


def stalled(phase: str, progress_age: float, step_seconds: float | None, longest: float) -> bool:
    """Whether a run that lives has stood still for too long. `longest` is its longest pause so far, as in evaluations.

    Training: 20 median steps, at least a minute. Other phases may take a quarter of an hour, or three times what they
    ever took.
    """
    least = STALL_SECONDS.get(phase, STALL_ELSEWHERE)
    if phase == "training":
        return progress_age > max(least, STALL_STEPS * (step_seconds or least))
    return progress_age > max(least, LONGER_THAN_EVER * longest)
