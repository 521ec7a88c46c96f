"""Stopping a run: first a request, then signals, and in the end certainty about every process."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mygpt2.errors import UserError
from mygpt2.files import replace_json
from mygpt2.run_dir.control import ControlFiles
from mygpt2.run_dir.liveness import ENDED, RunState, state_of
from mygpt2.run_dir.lock import RunLock, holder
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import Process, descendants
from mygpt2.run_dir.writer import next_attempt, write_end

GRACE_SECONDS = 60.0
KILL_SECONDS = 10.0
LOOK_SECONDS = 0.2
KILLED = 128 + signal.SIGKILL  # the exit code that a shell reports
LAUNCHER, HELPER, TRAINER = "launcher", "helper process", "trainer"

How = Literal["save", "now", "kill"]
HOWS: tuple[How, ...] = ("save", "now", "kill")
Find = Callable[[], tuple[Process | None, list[Process]]]  # the launcher, if known, and further processes of the run


@dataclass(frozen=True)
class Outcome:
    """What became of one process. `who` is "launcher", "rank <r>", "helper process" (what those started) or, of one
    that no rank's record names, "trainer"."""

    who: str
    pid: int
    result: str
    gone: bool

    def __str__(self) -> str:
        return f"{self.who} (pid {self.pid}): {self.result}"


@dataclass(frozen=True)
class StopReport:
    """How a stop went. `stopped` only when nobody is left that this machine can see: no process, and no lock held."""

    outcomes: list[Outcome]
    final: RunState
    held: bool = False

    @property
    def stopped(self) -> bool:
        return not self.final.alive and not self.held and all(outcome.gone for outcome in self.outcomes)


def stop(
    run: RunDir,
    how: How = "save",
    *,
    find: Find = lambda: (None, []),
    patience: float | None = None,
    grace: float = GRACE_SECONDS,
    on_progress: Callable[[RunState], None] = lambda state: None,
    say: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> StopReport:
    """Ends a run and waits for it. UserError for an unknown `how`.

    save: asks it to finish its step, save and end; waits `patience` seconds (None: as long as it takes).
    now: SIGTERM to the launchers (torchrun passes it on) or the ranks, `grace` seconds for a last checkpoint, then
    SIGKILL. kill: SIGKILL at once. SIGKILL goes to launchers and to every rank whose start time still matches: torchrun
    puts each rank in a session of its own, so killing its process group would leave orphans.

    `find` is asked again and again for processes that no record names; `on_progress` hears the run's state while it is
    waited for, `say` what else happens.
    """
    check_how(how)
    return _Stop(run, find, on_progress, say, sleep, clock).run_through(how, patience, grace)


def check_how(how: str) -> None:
    """UserError for a way to stop that is not known."""
    if how not in HOWS:
        raise UserError(f"there is no way {how!r} to stop a run; allowed: {', '.join(HOWS)}")


def at_work(run: RunDir) -> bool:
    """Whether there is anybody to stop, whatever the run says of itself: its files may be damaged, or of yesterday."""
    state = state_of(run)
    return state.alive or any(process.alive() for process in _recorded(run, state)) or holder(run)[0]


def where(state: RunState) -> str:
    """How far a run is, in a line."""
    return f"{state.state}, {state.status.get('phase', '?')}, step {state.status.get('step', '?')}"


def record_unbegun(run: RunDir, word: str, reason: str) -> None:
    """Writes down how a queued run ended that never began. A run that has had an attempt speaks for itself."""
    state = state_of(run)
    if state.state == "queued" and next_attempt(run) == 1:
        replace_json(run.status_file, {**state.status, "state": word, "phase": word, "message": reason})


def record_kill(run: RunDir) -> None:
    """Writes down that a run was killed on request. Only for a run of which nobody is left: its lock is taken."""
    if not run.exists() or not state_of(run).status:
        return
    with contextlib.suppress(UserError, OSError), RunLock(run).acquire(patience=1.0):
        if state_of(run).state not in ENDED:
            write_end(run, "stopped", KILLED, "killed on request; the run goes on from its last checkpoint")


@dataclass
class _Member:
    """One process of the run. An empty result: nothing became of it yet."""

    who: str
    process: Process
    result: str = ""


class _Stop:
    """One stop. Members are looked up anew again and again: a launcher may restart its ranks meanwhile."""

    def __init__(
        self,
        run: RunDir,
        find: Find,
        on_progress: Callable[[RunState], None],
        say: Callable[[str], None],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self.run, self.find, self.on_progress, self.say = run, find, on_progress, say
        self.sleep, self.clock = sleep, clock
        self.members: dict[Process, _Member] = {}

    @property
    def living(self) -> list[_Member]:
        return [member for member in self.members.values() if member.process.alive()]

    def run_through(self, how: How, patience: float | None, grace: float) -> StopReport:
        state = self._look()
        for member in self.members.values():
            if member.process.local and not member.process.alive():
                member.result = "was gone already"
        if how == "kill":
            self._kill()
        elif not (state.alive or self.living or holder(self.run)[0]):
            pass  # nobody to ask
        elif self._begins():
            for member in self._terminate():
                self.say(f"{member.who} (pid {member.process.pid}) has no rank at work yet: sending SIGTERM")
            self._end_who_is_left(self._wait(grace, "ended after SIGTERM"), grace)
        else:
            ControlFiles(self.run).request("stop")
            if how == "save" and not self._wait(patience, "ended as asked"):
                return self._report(state_of(self.run))
            if how == "now":
                self._terminate()
            self._end_who_is_left(how == "save" or self._wait(grace, "ended after SIGTERM"), grace)
        if not self.living:
            record_unbegun(self.run, "stopped", "stopped before it began")
            if how == "kill":
                self._record_kill()
        report = self._report(state_of(self.run))
        if report.stopped:
            ControlFiles(self.run).clear("stop")
        return report

    def _look(self) -> RunState:
        """Adds everybody who is there by now: launchers, ranks, and what those started."""
        launcher, others = self.find()
        if launcher:
            self.members.setdefault(launcher, _Member(LAUNCHER, launcher))
        state = self._look_at_records()
        children = [child for member in self.living for child in descendants(member.process)]
        for process in [*children, *others]:
            self.members.setdefault(process, _Member(HELPER, process))
        return state

    def _look_at_records(self) -> RunState:
        state = state_of(self.run)
        for process, who in _recorded(self.run, state).items():
            known = self.members.setdefault(process, _Member(who, process))
            known.who = who if known.who == HELPER else known.who  # it has written its record since
        return state

    def _begins(self) -> bool:
        """Whether a launcher is there and no rank yet: the attempt that is about to begin would clear the request."""
        return any(m.who == LAUNCHER for m in self.living) and not any(m.who.startswith("rank") for m in self.living)

    def _terminate(self) -> list[_Member]:
        """One SIGTERM reaches every rank: through the launcher where it lives, directly where it does not."""
        living = [member for member in self.living if member.who != HELPER]
        reached = [member for member in living if member.who == LAUNCHER] or living
        for member in reached:
            self._send(member, signal.SIGTERM)
        return reached

    def _send(self, member: _Member, number: signal.Signals) -> None:
        try:
            member.process.send(number)
        except PermissionError:
            member.result = f"not allowed to send {number.name}; it belongs to another user"

    def _wait(self, seconds: float | None, result: str) -> bool:
        """Waits for all processes of this machine (and the word of other machines) and notes how each went.

        A new attempt is asked again: it has cleared the request.
        """
        deadline = None if seconds is None else self.clock() + seconds
        attempt = None
        while True:
            state = self._look_at_records()
            attempt, before = state.status.get("attempt"), attempt
            if before is not None and attempt != before:
                ControlFiles(self.run).request("stop")
            crew = [member for member in self.members.values() if member.who != HELPER]
            living = [member for member in crew if member.process.alive()]  # asked once: it changes meanwhile
            for member in crew:
                if member.process.local and not member.result and member not in living:
                    member.result = result
            remote = state.alive and any(not member.process.local for member in crew)
            unrecorded = not crew and (state.alive or holder(self.run)[0])
            if not living and not remote and not unrecorded:
                return True
            if deadline is not None and self.clock() >= deadline:
                return False
            self.on_progress(state)
            self.sleep(LOOK_SECONDS)

    def _end_who_is_left(self, gently: bool, grace: float) -> None:
        """Who does not listen; or else, `gently`, who was started at the last moment, and helpers that linger."""
        self._look()
        if gently and (left := self.living):
            for member in left:
                self._send(member, signal.SIGTERM)
            self._wait_gone(left, min(grace, KILL_SECONDS), "ended after SIGTERM")
        self._kill()

    def _kill(self) -> None:
        """SIGKILL to everybody, and to whoever was started meanwhile."""
        deadline = self.clock() + KILL_SECONDS
        while left := self.living:
            for member in left:
                self._send(member, signal.SIGKILL)
            self._wait_gone(left, 1.0, "killed")
            if self.clock() >= deadline:
                return
            self._look()

    def _wait_gone(self, members: list[_Member], seconds: float, result: str) -> None:
        deadline = self.clock() + seconds
        while any(member.process.alive() for member in members) and self.clock() < deadline:
            self.sleep(LOOK_SECONDS)
        for member in members:
            if not member.process.alive():
                member.result = result

    def _record_kill(self) -> None:
        remote = [member for member in self.members.values() if not member.process.local]
        for member in remote:
            self.say(f"{member.who} is on {member.process.host}: only that machine can kill it")
        if not remote:
            record_kill(self.run)

    def _report(self, state: RunState) -> StopReport:
        outcomes = []
        for member in self.members.values():
            process, gone = member.process, not member.process.alive()
            unknown = f"on {process.host}: not visible from here, asked to stop"
            result = member.result or (unknown if not process.local else "ended" if gone else "still running")
            if member.result or not gone or member.who != HELPER:  # helpers that end with the others are no news
                outcomes.append(Outcome(member.who, process.pid, result, gone))
        return StopReport(outcomes, state, holder(self.run)[0])


def _recorded(run: RunDir, state: RunState) -> dict[Process, str]:
    """Who the run folder names, each once: launchers, ranks, and who holds the folder without being one of them."""
    found = {rank.launcher: LAUNCHER for rank in state.ranks if rank.launcher}
    for rank in state.ranks:
        if rank.process:
            found.setdefault(rank.process, f"rank {rank.rank}")
    if owner := holder(run)[1]:
        found.setdefault(owner, TRAINER)
    return found
