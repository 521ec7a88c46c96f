"""The loop: wait for a batch, step, write it down, and at their intervals validate, sample and save."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mygpt2.checkpoint import Checkpointer
from mygpt2.config.schema import RunConfig
from mygpt2.data.batch import Batch, loader_state, merge_cursors
from mygpt2.data.loader import Loader
from mygpt2.data.trace import TraceWriter
from mygpt2.distributed import World
from mygpt2.errors import EXIT_OK, EXIT_STOPPED, TryAgain
from mygpt2.model import GPT, state_for_checkpoint
from mygpt2.run_dir import ControlFiles, RunDir
from mygpt2.tokenizer import Tokenizer
from mygpt2.train.evaluate import Evaluations
from mygpt2.train.left_out import LeftOut
from mygpt2.train.optim import Optimizer
from mygpt2.train.precision import Precision
from mygpt2.train.record import Recorder
from mygpt2.train.samples import write_samples
from mygpt2.train.schedule import Schedule
from mygpt2.train.signals import Asked, Requests
from mygpt2.train.step import TrainStep, to_device

POLL_S = 2.0  # how long a rank waits for data before it tells the others


@dataclass
class Progress:
    """What a checkpoint must bring back beside tensors. `cursor` (V/R, 5) is the last consumed batch's."""

    step: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    cursor: np.ndarray | None = None
    quarantine: tuple[int, ...] = ()


@dataclass
class Trainer:
    """The parts of a run, put together by `setup.build`, and the loop over them.

    `checkpointer` is None on every rank but the first.
    """

    config: RunConfig
    world: World
    run: RunDir
    attempt: int
    model: GPT
    tokenizer: Tokenizer
    optimizer: Optimizer
    schedule: Schedule
    precision: Precision
    train_step: TrainStep
    loader: Loader
    evaluations: Evaluations
    checkpointer: Checkpointer | None
    trace: TraceWriter | None
    recorder: Recorder
    requests: Requests
    progress: Progress
    profile: AbstractContextManager[Any]

    def __post_init__(self) -> None:
        self.outage: TryAgain | None = None
        self._validated: tuple[int, float] | None = None
        self._control = ControlFiles(self.run)
        self.left_out = LeftOut(self.world, self.recorder, self.loader)

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
        """The next batch once every rank has one, or None when the run must end here; and the seconds waited.

        Ranks that starve say so every two seconds and all go round together: a long outage of the source therefore
        never trips a collective's time-out. What one rank is asked (a signal, a control file), all ranks do.
        """
        began, batch = time.perf_counter(), None
        while True:
            batch = batch or self._poll()
            waited = time.perf_counter() - began
            self._read_control_files()
            own = batch is not None, self.outage is not None, batch is not None and self.left_out.news(batch)
            asked, (ready, outage, news) = self.requests.agree(lambda flags: self.world.sum(flags, torch.int64), *own)
            if outage and self.outage is None:
                self.outage = TryAgain("another rank's data source stayed out of reach for longer than its budget")
            if asked.stop or outage:
                return None, waited
            self._serve(asked)
            if ready == self.world.size:
                if news:
                    self.left_out.tell(self.progress.step + 1)
                    self.left_out.check()
                return batch, waited
            if waited > POLL_S:
                reason = self.loader.waiting or "the next batch is not ready"
                self._status("running", "waiting for data", message=reason)

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
        if self.trace:
            self.trace.add(self.progress.step, batch, result.row_losses)
        self.recorder.step(self.progress.step, result, wait_s, lr=self.optimizer.lr, epoch=batch.epoch)

    def _at_intervals(self, last: bool) -> None:
        step, c = self.progress.step, self.config
        if last or _due(step, c.eval.interval):
            self._validate()
        if last or _due(step, c.eval.hellaswag_interval):
            self._hellaswag()
        if last or _due(step, c.sample.interval):
            self._sample()
        if not last and _due(step, c.checkpoint.interval):
            self._save(background=c.checkpoint.background)
        if not last and _due(step, c.log.plot_interval):
            self._draw()

    # What happens at intervals

    def _validate(self) -> None:
        if self.evaluations.text is None:
            return
        self._status("running", "evaluating")
        began = time.perf_counter()
        result = self.evaluations.loss()
        self._validated = (self.progress.step, result.loss)
        known = self.evaluations.yardstick
        self.recorder.validation(self.progress.step, result, known, time.perf_counter() - began)

    def _hellaswag(self) -> None:
        if self.evaluations.table is None:
            return
        self._status("running", "evaluating")
        began = time.perf_counter()
        result = self.evaluations.hellaswag()
        self.recorder.hellaswag(self.progress.step, result, time.perf_counter() - began)

    def _sample(self) -> None:
        if self.recorder.writer is None or not self.config.sample.prompts:
            return
        self._status("running", "sampling")
        step, writer = self.progress.step, self.recorder.writer
        write_samples(writer, self.model, self.tokenizer, self.config, step, self.precision)

    def _draw(self) -> None:
        if self.world.lead:
            from mygpt2.plots import draw_loss_plot  # matplotlib takes half a second to import

            draw_loss_plot(self.run)

    def _serve(self, asked: Asked) -> None:
        if asked.save and self.progress.cursor is None:
            self.requests.save = True  # nothing to save before the first step: it is served after that
        elif asked.save:
            self._save(background=False)
        if asked.sample:
            self._sample()

    def _read_control_files(self) -> None:
        if self.world.lead:
            for name in self._control.poll():
                setattr(self.requests, name, True)
                self._control.clear(name)

    # Saving

    def _save(self, *, background: bool) -> None:
        """Saves at the present step. Every rank takes part: each knows only its own lanes' cursors."""
        if self.trace:
            self.trace.flush()
        assert self.progress.cursor is not None, "nothing was consumed yet"
        self.left_out.tell(self.progress.step)
        cursor = merge_cursors(self.world.gather(self.progress.cursor))
        quarantined = self.world.gather(np.array(self.progress.quarantine, dtype=np.int64))
        if self.checkpointer is None:
            return
        self._status("saving", "saving")
        step = self.progress.step
        if self._validated and self._validated[0] == step:
            self._note_best(step, self._validated[1])
        state = self._state(cursor, sorted({int(block) for part in quarantined for block in part}))
        model, optimizer = state_for_checkpoint(self.model), self.optimizer.state_tensors()
        self.checkpointer.save(step, model, optimizer, state, background=background)
        self._status("running", "training")

    def _note_best(self, step: int, loss: float) -> None:
        assert self.checkpointer is not None
        if self.progress.best_loss is None or loss < self.progress.best_loss:
            self.progress.best_step, self.progress.best_loss = step, loss
        self.checkpointer.best(step, loss)

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
        self.recorder.say(f"stopped at step {self.progress.step}; the same command goes on from here")
        return EXIT_STOPPED

    def leave_saved(self) -> None:
        """Saves the last good state, unless no step was taken yet. TryAgain, on every rank, when it cannot be saved."""
        if self.progress.cursor is None:
            return
        self.left_out.tell(self.progress.step, last=True)
        self._save(background=False)
        failure = self.checkpointer.failure if self.checkpointer else None
        if self.world.sum([int(failure is not None)], torch.int64)[0]:
            raise TryAgain(
                f"the checkpoint of step {self.progress.step} could not be saved ({failure or 'see rank 0'}); "
                "free some space, then run the same command: it goes on from the last checkpoint that was"
            )

    def _finish(self) -> int:
        self.leave_saved()
        self._draw()
        self.recorder.say(f"finished: {self.config.train.steps} steps, run folder {self.run.path}")
        return EXIT_OK

    def close(self) -> None:
        """Ends threads and files. A save that is under way is completed."""
        if self.checkpointer:
            self.checkpointer.wait()
        self.loader.close()
        if self.trace:
            self.trace.flush()
        self.recorder.close()

    def _status(self, state: str, phase: str, **more: Any) -> None:
        self.recorder.status(state, phase, self.progress.step, **more)


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
