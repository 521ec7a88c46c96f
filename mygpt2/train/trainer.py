"""The loop: wait for a batch, step, write it down, and at their intervals validate, sample and save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from mygpt2.checkpoint import step_of
from mygpt2.checkpoint.store import on_grid
from mygpt2.config.schema import RunConfig
from mygpt2.data.batch import Batch
from mygpt2.data.loader import Loader
from mygpt2.device import Precision
from mygpt2.distributed import World
from mygpt2.errors import EXIT_OK, EXIT_STOPPED, TryAgain
from mygpt2.model.loss import IGNORE
from mygpt2.run_dir import ControlFiles, RunDir
from mygpt2.schedule import Schedule
from mygpt2.tokenizer import Tokenizer
from mygpt2.train.evaluate import Evaluations, due, write_samples
from mygpt2.train.left_out import LeftOut
from mygpt2.train.optim import Optimizer
from mygpt2.train.parallel import Weights
from mygpt2.train.record import Recorder
from mygpt2.train.saving import Saver
from mygpt2.train.signals import Asked, Requests
from mygpt2.train.step import Counted, StepResult, TrainStep, targets_of_sources, to_device
from mygpt2.train.stragglers import Stragglers
from mygpt2.train.tracing import Tracing

POLL_S = 2.0  # how long a rank waits for data before it tells the others


@dataclass
class TrainState:
    """What a checkpoint must bring back beside tensors. `cursor` (V, 5 S) and `quarantine` are those of all ranks after
    the last consumed batch, known to each: whichever of them fails, the first can save."""

    step: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    cursor: np.ndarray | None = None
    quarantine: tuple[int, ...] = ()
    epochs: Sequence[float] = ()  # by source
    rounding: Mapping[str, Any] = field(default_factory=dict)  # `checkpoint.rounding`


@dataclass
class Trainer:
    """The parts of a run, put together by `setup.build`, and the loop over them."""

    config: RunConfig
    world: World
    run: RunDir
    attempt: int
    weights: Weights
    tokenizer: Tokenizer
    optimizer: Optimizer
    schedule: Schedule
    precision: Precision
    train_step: TrainStep
    loader: Loader
    evaluations: Evaluations
    saver: Saver
    tracing: Tracing
    recorder: Recorder
    requests: Requests
    state: TrainState
    profile: AbstractContextManager[Any]

    def __post_init__(self) -> None:
        self._counted: Counted | None = None  # the targets of the next batch
        self._ahead: tuple[np.ndarray, tuple[int, ...], list[float]] | None = None  # where all are after the next batch
        self._unnoted: Callable[[], None] | None = None  # what the last step left to be written
        self._notes_late = self.world.device.type == "cuda"
        self.train_step.meanwhile = self._note
        self._began, self._saved = self.state.step, self.state.step or None  # the first: nothing of its own to save
        self._gave_up = False  # the last save failed, and was said to have failed
        self._validated: tuple[int, float] | None = None
        self._control = ControlFiles(self.run)
        self.left_out = LeftOut(self.world, self.recorder, self.loader)
        self.stragglers = Stragglers(self.world, self.run, self.recorder)

    # The loop

    def fit(self) -> int:
        """Trains to the last step, or until somebody asks to stop; returns the exit code."""
        steps = self.config.train.steps
        until = min(steps, self.requests.until or steps)
        with self.profile as profiler:
            while self.state.step < until:
                batch, wait_s = self._next_batch()
                if batch is None:
                    return self._leave()
                self._step(batch, wait_s)
                self._at_intervals(last=self.state.step == steps)
                if profiler is not None:
                    profiler.step()
        return self._finish() if self.state.step == steps else self._leave()

    def _next_batch(self) -> tuple[Batch | None, float]:
        """The next batch once every rank has one, or None when the run must end here; and the seconds waited.

        Ranks that starve say so every two seconds and all go round together: a long outage of the source therefore
        never trips a collective's time-out. What one rank is asked (a signal, a control file), all ranks do. Where each
        will be after the batch goes round with it, so that the first rank can save whatever happens to another.
        """
        began, batch = time.perf_counter(), None
        while True:
            batch = batch or self.loader.poll(POLL_S)
            waited = time.perf_counter() - began
            self._read_control_files()
            told = batch is not None and self.left_out.news(batch)
            rows = (batch.tokens[:, 1:] != IGNORE).sum(axis=1) if batch is not None else np.zeros(0, np.int64)
            of_sources = targets_of_sources(batch.sources if batch else None, rows, len(self.loader.parts))
            own = batch is not None, told, int(rows.sum()), *of_sources, *self.loader.places(batch).ravel().tolist()
            total = partial(self.world.sum, dtype=torch.int64)
            asked, (ready, news, targets, *places) = self.requests.agree(total, *own)
            if asked.stop:
                return None, waited
            self._serve(asked)
            if ready == self.world.size:
                if news:
                    self.left_out.tell(self.state.step + 1)
                    self.left_out.check()
                several = len(of_sources)
                self._counted = Counted(rows, targets, batch.sources if batch else None, places[:several])
                cursor, epochs = self.loader.read_places(np.array(places[several:], np.int64))
                self._ahead = cursor, self.left_out.quarantine, epochs
                return batch, waited
            if waited > POLL_S:
                self._note()
                reason = self.loader.waiting or "the next batch is not ready"
                self._status("running", "waiting for data", message=reason)

    def _step(self, batch: Batch, wait_s: float) -> None:
        tokens, step = to_device(batch.tokens, self.world.device), self.state.step
        share = self.schedule.lr_scale(step)
        result = self.train_step(step, tokens[:, :-1], tokens[:, 1:], share, self._counted)
        assert self._ahead is not None
        self.state.cursor, self.state.quarantine, self.state.epochs = self._ahead
        self.state.step += 1
        self.train_step.unfinished = False  # from here on the weights and the position belong together again
        self.schedule.observe(result.loss)
        self.stragglers.step(self.state.step, result.forward_s, wait_s)
        epoch = self.loader.epoch(self.state.epochs)
        self._unnoted = partial(self._write_down, self.state.step, batch, result, wait_s, self.optimizer.lr, epoch)
        if not self._notes_late:
            self._note()

    def _note(self) -> None:
        """Writes what the last step left. On a GPU that waits until the next step is under way, which it then does not
        delay; whatever else looks at the run folder or may end the run asks for it first."""
        if note := self._unnoted:
            self._unnoted = None
            note()

    def _write_down(self, step: int, batch: Batch, result: StepResult, wait_s: float, lr: float, epoch: float) -> None:
        self.tracing.add(step, batch, result.row_losses)
        by_source = {part.name: [*one] for part, one in zip(self.loader.parts, result.by_source, strict=False)}
        self.recorder.step(step, result, wait_s, lr=lr, epoch=epoch, by_source=by_source)

    def _at_intervals(self, last: bool) -> None:
        step, c = self.state.step, self.config
        intervals = c.eval.interval, c.eval.hellaswag_interval, c.sample.interval, c.log.plot_interval
        save = due(step, c.checkpoint.interval) or on_grid(step, c.checkpoint.keep_log)
        if last or save or any(due(step, interval) for interval in intervals):
            self._note()
        if self.tracing.due:
            self._note()
            self.tracing.flush()
        if last or due(step, c.eval.interval):
            self._validate()
        if last or due(step, c.eval.hellaswag_interval):
            self._hellaswag()
        if last or due(step, c.sample.interval):
            self._sample()
        if not last and save:
            self._save(background=c.checkpoint.background)
        if not last and due(step, c.log.plot_interval):
            self.recorder.plot()

    # What happens at intervals

    def _validate(self) -> None:
        if self.evaluations.text is None:
            return
        self._status("running", "evaluating")
        began = time.perf_counter()
        result = self.evaluations.loss()
        self._validated = (self.state.step, result.loss)
        known = self.evaluations.yardstick
        self.recorder.validation(self.state.step, result, known, time.perf_counter() - began)

    def _hellaswag(self) -> None:
        if self.evaluations.table is None:
            return
        self._status("running", "evaluating")
        began = time.perf_counter()
        result = self.evaluations.hellaswag()
        self.recorder.hellaswag(self.state.step, result, time.perf_counter() - began)

    def _sample(self) -> None:
        if not self.config.sample.prompts:
            return
        self._status("running", "sampling")
        step, writer = self.state.step, self.recorder.writer
        with self.weights.whole() as model:
            if writer is not None:
                write_samples(writer, model, self.tokenizer, self.config, step, self.precision)

    def _serve(self, asked: Asked) -> None:
        if any(asked):
            self._note()
        if asked.save and self.state.step == self._began:
            self.requests.save = True  # nothing to save before the first step: it is served after that
        elif asked.save:
            self._save(background=False)
        if asked.sample:
            self._sample()

    def _read_control_files(self) -> None:
        if self.world.lead:
            for name in self._control.poll():
                setattr(self.requests, name, True)
                self.requests.in_folder |= name == "stop"
                self._control.clear(name)

    # Saving

    def _save(self, *, background: bool) -> None:
        """Saves at the present step, once every rank is there."""
        self.tracing.flush()
        self.left_out.tell(self.state.step)
        self._write_checkpoint(background=background)

    def _write_checkpoint(self, *, background: bool) -> None:
        """The first rank's work: it knows every rank's position. Weights that are shared out all ranks bring there, or
        write."""
        assert self.state.cursor is not None, "nothing was consumed yet"
        self._status("saving", "saving")
        self._note_best()
        self.saver.save(self.state.step, self._state, background=background)
        self._saved = self.state.step
        self._status("running", "training")

    def _note_best(self) -> None:
        """The loss of the last validation, if it is of this step, so that the best checkpoint is kept."""
        step, loss = self._validated or (None, 0.0)
        if step != self.state.step or self.saver.checkpointer is None:
            return
        if self.state.best_loss is None or loss < self.state.best_loss:
            self.state.best_step, self.state.best_loss = step, loss
        self.saver.checkpointer.best(step, loss)

    def _state(self) -> dict[str, Any]:
        """state.json: everything that a checkpoint holds beside tensors."""
        assert self.state.cursor is not None
        return {
            "step": self.state.step,
            "tokens": self.recorder.tokens(self.state.step),
            "attempt": self.attempt,
            "config": self.config.model_dump(mode="json"),
            "tokenizer": {"spec": self.config.data.tokenizer, "fingerprint": self.tokenizer.fingerprint},
            "data": self.loader.state(self.state.cursor, self.state.quarantine, self.state.epochs),
            "schedule": self.schedule.state_dict(),
            "scaler": self.train_step.scaler.state_dict(),
            "precision": self.precision.name,
            "rng": {"kind": "by step and rank", "seed": self.config.model.seed},
            "best": {"step": self.state.best_step, "loss": self.state.best_loss},
            "skips": self.train_step.guard.skips,
            **self.state.rounding,
        }

    # Endings

    def _leave(self) -> int:
        """Ends before the last step with everything saved, on request."""
        self.leave_saved()
        self.recorder.say(f"stopped at step {self.state.step}; the same command goes on from here")
        return EXIT_STOPPED

    def leave_saved(self) -> None:
        """Saves the last good state, unless no step was taken yet. TryAgain when it cannot be saved."""
        self._note()
        if self.state.step == self._began:
            return
        self.left_out.tell(self.state.step, last=True)
        self._save(background=False)
        self._check_saved()
        self.world.barrier()  # an end is only good when every rank has come to it

    def _check_saved(self) -> None:
        failure = self.saver.checkpointer.failure if self.saver.checkpointer else None
        if failure is not None:
            self._gave_up = True
            first = "free some space" if "space" in failure or "quota" in failure else "mend that"
            raise TryAgain(
                f"the checkpoint of step {self.state.step} could not be saved ({failure}); {first}, then run the "
                "same command: it goes on from the last checkpoint that was"
            )

    def rescue(self) -> str:
        """Saves what a failure leaves to be saved, without exchanges; says what that was. On every rank, which has a
        part of a shared model; the first one decides."""
        step, changing = self.state.step, self.train_step.unfinished
        if self.saver.checkpointer is None:
            self.saver.offer(step, changing)
            return ""
        self.saver.wait()
        saved = step == self._saved and self.saver.checkpointer.failure is None
        if self.state.cursor is None or saved or self._gave_up:
            self.saver.decline()
            return ""
        if self.weights.shared_out:
            self._note_best()
            if why := self.saver.rescue(step, changing, self._state):
                return f"{why}, so step {step} is not saved{self._goes_on()}"
        elif changing:
            return f"the weights were being changed, so step {step} is not saved"
        else:
            self._write_checkpoint(background=False)
        self._check_saved()
        return f"step {step} is saved"

    def _goes_on(self) -> str:
        """From where the same command will."""
        last = self.saver.checkpointer.last if self.saver.checkpointer else None
        step = step_of(last.name) if last else self._began
        return f": the same command goes on from step {step}" if step else ", and there is no checkpoint yet"

    def _finish(self) -> int:
        self.leave_saved()
        self.recorder.plot()
        self.recorder.say(f"finished: {self.config.train.steps} steps, run folder {self.run.path}")
        return EXIT_OK

    def closing(self) -> list[Callable[[], object]]:
        """What ends threads and files, to be called one by one: one that fails must not keep the next from it."""
        return [self.saver.wait, self.loader.close, self._note, self.tracing.end, self.recorder.close]

    def _status(self, state: str, phase: str, **more: Any) -> None:
        self.recorder.status(state, phase, self.state.step, **more)
