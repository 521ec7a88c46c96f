"""The loop: wait for a batch, step, write it down, and at their intervals validate, sample and save."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mygpt2.checkpoint import Checkpointer
from mygpt2.config.schema import RunConfig
from mygpt2.data.batch import Batch, loader_state, merge_cursors
from mygpt2.data.loader import Loader
from mygpt2.data.trace import TraceWriter
from mygpt2.data.validation import ValidationSet
from mygpt2.distributed import World
from mygpt2.errors import EXIT_OK, EXIT_STOPPED, TryAgain
from mygpt2.model import GPT, state_for_checkpoint
from mygpt2.run_dir import ControlFiles, RunDir, RunWriter
from mygpt2.tokenizer import Tokenizer
from mygpt2.train.console import Meter, duration, step_line
from mygpt2.train.evaluate import validate
from mygpt2.train.hardware import memory_bytes
from mygpt2.train.optim import Optimizer
from mygpt2.train.precision import Precision
from mygpt2.train.samples import write_samples
from mygpt2.train.schedule import Schedule
from mygpt2.train.signals import Requests
from mygpt2.train.sinks import Sink, numbers
from mygpt2.train.step import TrainStep, to_device

POLL_S = 2.0  # how long a rank waits for data before it tells the others


@dataclass
class Progress:
    """What a checkpoint must bring back beside tensors."""

    step: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    cursor: np.ndarray | None = None  # (V/R, 5) of the last consumed batch
    quarantine: tuple[int, ...] = ()


@dataclass
class Trainer:
    """The parts of a run, put together by `setup.build`, and the loop over them."""

    config: RunConfig
    world: World
    run: RunDir
    attempt: int
    writer: RunWriter | None
    model: GPT
    tokenizer: Tokenizer
    optimizer: Optimizer
    schedule: Schedule
    precision: Precision
    train_step: TrainStep
    loader: Loader
    held_out: ValidationSet | None
    checkpointer: Checkpointer | None
    trace: TraceWriter | None
    sinks: list[Sink]
    requests: Requests
    progress: Progress
    flops_per_token: float
    peak_flops: float | None
    profile: AbstractContextManager[Any]

    def __post_init__(self) -> None:
        self.meter = Meter(self.config.train.batch_tokens)
        self.outage: TryAgain | None = None
        self._validated: tuple[int, float] | None = None
        self._control = ControlFiles(self.run)

    # The loop

    def fit(self) -> int:
        """Trains to the last step, or until somebody asks to stop; returns the exit code."""
        steps = self.config.train.steps
        with self.profile as profiler:
            while self.progress.step < steps:
                batch, wait_s = self._next_batch()
                if batch is None:
                    return self._leave()
                self._step(batch, wait_s)
                self._at_intervals(last=self.progress.step == steps)
                if profiler is not None:
                    profiler.step()
        return self._finish()

    def _next_batch(self) -> tuple[Batch | None, float]:
        """The next batch once every rank has one, or None when the run must end here.

        Ranks that starve say so every two seconds and all go round together: a long outage of the source therefore
        never trips a collective's time-out. What one rank is asked (a signal, a control file), all ranks do.
        """
        began, batch = time.perf_counter(), None
        while True:
            batch = batch or self._poll()
            waited = time.perf_counter() - began
            self._read_control_files()
            asked = self.requests
            flags = [batch is not None, asked.stop, asked.save, asked.sample, self.outage is not None]
            ready, stop, save, sample, outage = self.world.sum([int(flag) for flag in flags], torch.int64)
            asked.stop, asked.save, asked.sample = stop > 0, save > 0, sample > 0
            if outage and self.outage is None:
                self.outage = TryAgain("another rank's data source stayed out of reach for longer than its budget")
            if stop or outage:
                return None, waited
            if save or sample:
                self._serve_requests()
            if ready == self.world.size:
                return batch, waited
            if waited > POLL_S:
                self._status("running", "waiting for data", message=self.loader.waiting)

    def _poll(self) -> Batch | None:
        if self.outage is not None:
            return None
        try:
            return self.loader.poll(POLL_S)
        except TryAgain as outage:
            self.outage = outage
            return None

    def _step(self, batch: Batch, wait_s: float) -> None:
        tokens = to_device(batch.tokens, self.world.device)
        step = self.progress.step
        result = self.train_step(step, tokens[:, :-1], tokens[:, 1:], self.schedule.share(step))
        self.progress.step += 1
        self.progress.cursor, self.progress.quarantine = batch.cursor, tuple(batch.quarantine)
        self.schedule.observe(result.loss)
        self.meter.add(result.seconds, wait_s)
        if self.trace:
            self.trace.add(self.progress.step, batch, result.row_losses)
        if self.writer is None:
            return
        tokens_per_second = self.config.train.batch_tokens / (result.seconds + wait_s)
        peak = self.peak_flops
        record = {
            "step": self.progress.step,
            "tokens": self.progress.step * self.config.train.batch_tokens,
            "epoch": batch.epoch,
            "loss": result.loss,
            "lr": self.optimizer.lr,
            "grad_norm": result.grad_norm,
            "tokens_per_second": tokens_per_second,
            "step_ms": 1e3 * result.seconds,
            "data_wait_ms": 1e3 * wait_s,
            "mfu": self.flops_per_token * tokens_per_second / (peak * self.world.size) if peak else None,
            "memory_bytes": memory_bytes(self.world.device),
        }
        self.writer.metrics(**record)
        if not result.applied:
            self._event("skipped", step=self.progress.step, loss=result.loss, grad_norm=result.grad_norm)
        print(step_line(record, self.config.train.steps, self.meter), flush=True)
        for sink in self.sinks:
            sink.log(self.progress.step, numbers(record))
        self._status("running", "training", loss=result.loss)

    def _at_intervals(self, last: bool) -> None:
        step, c = self.progress.step, self.config
        if last or _due(step, c.eval.interval):
            self._validate()
        if last or _due(step, c.sample.interval):
            self._sample()
        if not last and _due(step, c.checkpoint.interval):
            self._save(background=c.checkpoint.background)
        if not last and _due(step, c.log.plot_interval):
            self._draw()

    # What happens at intervals

    def _validate(self) -> None:
        if self.held_out is None:
            return
        self._status("running", "evaluating")
        began = time.perf_counter()
        result = validate(
            self.model, self.held_out, self.world, self.precision,
            block_size=self.config.model.block_size, batch=self.config.eval.batch or 8,
        )  # fmt: skip
        self._validated = (self.progress.step, result.loss)
        seconds = time.perf_counter() - began
        self._event("eval", step=self.progress.step, protocol="run", seconds=seconds, **result.to_json())
        if self.world.lead:
            print(
                f"validation at step {self.progress.step}: {result.loss:.4f} nats per token, "
                f"{result.bits_per_byte:.3f} bits per byte, perplexity {result.perplexity:.1f} "
                f"({result.tokens:,} targets, {duration(seconds)})",
                flush=True,
            )
            for sink in self.sinks:
                sink.log(self.progress.step, {"val_loss": result.loss, "val_bits_per_byte": result.bits_per_byte})

    def _sample(self) -> None:
        if self.writer is None or not self.config.sample.prompts:
            return
        self._status("running", "sampling")
        write_samples(self.writer, self.model, self.tokenizer, self.config, self.progress.step, self.precision)

    def _draw(self) -> None:
        if self.world.lead:
            from mygpt2.plots import draw_loss_plot  # matplotlib takes half a second to import

            draw_loss_plot(self.run)

    def _serve_requests(self) -> None:
        if self.requests.save:
            self._save(background=False)
        if self.requests.sample:
            self._sample()
        self.requests.save = self.requests.sample = False

    def _read_control_files(self) -> None:
        if not self.world.lead:
            return
        for name in self._control.poll():
            setattr(self.requests, name, True)
            self._control.clear(name)

    # Saving

    def _save(self, *, background: bool) -> None:
        """Saves at the present step. Every rank takes part: each knows only its own lanes' cursors."""
        if self.trace:
            self.trace.flush()
        parts = self.world.gather(self._own_cursor())
        quarantined = self.world.gather(np.array(self.progress.quarantine, dtype=np.int64))
        if self.checkpointer is None:
            return
        self._status("saving", "saving")
        step = self.progress.step
        if self._validated and self._validated[0] == step:
            loss = self._validated[1]
            if self.progress.best_loss is None or loss < self.progress.best_loss:
                self.progress.best_step, self.progress.best_loss = step, loss
                self.checkpointer.best(step, loss)
        state = self._state(merge_cursors(parts), sorted({int(b) for part in quarantined for b in part}))
        self.checkpointer.save(
            step,
            state_for_checkpoint(self.model),
            self.optimizer.state_tensors(),
            state,
            background=background,
        )
        self._status("running", "training")

    def _own_cursor(self) -> np.ndarray:
        if self.progress.cursor is None:
            raise AssertionError("a checkpoint needs the cursor of a consumed batch")
        return self.progress.cursor

    def _state(self, cursor: np.ndarray, quarantine: list[int]) -> dict[str, Any]:
        return {
            "step": self.progress.step,
            "tokens": self.progress.step * self.config.train.batch_tokens,
            "attempt": self.attempt,
            "config": self.config.model_dump(mode="json"),
            "tokenizer": {"spec": self.config.data.tokenizer, "fingerprint": self.tokenizer.fingerprint},
            "data": loader_state(self.loader.fingerprint, cursor, quarantine),
            "schedule": self.schedule.state_dict(),
            "scaler": self.train_step.scaler.state_dict(),
            "precision": self.precision.name,
            "rng": {"kind": "by step and rank", "seed": self.config.train.seed},
            "best": {"step": self.progress.best_step, "loss": self.progress.best_loss},
            "skips": self.train_step.guard.skips,
            "ranks": self.world.size,
        }

    # Endings

    def _leave(self) -> int:
        """Ends before the last step with everything saved: on request, or because the data stayed away."""
        self.leave_saved()
        if self.outage is not None:
            raise self.outage
        if self.world.lead:
            print(f"stopped at step {self.progress.step}; the same command goes on from here", flush=True)
        return EXIT_STOPPED

    def leave_saved(self) -> None:
        """Saves the last good state, unless no step was taken yet."""
        if self.progress.cursor is not None:
            self._save(background=False)

    def _finish(self) -> int:
        self._save(background=False)
        self._draw()
        if self.world.lead:
            print(f"finished: {self.config.train.steps} steps, run folder {self.run.path}", flush=True)
        return EXIT_OK

    def close(self) -> None:
        """Ends threads and files, whatever happened before. A save that is under way is completed."""
        if self.checkpointer:
            self.checkpointer.wait()
        self.loader.close()
        if self.trace:
            self.trace.flush()
        for sink in self.sinks:
            sink.close()

    # Writing down

    def _status(self, state: str, phase: str, *, loss: float | None = None, message: str | None = None) -> None:
        if self.writer:
            step = self.progress.step
            known = {key: value for key, value in (("loss", loss), ("message", message)) if value is not None}
            self.writer.status(
                state=state, phase=phase, step=step, steps=self.config.train.steps,
                tokens=step * self.config.train.batch_tokens, eta=self.meter.eta(self.config.train.steps - step), **known,
            )  # fmt: skip

    def _event(self, kind: str, **fields: Any) -> None:
        if self.writer:
            self.writer.event(kind, **fields)


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


def profiler_for(spec: str | None, run: RunDir, device: torch.device) -> AbstractContextManager[Any]:
    """The profiler for steps FIRST … LAST (1-based) that leaves a Chrome trace and a table in the run folder."""
    if spec is None:
        return nullcontext()
    first, last = (int(part) for part in spec.split(":"))
    folder = run.path / "profile"

    def keep(profiler: Any) -> None:
        folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(folder / f"steps-{first}-{last}.json"))
        (folder / "top.txt").write_text(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))

    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    plan = torch.profiler.schedule(wait=max(first - 1, 0), warmup=0, active=max(last - first + 1, 1), repeat=1)
    return torch.profiler.profile(activities=kinds, schedule=plan, on_trace_ready=keep)
