"""One attempt at a run: claim its folder, build, train, and leave a record of how it ended.

Whatever happens on whichever rank, at whatever moment, comes here as an exception (`mygpt2.board` brings the others'):
what can be saved is saved, the parts are closed one by one, exit.json says which rank met what, the lock goes last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from mygpt2.board import NOBODY, Board, RankInfo, join, one_fate
from mygpt2.checkpoint import candidates, newest, step_of, steps
from mygpt2.config import RunConfig, to_toml, without_fork
from mygpt2.device import choose_device, use_threads
from mygpt2.distributed import World
from mygpt2.errors import EXIT_DEFECT, EXIT_OK, EXIT_STOPPED, EXIT_TRY_AGAIN, EXIT_USAGE, TryAgain, UserError, word
from mygpt2.failures import NONFINITE, UNSAVED, Failure, failure_of
from mygpt2.files import cannot_write, read_json
from mygpt2.model.attention import fastest_first
from mygpt2.orphans import STARTED
from mygpt2.run_dir import (
    AT_STEP,
    FOLDER,
    SIGNAL,
    ControlFiles,
    RunDir,
    RunLock,
    RunWriter,
    next_attempt,
    rank_states,
    write_rank,
)
from mygpt2.run_dir.ghost import check_weights
from mygpt2.run_dir.writer import write_end
from mygpt2.steady import steady_console
from mygpt2.train.logs import Log, logged
from mygpt2.train.setup import build
from mygpt2.train.signals import Requests
from mygpt2.train.trainer import Trainer

GOES_ON = -1  # in place of an exit code
TOLD = "told"  # on the board: some rank says on the terminal why it ended
CONTROL_S = 0.5  # how often a stop is looked for before the loop looks by itself


@dataclass(frozen=True)
class Attempt:
    """This try at a run: its number, its folder, and (on rank 0) the writer of that folder."""

    number: int
    run: RunDir
    writer: RunWriter | None

    def warn(self, text: str) -> None:
        """Says something about the data, as an alert too, on rank 0 alone."""
        if self.writer:
            print(text, flush=True)
            self.writer.event("alert", level="warning", about="data", message=text)


def main(
    config: RunConfig, run_name: str, runs_dir: Path, resume: str, argv: list[str], until: int | None = None
) -> int:
    """Trains as this rank of the run `runs_dir/run_name`, to its end or until a step; returns the exit code.

    A stop on request is 85. Under torchrun it is 0 instead, because torchrun would start the ranks again; exit.json
    holds 85 in both cases, and launch_train.sh ends with that. The first rank says why it ended: by a UserError or
    TryAgain for what a person can change or wait out, else by a line on stderr.
    """
    info = RankInfo.from_environment(os.environ)
    requests = Requests(until)
    requests.listen()
    failure: Failure | None = None
    cause: BaseException | None = None
    with steady_console(), ExitStack() as logs:
        life = _Life(RunDir(Path(runs_dir) / run_name), info, requests, logs)
        try:
            code = life.train(config, resume, argv)
        except BaseException as problem:
            failure, cause = life.failed(problem), problem
            code = failure.code
        if (unwritten := life.close(code, failure)) is not None and failure is None:
            failure, cause = life.unwritten(unwritten), unwritten
            code = failure.code
        if failure:
            life.tell(failure, cause)
    return EXIT_OK if code == EXIT_STOPPED and info.elastic else code


class _Life:
    """What exists of an attempt by now, so that it can be ended at any moment."""

    def __init__(self, run: RunDir, info: RankInfo, requests: Requests, logs: ExitStack) -> None:
        self.run, self.info, self.requests, self.logs = run, info, requests, logs
        self.board: Board | None = None
        self.world: World | None = None
        self.lock: RunLock | None = None
        self.writer: RunWriter | None = None
        self.log: Log | None = None
        self.trainer: Trainer | None = None
        self.number = 0

    # The attempt

    def train(self, config: RunConfig, resume: str, argv: list[str]) -> int:
        """Everything from meeting the other ranks to the last save; returns the exit code."""
        check_weights(self.run)
        stall = 60 * config.train.stall_minutes
        self.board = join(self.info, timeout_s=stall, check=self.requests.check)
        if self.board:
            self.board.dead, self.board.stuck = self._dead, self._stuck
        with one_fate(self.board):
            use_threads(self.info)
            device = choose_device(config.train.device, self.info)
            self.logs.enter_context(fastest_first(device))
            world = self.world = World(self.info, device, timeout_s=stall, board=self.board)
            code = world.from_lead(lambda: _ended_already(config, self.run, resume, self.info))
            if code != GOES_ON:
                return code
            self.number = world.from_lead(lambda: self._claim(config, argv))
            name = f"rank {world.rank}" if self._log_file(world.rank) != self.run.log_file(world.rank) else ""
            self.log = self.logs.enter_context(logged(self._log_file(world.rank), show=world.lead, name=name))
            write_rank(self.run, world.rank, world_size=world.size, device=str(device), attempt=self.number)
            with self.requests.at_once(), self._watched():
                self.trainer = build(config, world, Attempt(self.number, self.run, self.writer), self.requests)
            if self.writer:
                self.writer.begin()
            return self.trainer.fit()

    def _log_file(self, rank: int) -> Path:
        """Of each rank, but where there are several nodes, of each node beside the first rank's: a thousand files are
        too many for a file system that all share."""
        if rank == 0 or not self.info.spans_nodes:
            return self.run.log_file(rank)
        node = self.info.node if rank == self.info.rank else rank // self.info.local_size
        return self.run.node_log_file(node)

    def _claim(self, config: RunConfig, argv: list[str]) -> int:
        """Makes or takes the run's folder, which is this attempt's until the lock is released; the attempt's number."""
        new = not self.run.exists()
        if new:
            RunDir.create(self.run.path.parent, self.run.name)
        try:
            return self._begin(config, argv)
        except (OSError, TryAgain) as error:
            if new and self.writer is None:
                shutil.rmtree(self.run.path, ignore_errors=True)  # nothing of a run is in it
            if isinstance(error, OSError):
                raise cannot_write(Path(error.filename or self.run.path), error) from None
            raise

    def _begin(self, config: RunConfig, argv: list[str]) -> int:
        self.lock = RunLock(self.run).acquire(sleep=self._sleep)
        self.writer = RunWriter(self.run, next_attempt(self.run), held=True, lock=self.lock)
        control = ControlFiles(self.run)
        control.clear_older(float(os.environ.get(STARTED) or time.time()))
        if "stop" in control.poll():
            self.requests.stop = self.requests.in_folder = True
        self.writer.config(to_toml(without_fork(config)))
        self.writer.command(argv)
        self.writer.start_heartbeat()
        return self.writer.attempt

    def _sleep(self, seconds: float) -> None:
        self.requests.check()
        time.sleep(seconds)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """While the loop does not look for control/stop yet, a thread does; a stop found is a signal like any other."""
        main = threading.main_thread()
        if self.writer is None or threading.current_thread() is not main or main.ident is None:
            yield
            return
        over, control, ident = threading.Event(), ControlFiles(self.run), main.ident

        def look() -> None:
            while not over.wait(CONTROL_S):
                if "stop" in control.poll() and not over.is_set():
                    signal.pthread_kill(ident, signal.SIGTERM)
                    return

        thread = threading.Thread(target=look, name="control", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    # Its end

    def failed(self, problem: BaseException) -> Failure:
        """Saves what is left to be saved; the failure with what became of that. Never raises."""
        failure = failure_of(problem, self.info.rank, self.info.size)
        if failure.defect and failure.rank == self.info.rank:
            self._note(problem)
        interrupted = any(isinstance(each, KeyboardInterrupt) for each in (problem, problem.__cause__))
        if interrupted or self.trainer is None or (self.lock and self.lock.lost):
            return failure
        try:
            saved = self.trainer.rescue()
        except BaseException as other:
            saved = failure_of(other).text
        return replace(failure, text=f"{failure.text.removesuffix(UNSAVED)}; {saved}") if saved else failure

    def close(self, code: int, failure: Failure | None) -> BaseException | None:
        """Ends threads and files and writes down the end, one after the other; returns what kept that from being
        written as it should. Never raises."""
        for end in self.trainer.closing() if self.trainer else []:
            self._try(end)
        problem = None
        if self.writer:
            problem = self._try(lambda: self._write_end(code, failure))
            self._try(self.writer.close)
            if problem is not None:
                told = failure or self.unwritten(problem)
                self._try(lambda: write_end(self.run, told.state, told.code, told.text))
        if self.lock:
            self._try(self.lock.release)
        if last := self.world or self.board:
            self._try(last.close)
        return problem

    def unwritten(self, problem: BaseException) -> Failure:
        """All went well until the end was to be written down."""
        return failure_of(problem, self.info.rank, self.info.size)

    def _write_end(self, code: int, failure: Failure | None) -> None:
        assert self.writer is not None
        asked = None
        if code == EXIT_STOPPED:
            control = ControlFiles(self.run)
            at_step = self.trainer is not None and self.requests.met(self.trainer.state.step)
            by_folder = self.requests.in_folder or "stop" in control.poll()
            asked = FOLDER if by_folder else AT_STEP if at_step else SIGNAL
            control.clear("stop")
        if failure is None:
            how = f"after step {self.requests.until:,}, as asked" if asked == AT_STEP else "on request"
            reason = {EXIT_OK: "finished", EXIT_STOPPED: f"stopped {how}; everything is saved"}[code]
            self.writer.finish("finished" if code == EXIT_OK else "stopped", code, reason, asked=asked)
            return
        if code == EXIT_DEFECT:
            self.writer.event("alert", level="error", message=failure.text, rank=failure.rank)
        rank = None if failure.rank == NOBODY else failure.rank
        self.writer.finish(failure.state, code, failure.text, rank=rank, asked=asked)

    def tell(self, failure: Failure, cause: BaseException | None) -> None:
        """Says on the terminal why it ended: the first rank does, or one of the others where that has died."""
        mine = failure.rank == 0 and failure.silent and self.board and self.board.first(TOLD)
        if self.info.rank != 0 and not mine:
            if self.log:
                self.log.write(f"error: {failure.text}\n")
            return
        if isinstance(cause, UserError) and str(cause) == failure.text:
            raise cause
        if failure.code in (EXIT_USAGE, EXIT_TRY_AGAIN):
            raise {EXIT_USAGE: UserError, EXIT_TRY_AGAIN: TryAgain}[failure.code](failure.text)
        where = f"; the stack is in {self._log_file(failure.rank)}" if failure.defect and self.log else ""
        words = failure.text if failure.code == EXIT_STOPPED else f"error: {failure.text}{where}"
        print(words, file=sys.stderr, flush=True)

    def _try(self, end: Callable[[], object]) -> BaseException | None:
        """What went wrong, if anything did: the next part must be ended all the same."""
        try:
            end()
        except BaseException as problem:
            self._note(problem)
            return problem
        return None

    def _note(self, problem: BaseException) -> None:
        """The stack, for whoever looks for the defect: in the rank's log, or before there is one, in a file that is
        named."""
        stack = "".join(traceback.format_exception(problem))
        if self.log:
            self.log.write(stack)
            return
        try:
            with NamedTemporaryFile("w", prefix="mygpt2-", suffix=".log", errors="replace", delete=False) as file:
                file.write(stack)
            print(f"the stack of rank {self.info.rank} is in {file.name}", file=sys.stderr)
        except OSError:
            print(stack, end="", file=sys.stderr)

    def _dead(self) -> Failure | None:
        """A rank of this attempt that is no more, though it did not say why."""
        for rank in rank_states(self.run) if self.number else []:
            if rank.attempt == self.number and rank.alive is False and rank.rank != self.info.rank and rank.process:
                words = (
                    f"rank {rank.rank} (pid {rank.process.pid}) died without a word, perhaps killed for lack of memory"
                )
                return Failure(rank.rank, EXIT_DEFECT, words, silent=True)
        return None

    def _stuck(self, failure: Failure) -> None:
        """Called from another thread, just before this process is ended because its main thread does not come back."""
        if self.info.rank != 0:
            return
        text = failure.text
        if self.trainer:
            text += "; rank 0 hung, so the last step is not saved"
        if self.writer:
            with contextlib.suppress(BaseException):
                self._write_end(failure.code, replace(failure, text=text))
        print(f"error: {text}", file=sys.stderr, flush=True)


def _ended_already(config: RunConfig, run: RunDir, resume: str, info: RankInfo) -> int:
    """The exit code when there is nothing to do: a finished run, or one that a restart would only fail again. Of the
    first rank, whose checkpoints it reads through: once, for all."""
    if not run.exists():
        if resume == "must":
            raise UserError(f"--resume must: no run {run.name!r} in {run.path.parent}; start it with --resume auto")
        return GOES_ON
    if resume == "never" and info.restart == 0:
        raise UserError(
            f"--resume never: run {run.name!r} exists in {run.path.parent}; choose another --run, or --resume auto"
        )
    ended = read_json(run.exit_file) or {}
    if info.restart > 0 and str(ended.get("reason", "")).startswith(NONFINITE):
        return EXIT_DEFECT
    if resume == "must" and not candidates(run.checkpoints_dir):
        raise UserError(f"--resume must: run {run.name!r} has no checkpoint; start it with --resume auto")
    reached = max(steps(run.checkpoints_dir), default=0) if ended.get("code") == EXIT_OK else 0
    whole = newest(run.checkpoints_dir)[0] if reached == config.train.steps else None
    if whole and step_of(whole.name) == reached:
        print(
            f"run {run.name} is finished ({config.train.steps} steps): sample it with\n"
            f'  python -m mygpt2 sample --model {word(run.path)} --prompt "The"\n'
            "or start another with --run NAME"
        )
        return EXIT_OK
    return GOES_ON
