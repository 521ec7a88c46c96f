"""Runs what an experiment lacks, one run after the other, by the command that a person would type.

Where a workbench owns the folder the runs are put into its queue instead and waited for: it knows which devices are
free. What is done is not done again: a killed experiment goes on with the same command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mygpt2.cli import EXIT_INTERRUPTED
from mygpt2.config import load_config, without_fork
from mygpt2.config.words import words_of
from mygpt2.errors import EXIT_STOPPED, TryAgain, UserError, word
from mygpt2.experiments.arms import changes, changes_words, seeds_of
from mygpt2.experiments.pieces import Outcome, Piece, outcome
from mygpt2.experiments.queueing import in_queue, owned, put
from mygpt2.failures import NONFINITE
from mygpt2.progress import VARIABLE, Progress, silent
from mygpt2.run_dir.liveness import state_of
from mygpt2.run_dir.lock import holder
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import kill_all

POLL_SECONDS = 0.5
HANDOVER_SECONDS = 5.0
# Codes of a command that somebody asked to end; the last two before it could say so itself.
STOPPED = (EXIT_STOPPED, EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)
LAST_WORDS = 2000  # bytes of what a command printed that are shown when it failed


class Interrupted(UserError):
    """Ctrl-C, or SIGTERM: what was done is kept."""

    exit_code = EXIT_STOPPED


def missing(pieces: Sequence[Piece], runs: Path) -> list[Piece]:
    """Those that are not over. UserError for a run that has the name and other settings."""
    return [piece for piece in pieces if not _known(piece, runs)]


def _known(piece: Piece, runs: Path) -> bool:
    """Whether the run is there and over; its settings are looked at if it is there at all."""
    run = RunDir(Path(runs) / piece.run)
    if not run.exists() or not run.config_file.is_file():
        return False
    theirs = without_fork(load_config(None, run.config_file))
    found = changes(theirs, piece.config)
    if seeds_of(theirs) != seeds_of(piece.config):
        found["seeds"] = (list(seeds_of(theirs)), list(seeds_of(piece.config)))
    if found:
        raise UserError(
            f"run {piece.run!r} is there with other settings ({changes_words(found)} would be needed); rename it or "
            f"delete it: python -m mygpt2 runs delete {piece.run} --runs {word(runs)}"
        )
    return piece.done(outcome(runs, piece.run))


def run_missing(
    pieces: Sequence[Piece], runs: Path, *, nproc: int = 1, say: Callable[[str], None] = print,
    progress: Progress = silent, each: bool = True,
) -> dict[str, Outcome]:  # fmt: skip
    """Trains every piece that is not over, in order, and says how all of them ended. Without `each` only what it waits
    for is said, not which run begins or diverged.

    A run that diverged is an answer and no error. UserError for one that failed otherwise or was stopped by somebody;
    Interrupted after Ctrl-C, once the run at work has saved.
    """
    left = missing(pieces, runs)
    for number, piece in enumerate(left, 1):
        if each:
            say(f"run {number} of {len(left)}: {piece.run}, {piece.steps:,} steps")
        found = _run(piece, Path(runs), nproc, say, partial(_tell, progress, piece))
        if found.diverged and each:
            say(f"{piece.run} diverged after step {found.step}: {found.reason.removeprefix(NONFINITE)}")
        if not piece.done(found):
            raise (TryAgain if found.unsaved else UserError)(_why(found, runs))
    return {piece.run: outcome(runs, piece.run) for piece in pieces}


def _tell(progress: Progress, piece: Piece, step: int) -> None:
    progress(piece.run, step, piece.steps, "steps")


def _why(found: Outcome, runs: Path) -> str:
    reason = f": {found.reason.splitlines()[0]}" if found.reason else ""
    return (
        f"run {found.run!r} is {found.state} at step {found.step}{reason}; see python -m mygpt2 runs show {found.run} "
        f"--runs {word(runs)}, then give the same command, which goes on from there"
    )


def _run(piece: Piece, runs: Path, nproc: int, say: Callable[[str], None], tell: Callable[[int], None]) -> Outcome:
    if state_of(RunDir(runs / piece.run)).alive:
        say(f"{piece.run} is at work already; waiting for it")
        return _wait(runs, piece.run, lambda: state_of(RunDir(runs / piece.run)).alive, tell)
    queued = in_queue(runs, piece.run)
    if not queued and not owned(runs):
        return _train(piece, runs, nproc, say, tell)
    if not queued:
        put(piece, runs, nproc)
    say(f"{piece.run} waits in the workbench's queue")
    return _wait(runs, piece.run, partial(_served, runs, piece.run), tell)


def _served(runs: Path, name: str) -> bool:
    """Whether the queue still has the run; UserError once nobody is there who would start it. What a workbench began
    itself, which a file of progress tells, waits for one to come back."""
    if not in_queue(runs, name):
        return False
    if VARIABLE not in os.environ and not owned(runs) and not state_of(RunDir(runs / name)).alive:
        time.sleep(HANDOVER_SECONDS)  # one workbench may be taking over from another
        if not owned(runs) and in_queue(runs, name) and not state_of(RunDir(runs / name)).alive:
            raise UserError(
                f"run {name!r} waits in the queue of a workbench that is gone; start it again, or cancel the run "
                "there; then give the same command"
            )
    return True


def _wait(runs: Path, name: str, busy: Callable[[], bool], tell: Callable[[int], None]) -> Outcome:
    """Until somebody else has done it."""
    try:
        while busy():
            tell(outcome(runs, name).step)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        raise Interrupted(f"no longer waiting for {name}, which goes on; the same command goes on as well") from None
    return outcome(runs, name)


def command(piece: Piece, runs: Path, nproc: int = 1) -> list[str]:
    """The words that train a piece, or go on with it from its own configuration where it has begun."""
    head = [sys.executable, "-m", "mygpt2", "train"]
    if nproc > 1:
        head = [sys.executable, "-m", "mygpt2.launch", "--nproc", str(nproc)]
    words = [*head, "--runs", str(Path(runs).absolute()), "--run", piece.run]
    words += ["--until", str(piece.until)] if piece.until else []
    if RunDir(Path(runs) / piece.run).config_file.is_file():
        return words
    return [*words, "--preset", piece.preset, *words_of(piece.config, piece.preset)]


def _train(piece: Piece, runs: Path, nproc: int, say: Callable[[str], None], tell: Callable[[int], None]) -> Outcome:
    code, words = call(command(piece, runs, nproc), lambda: tell(outcome(runs, piece.run).step))
    found = outcome(runs, piece.run)
    if piece.done(found):
        return found
    if _at_work(runs, piece.run):  # the same question, asked twice at once
        say(f"another command has begun {piece.run}; waiting for it")
        return _wait(runs, piece.run, partial(_at_work, runs, piece.run), tell)
    if code in STOPPED:
        raise Interrupted(
            f"{piece.run} was stopped and has saved step {found.step}; the same command goes on from there"
        )
    if words and found.state in ("missing", "lost", "starting"):
        raise UserError(f"run {piece.run!r} could not begin: {words}")
    return found


def _at_work(runs: Path, name: str) -> bool:
    """Whether some trainer has the run, also one that has not said so yet."""
    run = RunDir(runs / name)
    return state_of(run).alive or holder(run)[0]


def call(
    words: Sequence[str], watch: Callable[[], None], told: Path | None = None, given: Mapping[str, str] | None = None,
    keep: bool = True,
) -> tuple[int, str]:  # fmt: skip
    """Runs a command of ours to its end: its exit code and the last line it said on standard error. `told`: where it
    writes how far it is (see mygpt2.progress). `given`: variables of its environment, beside ours.

    `watch` is called twice a second. Ctrl-C and SIGTERM are passed on once, and its last words waited for; a second
    one kills it. Without `keep` the first does: there is nothing to save. Interrupted then, however it ended.
    """
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    environment |= {**({VARIABLE: str(told)} if told else {}), **(given or {})}
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C on the terminal reaches us alone, and it gets one signal instead of two.
        child = subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None:
                watch()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_SECONDS)
        except BaseException as problem:
            (_end if keep else kill_all)(child)
            if not isinstance(problem, KeyboardInterrupt):
                raise
            kept = "what was done is kept, and the same command goes on from there"
            raise Interrupted(f"stopped; {kept if keep else 'the same command begins again'}") from None
        return child.returncode, _last_line(errors)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Asks it to save and end, and waits; whoever interrupts that has it killed."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait()
    except KeyboardInterrupt:
        child.kill()
        child.wait()


def _last_line(errors: Any) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - LAST_WORDS))
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""
