"""One line per step for a person: where the run is, how fast, and how long it still takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping


def duration(seconds: float | None) -> str:
    """`0:42`, `12:05`, `3:04:10`, or `?` while unknown."""
    if seconds is None:
        return "?"
    minutes, second = divmod(max(int(seconds + 0.5), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Meter:
    """Speed and time left, from the last steps of this session only.

    Evaluation, sampling and saving are not in a step's seconds, so they are in neither figure.
    """

    def __init__(self, batch_tokens: int, window: int = 50):
        self.batch_tokens = batch_tokens
        self.seconds: deque[float] = deque(maxlen=window)
        self.waits: deque[float] = deque(maxlen=window)

    def add(self, step_s: float, wait_s: float) -> None:
        self.seconds.append(step_s)
        self.waits.append(wait_s)

    @property
    def tokens_per_second(self) -> float | None:
        total = sum(self.seconds) + sum(self.waits)
        return self.batch_tokens * len(self.seconds) / total if total else None

    def eta(self, steps_left: int) -> float | None:
        """Seconds of stepping left."""
        if not self.seconds:
            return None
        return steps_left * (sum(self.seconds) + sum(self.waits)) / len(self.seconds)


def step_line(record: Mapping[str, object], steps: int, meter: Meter) -> str:
    """The console line of a metrics record."""
    step = int(str(record["step"]))
    speed = meter.tokens_per_second
    wait = 100 * sum(meter.waits) / max(sum(meter.waits) + sum(meter.seconds), 1e-9)
    return (
        f"step {step:>{len(str(steps))}}/{steps} {step / steps:4.0%}  loss {_number(record['loss'], '.4f')}  "
        f"lr {_number(record['lr'], '.2e')}  norm {_number(record['grad_norm'], '.2f')}  "
        f"{speed or 0:,.0f} tok/s  wait {wait:.1f}%  left {duration(meter.eta(steps - step))}"
    )


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "not finite"
