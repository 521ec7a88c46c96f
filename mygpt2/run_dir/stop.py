"""Stopping a run: first a request, then signals, and in the end certainty about every process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from mygpt2.run_dir.control import ControlFiles
from mygpt2.run_dir.liveness import RunState, rank_states, state_of
from mygpt2.run_dir.lock import holder
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import Process

GRACE_SECONDS = 60.0
KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of one process. `who` is "launcher", "rank <r>" or, of one that no rank's record names, "trainer"."""

    who: str
    pid: int
    result: str
    gone: bool


@dataclass(frozen=True)
class StopReport:
    """How a stop went. `stopped` only when nobody is left that this machine can see: no process, and no lock held."""

    outcomes: list[Outcome]
    final: RunState
    held: bool = False

    @property
    def stopped(self) -> bool:
        return not self.final.alive and not self.held and all(outcome.gone for outcome in self.outcomes)


@dataclass
class _Target:
    who: str
    process: Process
    result: str = ""


def stop(
    run: RunDir,
    *,
    now: bool = False,
    patience: float | None = None,
    grace: float = GRACE_SECONDS,
    on_progress: Callable[[RunState], None] = lambda state: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> StopReport:
    """Asks a run to save and end, and waits `patience` seconds (None: as long as it takes).

    With `now` signals follow at once: SIGTERM to the launchers (torchrun passes it on) or the ranks, `grace` seconds
    for a last checkpoint, then SIGKILL to launchers and to every recorded rank whose start time still matches:
    torchrun puts each rank in a session of its own, so killing its process group would leave orphans.
    """
    targets = _targets(run)
    for target in targets:
        if target.process.local and not target.process.alive():
            target.result = "was gone already"
    before = state_of(run)
    if not _anybody(run, before, targets):
        return StopReport(_outcomes(targets), before)
    ControlFiles(run).request("stop")
    waiting = _Waiting(run, targets, on_progress, sleep, clock)
    if not now:
        waiting.until_gone(patience, "ended as asked")
    else:
        _terminate(targets)
        waiting.until_gone(grace, "ended after SIGTERM")
        for target in _living(targets):
            _signal(target, signal.SIGKILL)
        waiting.until_gone(KILL_SECONDS, "killed")
    report = StopReport(_outcomes(targets), state_of(run), holder(run)[0])
    if report.stopped:
        ControlFiles(run).clear("stop")
    return report


def at_work(run: RunDir) -> bool:
    """Whether there is anybody to stop, whatever the run says of itself: its files may be damaged, or of yesterday."""
    return _anybody(run, state_of(run), _targets(run))


def _anybody(run: RunDir, state: RunState, targets: list[_Target]) -> bool:
    return state.alive or bool(_living(targets)) or holder(run)[0]


def _targets(run: RunDir) -> list[_Target]:
    """Launchers first, each once, then the ranks, then who holds the folder without being recorded as a rank."""
    ranks = rank_states(run)
    launchers = {rank.launcher: None for rank in ranks if rank.launcher}
    found = [
        *(_Target("launcher", process) for process in launchers if process),
        *(_Target(f"rank {rank.rank}", rank.process) for rank in ranks if rank.process),
    ]
    owner = holder(run)[1]
    return (
        found if owner is None or owner in [target.process for target in found] else [*found, _Target("trainer", owner)]
    )


def _living(targets: list[_Target]) -> list[_Target]:
    return [target for target in targets if target.process.alive()]


def _terminate(targets: list[_Target]) -> None:
    """One SIGTERM reaches every rank: through the launcher where it lives, directly where it does not."""
    living = _living(targets)
    launchers = [target for target in living if target.who == "launcher"]
    for target in launchers or living:
        _signal(target, signal.SIGTERM)


def _signal(target: _Target, number: signal.Signals) -> None:
    try:
        target.process.send(number)
    except PermissionError:
        target.result = f"not allowed to send {number.name}; it belongs to another user"


@dataclass
class _Waiting:
    run: RunDir
    targets: list[_Target]
    on_progress: Callable[[RunState], None]
    sleep: Callable[[float], None]
    clock: Callable[[], float]

    def until_gone(self, seconds: float | None, result: str) -> bool:
        """Waits for all processes of this machine (and the word of other machines) and notes how each went."""
        deadline = None if seconds is None else self.clock() + seconds
        while True:
            living = [target for target in self.targets if target.process.alive()]  # asked once: it changes meanwhile
            for target in self.targets:
                if target.process.local and not target.result and target not in living:
                    target.result = result
            state = state_of(self.run)
            remote = state.alive and any(not target.process.local for target in self.targets)
            unrecorded = not self.targets and (state.alive or holder(self.run)[0])
            if not living and not remote and not unrecorded:
                return True
            if deadline is not None and self.clock() >= deadline:
                return False
            self.on_progress(state)
            self.sleep(0.2)


def _outcomes(targets: list[_Target]) -> list[Outcome]:
    outcomes = []
    for target in targets:
        process, gone = target.process, not target.process.alive()
        unknown = f"on {process.host}: not visible from here, asked to stop"
        result = target.result or (unknown if not process.local else "ended" if gone else "still running")
        outcomes.append(Outcome(target.who, process.pid, result, gone))
    return outcomes
