"""One attempt at a run: claim its folder, build, train, and leave a record of how it ended."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mygpt2.checkpoint import newest, step_of
from mygpt2.config import RunConfig, to_toml
from mygpt2.distributed import PeerFailed, Place, World, choose_device, die_with_launcher
from mygpt2.errors import EXIT_DEFECT, EXIT_OK, EXIT_STOPPED, TryAgain, UserError
from mygpt2.run_dir import ControlFiles, RunDir, RunLock, RunWriter, next_attempt, write_rank
from mygpt2.run_dir.atomic import read_json
from mygpt2.train.guard import NONFINITE, NonFinite
from mygpt2.train.hardware import use_threads
from mygpt2.train.logs import logged
from mygpt2.train.setup import Attempt, build
from mygpt2.train.signals import Requests
from mygpt2.train.trainer import Trainer


def main(config: RunConfig, run_name: str, runs_dir: Path, resume: str, argv: list[str]) -> int:
    """Trains as this rank of the run `runs_dir/run_name`; returns the exit code of the process.

    A stop on request is 85. Under torchrun it is 0 instead, because torchrun would start the ranks again; exit.json
    holds 85 in both cases, and launch_train.sh ends with that.
    """
    place = Place.from_environment(os.environ)
    requests = Requests()
    requests.listen()
    if place.elastic:
        die_with_launcher()
    use_threads(place)
    device = choose_device(config.train.device, place)
    world = World(place, device, timeout_s=60 * config.train.stall_minutes)
    try:
        code = _attempt(config, RunDir(Path(runs_dir) / run_name), resume, argv, world, requests)
    except PeerFailed as problem:
        code = problem.exit_code
    finally:
        world.close()
    return EXIT_OK if code == EXIT_STOPPED and place.elastic else code


def _attempt(config: RunConfig, run: RunDir, resume: str, argv: list[str], world: World, requests: Requests) -> int:
    done = world.lead_first(lambda: _ended_already(config, run, resume, world.place))
    if done is not None:
        return done
    with _claimed(run, config, argv, world) as attempt:
        write_rank(run, world.rank, world_size=world.size, device=str(world.device), attempt=attempt.number)
        with logged(run.log_file(world.rank), show=world.lead):
            return _recorded(config, attempt, world, requests)


def _ended_already(config: RunConfig, run: RunDir, resume: str, place: Place) -> int | None:
    """The exit code when there is nothing to do: a finished run, or one that a restart would only fail again."""
    if not run.exists():
        if resume == "must":
            raise UserError(f"--resume must: no run {run.name!r} in {run.path.parent}; start it with --resume auto")
        return None
    if resume == "never" and place.restart == 0 and place.rank == 0:
        raise UserError(
            f"--resume never: run {run.name!r} exists in {run.path.parent}; choose another --run, or --resume auto"
        )
    ended = read_json(run.exit_file) or {}
    if place.restart > 0 and str(ended.get("reason", "")).startswith(NONFINITE):
        return EXIT_DEFECT
    found = newest(run.checkpoints_dir)[0] if resume == "must" or ended.get("code") == EXIT_OK else None
    if resume == "must" and found is None:
        raise UserError(f"--resume must: run {run.name!r} has no whole checkpoint; start it with --resume auto")
    if found and ended.get("code") == EXIT_OK and (step_of(found.name) or 0) >= config.train.steps:
        if place.rank == 0:
            print(
                f"run {run.name} is finished ({config.train.steps} steps): sample it with\n"
                f'  python -m mygpt2 sample --model {run.path} --prompt "The"\n'
                "or start another with --run NAME"
            )
        return EXIT_OK
    return None


@contextmanager
def _claimed(run: RunDir, config: RunConfig, argv: list[str], world: World) -> Iterator[Attempt]:
    """The run's folder, locked by rank 0 for as long as the attempt lasts; the others enter when it is ready."""

    def claim() -> tuple[RunLock, RunWriter] | None:
        if not world.lead:
            return None
        if not run.exists():
            RunDir.create(run.path.parent, run.name)
        lock = RunLock(run).acquire()
        try:
            writer = RunWriter(run, next_attempt(run), held=True, lock=lock)
            ControlFiles(run).clear_all()
            writer.config(to_toml(config))
            writer.command(argv)
        except BaseException:
            lock.release()
            raise
        return lock, writer

    claimed = world.lead_first(claim)
    lock, writer = claimed or (None, None)
    try:
        number = int(world.sum([writer.attempt if writer else 0], torch.int64)[0])
        if writer:
            writer.start_heartbeat()
        yield Attempt(number, run, writer)
    finally:
        if writer:
            writer.close()
        if lock:
            lock.release()


def _recorded(config: RunConfig, attempt: Attempt, world: World, requests: Requests) -> int:
    """Trains and writes down the end, whatever it is. Only defects raise."""
    writer, trainer = attempt.writer, None
    try:
        trainer = build(config, world, attempt, requests)
        if writer:
            writer.begin()
        code = trainer.fit()
        trainer.close()
    except NonFinite as problem:
        _save_good(trainer)
        return _end(writer, "failed", EXIT_DEFECT, f"{NONFINITE}{problem}", alert=True)
    except UserError as problem:
        _end(writer, "stopped" if isinstance(problem, TryAgain) else "failed", problem.exit_code, str(problem))
        if world.lead:
            raise
        return problem.exit_code  # rank 0 says why
    except PeerFailed as problem:
        return problem.exit_code
    except torch.OutOfMemoryError as problem:
        advice = f"out of memory on {world.device}: lower train.micro_batch or model.block_size ({str(problem)[:200]})"
        _end(writer, "failed", UserError.exit_code, advice)
        raise UserError(advice) from problem
    except KeyboardInterrupt:
        _end(writer, "stopped", EXIT_STOPPED, "interrupted twice: ended without saving")
        raise
    except BaseException as problem:
        traceback.print_exc()
        _end(writer, "failed", EXIT_DEFECT, f"{type(problem).__name__}: {problem}", alert=True)
        return EXIT_DEFECT
    finally:
        if trainer:
            trainer.loader.close()
    states = {EXIT_OK: ("finished", "finished"), EXIT_STOPPED: ("stopped", "stopped on request; everything is saved")}
    return _end(writer, states[code][0], code, states[code][1])


def _save_good(trainer: Trainer | None) -> None:
    """The weights before the bad step are good: they and their data position are kept."""
    if trainer:
        trainer.leave_saved()
        trainer.close()


def _end(writer: RunWriter | None, state: str, code: int, reason: str, alert: bool = False) -> int:
    if writer:
        if alert:
            writer.event("alert", level="error", message=reason)
            print(f"error: {reason}", file=sys.stderr)
        writer.finish(state, code, reason)
    return code
