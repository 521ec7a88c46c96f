"""What rank 0 writes down: metrics, events, status, console lines and the optional sinks. Other ranks keep silent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from mygpt2.config.schema import RunConfig
from mygpt2.device import memory_bytes
from mygpt2.evals import hellaswag
from mygpt2.evals.loss import LossResult
from mygpt2.format import clock
from mygpt2.run_dir import RunWriter
from mygpt2.run_dir.lines import read_records
from mygpt2.train.sinks import Sink, numbers
from mygpt2.train.step import StepResult


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
        f"{speed or 0:,.0f} tok/s  wait {wait:.1f}%  left {clock(meter.eta(steps - step))}"
    )


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "not finite"


@dataclass
class Recorder:
    """`writer` is None on every rank but the first. `peak_flops` is None where the device's peak is unknown."""

    writer: RunWriter | None
    sinks: Sequence[Sink]
    config: RunConfig
    device: torch.device
    ranks: int
    flops_per_token: float
    peak_flops: float | None
    token_offset: int = 0  # tokens trained on so far, less steps x the present batch: not 0 where the batch changed
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.config.train.batch_tokens)

    def tokens(self, step: int) -> int:
        """Tokens the run has trained on after a step of this attempt."""
        return self.token_offset + step * self.config.train.batch_tokens

    def step(
        self, step: int, result: StepResult, wait_s: float, *, lr: float, epoch: float,
        by_source: Mapping[str, list[float]],
    ) -> None:  # fmt: skip
        """One line of metrics.jsonl and of the console for a step that is done. `by_source`: of a mixture, the sum of
        the loss and the targets of each source."""
        self.meter.add(result.seconds, wait_s)
        if self.writer is None:
            return
        speed = self.config.train.batch_tokens / (result.seconds + wait_s)
        record = {
            "step": step,
            "tokens": self.tokens(step),
            "epoch": epoch,
            "loss": result.loss,
            "lr": lr,
            "grad_norm": result.grad_norm,
            "tokens_per_second": speed,
            "step_ms": 1e3 * result.seconds,
            "data_wait_ms": 1e3 * wait_s,
            "mfu": self.flops_per_token * speed / (self.peak_flops * self.ranks) if self.peak_flops else None,
            "memory_bytes": memory_bytes(self.device),
            **({"by_source": dict(by_source)} if by_source else {}),
        }
        self.writer.metrics(**record)
        if not result.applied:
            self.event("skipped", step=step, loss=result.loss, grad_norm=result.grad_norm)
        print(step_line(record, self.config.train.steps, self.meter), flush=True)
        if self.writer.problem:
            print(f"the run folder cannot be written just now: {self.writer.problem}; training goes on", flush=True)
        self._sink(step, numbers(record))
        self.status("running", "training", step, loss=result.loss)

    def validation(self, step: int, result: LossResult, yardstick: dict[str, Any] | None, seconds: float) -> None:
        """An `eval` event; the first time that the loss is below the yardstick's, a `passed` event as well."""
        known = {key: yardstick[key] for key in ("of", "revision", "loss", "stderr")} if yardstick else None
        self.event("eval", step=step, protocol="run", seconds=seconds, yardstick=known, **result.to_json())
        if self.writer is None:
            return
        print(f"validation at step {step}: {result} in {clock(seconds)}", flush=True)
        self._sink(step, {"val_loss": result.loss, "val_bits_per_byte": result.bits_per_byte or 0.0})
        if known and result.loss < known["loss"] and not self._passed(step):
            self.event("passed", step=step, loss=result.loss, token_sha256=result.token_sha256, yardstick=known)
            self.say(f"passed {known['of']} at step {step}: {result.loss:.4f} < {known['loss']:.4f} on the same tokens")

    def _passed(self, step: int) -> bool:
        """Whether an earlier step of this run, in this attempt or before it, passed the yardstick."""
        assert self.writer is not None
        events = read_records(self.writer.run.events_file)
        return any(event.get("kind") == "passed" and event.get("step", step) < step for event in events)

    def hellaswag(self, step: int, result: dict[str, Any], seconds: float) -> None:
        self.event("hellaswag", step=step, seconds=seconds, **result)
        if self.writer is None:
            return
        print(f"at step {step}, {clock(seconds)}: {hellaswag.words(result)}".replace("\n", "\n    "), flush=True)
        shares = {f"hellaswag_{name}": result[name]["acc_norm"] for name in hellaswag.PROTOCOLS}
        self._sink(step, shares)

    def status(self, state: str, phase: str, step: int, **more: Any) -> None:
        """status.json; `more` may hold loss and message, which stay as they are when left out."""
        if self.writer:
            steps = self.config.train.steps
            tokens, eta = self.tokens(step), self.meter.eta(steps - step)
            self.writer.status(state=state, phase=phase, step=step, steps=steps, tokens=tokens, eta=eta, **more)

    def event(self, kind: str, **fields: Any) -> None:
        if self.writer:
            self.writer.event(kind, **fields)

    def say(self, text: str) -> None:
        if self.writer:
            print(text, flush=True)

    def close(self) -> None:
        for sink in self.sinks:
            self._not_vital(sink.close, "the last records of a tracker")
        self.sinks = []

    def plot(self) -> None:
        if self.writer is not None:
            from mygpt2.plots import draw_loss_plot  # matplotlib takes half a second to import

            run = self.writer.run
            self._not_vital(lambda: draw_loss_plot(run), run.plot_file.name)

    def _sink(self, step: int, values: dict[str, float]) -> None:
        self.sinks = [sink for sink in self.sinks if self._not_vital(partial(sink.log, step, values), "a tracker")]

    def _not_vital(self, write: Callable[[], object], what: str) -> bool:
        """Whether it worked. A copy or a picture that cannot be written is told of; the run folder has it all."""
        try:
            write()
        except Exception as problem:
            message = f"{what} could not be written: {type(problem).__name__}: {problem}"
            self.event("alert", level="warning", message=message)
            self.say(f"{message}; training goes on")
            return False
        return True
