"""Three ways to end a run, each with a word about every process: save, now, kill."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mygpt2.errors import UserError
from mygpt2.run_dir import ControlFiles, Process, RunDir, RunState, rank_states, state_of
from mygpt2.run_dir import stop as engine_stop
from mygpt2.run_dir.stop import GRACE_SECONDS, Outcome
from workbench.jobs.ending import last_attempt, record_kill, record_unbegun
from workbench.jobs.spawn import descendants

How = Literal["save", "now", "kill"]
HOWS: tuple[How, ...] = ("save", "now", "kill")
KILL_SECONDS = 10.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Crew:
    """Everybody at work on a run: launchers first, then ranks, then what else they started."""

    members: tuple[tuple[str, Process], ...]

    @property
    def living(self) -> list[tuple[str, Process]]:
        return [(who, process) for who, process in self.members if process.alive()]


def crew_of(run: RunDir, launcher: Process | None, others: list[Process] | None = None) -> Crew:
    """All local processes of a run that are known by now, each once."""
    found: dict[Process, str] = {launcher: "launcher"} if launcher else {}
    ranks = rank_states(run)
    for rank in ranks:
        if rank.launcher and rank.launcher.local:
            found.setdefault(rank.launcher, "launcher")
    for rank in ranks:
        if rank.process and rank.process.local:
            found.setdefault(rank.process, f"rank {rank.rank}")
    parents = [process for process in found if process.alive()]
    for other in [*(child for parent in parents for child in descendants(parent)), *(others or [])]:
        found.setdefault(other, "helper process")
    return Crew(tuple((who, process) for process, who in found.items()))


class StopJob:
    """A stop under way, in a thread of its own. `lines` grows until `done`; then `stopped` and `final` tell the end.

    find: who the launcher is (None while nobody knows) and further processes of the run, asked again and again; no
    function at all for a run that only waited in the queue and has left it.
    """

    def __init__(
        self,
        run: RunDir,
        how: How,
        find: Callable[[], tuple[Process | None, list[Process]]] | None = lambda: (None, []),
        grace: float = GRACE_SECONDS,
    ) -> None:
        if how not in HOWS:
            raise UserError(f"there is no way {how!r} to stop a run; allowed: {', '.join(HOWS)}")
        self.run, self.how = run.name, how
        self.outcomes: list[Outcome] = []
        self.final: RunState | None = None
        self.attempt = 0  # the run's last one when the stop was over
        self._run, self._find, self._grace = run, find, grace
        self._lines: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=f"stop {run.name}", daemon=True)

    @property
    def lines(self) -> list[str]:
        """What happened so far, a line each."""
        return list(self._lines)

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def stopped(self) -> bool:
        """Whether it is over and no process of the run is left that this machine can see."""
        return self.done and self.final is not None and not self.final.alive and all(o.gone for o in self.outcomes)

    def start(self) -> StopJob:
        self._thread.start()
        return self

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it ended within that time."""
        return self._ended.wait(seconds)

    def _guarded(self) -> None:
        try:
            self._work()
        except (UserError, OSError) as error:
            self._say(f"could not stop it: {error}")
        except Exception as error:  # the page must see the end of every stop, a defect's too
            self._say(f"a defect while stopping: {type(error).__name__}: {error}")
            raise
        finally:
            self._ended.set()

    def _work(self) -> None:
        if self._find is None:
            self._say("it waited in the queue and was taken out")
        else:
            {"save": self._save, "now": self._now, "kill": self._kill}[self.how]()
        if not self._crew().living:
            record_unbegun(self._run, "stopped", "stopped before it began")
        self.final, self.attempt = state_of(self._run), last_attempt(self._run)
        for outcome in self.outcomes:
            self._say(f"{outcome.who} (pid {outcome.pid}): {outcome.result}")
        reason = f" ({self.final.reason})" if self.final.reason else ""
        left = [outcome.who for outcome in self.outcomes if not outcome.gone]
        self._say(f"run {self.run}: {self.final.state}{reason}" + (f"; still there: {', '.join(left)}" if left else ""))

    def _save(self) -> None:
        self._say("asked to finish the step, save and end")
        self._by_engine(now=False)

    def _now(self) -> None:
        self._say(f"sending SIGTERM; {self._grace:.0f} s for a last checkpoint")
        self._by_engine(now=True)

    def _by_engine(self, *, now: bool) -> None:
        """The engine's stop, with the launcher that starts up and has no recorded rank yet stopped first."""
        crew = self._crew()
        if crew.living and not any(who.startswith("rank") for who, _ in crew.living):
            self._end_launcher(crew)
        else:
            report = engine_stop(self._run, now=now, grace=self._grace, on_progress=self._tell())
            self._note([(o.who, o.pid, o.result, o.gone) for o in report.outcomes])
        for who, process in self._crew().living:  # a rank that was restarted meanwhile, a helper that lingers
            self._end_one(who, process)

    def _tell(self) -> Callable[[RunState], None]:
        """Keeps one line about where the run is, and asks a new attempt again: it has cleared the request."""
        before: dict[str, object] = {}

        def tell(state: RunState) -> None:
            if before.setdefault("attempt", state.status.get("attempt")) != state.status.get("attempt"):
                before["attempt"] = state.status.get("attempt")
                ControlFiles(self._run).request("stop")
            line = f"{state.state}, {state.status.get('phase', '?')}, step {state.status.get('step', '?')}"
            if self._lines[-1] == before.get("line"):
                self._lines[-1] = line  # one line that moves on, not one per step
            else:
                self._say(line)
            before["line"] = line

        return tell

    def _end_launcher(self, crew: Crew) -> None:
        launchers = [(who, process) for who, process in crew.living if who == "launcher"] or crew.living
        for who, process in launchers:
            self._say(f"{who} (pid {process.pid}) has no rank at work yet: sending SIGTERM")
            process.send(signal.SIGTERM)
        ended = self._wait_gone([process for _, process in launchers], self._grace)
        for who, process in launchers:
            self._note([(who, process.pid, "ended after SIGTERM" if ended else "still running", not process.alive())])

    def _end_one(self, who: str, process: Process) -> None:
        process.send(signal.SIGTERM)
        result = "ended after SIGTERM"
        if not self._wait_gone([process], min(self._grace, KILL_SECONDS)):
            process.send(signal.SIGKILL)
            self._wait_gone([process], KILL_SECONDS)
            result = "killed"
        gone = not process.alive()
        self._note([(who, process.pid, result if gone else "still running", gone)])

    def _kill(self) -> None:
        self._say("sending SIGKILL to the launcher and every rank")
        results: dict[Process, tuple[str, str]] = {}
        deadline = time.monotonic() + KILL_SECONDS
        while True:
            crew = self._crew()
            living = crew.living  # looked up before anybody is sent anything: the launcher's end is also its ranks'
            for who, process in crew.members:
                if process not in results and (who, process) not in living:
                    results[process] = (who, "was gone already")
            for who, process in living:
                results[process] = (who, self._send_kill(process))
            if not living or time.monotonic() > deadline:
                break
            self._wait_gone([process for _, process in living], 1.0)
        self._note([(who, p.pid, result, not p.alive()) for p, (who, result) in results.items()])
        remote = [rank for rank in rank_states(self._run) if rank.process and not rank.process.local]
        for rank in remote:
            host = rank.process.host if rank.process else "?"
            self._say(f"rank {rank.rank} is on {host}: only that machine can kill it")
        if not remote and not self._crew().living:
            record_kill(self._run)

    def _send_kill(self, process: Process) -> str:
        try:
            process.send(signal.SIGKILL)
            return "killed"
        except PermissionError:
            return "not allowed to send SIGKILL; it belongs to another user"

    def _crew(self) -> Crew:
        launcher, others = self._find() if self._find else (None, [])
        return crew_of(self._run, launcher, others)

    def _note(self, outcomes: list[tuple[str, int, str, bool]]) -> None:
        """Adds outcomes; a process that was reported before is reported as it is now."""
        known = {(o.who, o.pid): o for o in self.outcomes}
        known |= {(who, pid): Outcome(who, pid, result, gone) for who, pid, result, gone in outcomes}
        self.outcomes = list(known.values())

    def _wait_gone(self, processes: list[Process], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(process.alive() for process in processes):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _say(self, line: str) -> None:
        self._lines.append(line)
