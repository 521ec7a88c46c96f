"""What state a run is really in: what it says of itself, checked against its processes."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mygpt2.files import read_json
from mygpt2.inside import SMALL_BYTES
from mygpt2.records import checked
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import Process, belongs

ACTIVE = ("starting", "running", "saving")
ENDED = ("stopped", "finished", "failed")
FRESH_SECONDS = 60.0  # beats come every 2 s; a loaded machine or a suspended one may miss many
CLOCKS_DIFFER_SECONDS = 86400.0  # between two machines, at most: one of them may be in the wrong time zone
STARTING_SECONDS = 180.0  # a launcher may import and connect for that long before its first rank is recorded


@dataclass(frozen=True)
class RankState:
    """One recorded rank. `alive` is None where only its own machine could tell."""

    rank: int
    process: Process | None
    launcher: Process | None
    device: str
    attempt: int
    alive: bool | None


@dataclass(frozen=True)
class RunState:
    """state is one of queued, starting, running, saving, stopped, finished, failed, lost.

    `reason` says why where the word alone does not. `heartbeat_age` and `progress_age` are seconds
    since the process last showed life and since it last got on.
    """

    state: str
    reason: str
    ranks: list[RankState]
    heartbeat_age: float | None
    progress_age: float | None
    status: dict[str, Any] = field(default_factory=dict)
    exit: dict[str, Any] | None = None

    @property
    def alive(self) -> bool:
        """Whether something is at work on this run."""
        return self.state in ACTIVE

    @property
    def processes(self) -> list[Process]:
        """Recorded ranks that run on this machine now, whatever the state says."""
        return [rank.process for rank in self.ranks if rank.alive and rank.process]


def read_record(run: RunDir, path: Path) -> dict[str, Any] | None:
    """status.json, exit.json, command.json or a rank's record, with entries of the right kinds only."""
    record = read_json(path, run.path, most=SMALL_BYTES)
    return None if record is None else checked(record)


def rank_states(run: RunDir) -> list[RankState]:
    """Every recorded rank by number, checked against the processes of this machine.

    A record that names a process of something else names none: it is told as gone, and nobody sends it a signal.
    """
    found = []
    for name in run.names(run.ranks_dir):
        path = run.ranks_dir / name
        record = read_record(run, path) if path.suffix == ".json" and path.stem.isdecimal() else None
        if record is None:
            continue
        process, launcher = (_ours(run, Process.from_json(each)) for each in (record, record.get("launcher")))
        alive = None if process and not process.local else bool(process and process.alive())
        device, attempt = str(record.get("device", "")), record.get("attempt") or 0
        found.append(RankState(int(path.stem), process, launcher, device, attempt, alive))
    return sorted(found, key=lambda rank: rank.rank)


def _ours(run: RunDir, process: Process | None) -> Process | None:
    return None if process and process.alive() and not belongs(run, process) else process


def state_of(run: RunDir, *, now: float | None = None) -> RunState:
    """The state of a run, from its files and the processes they name. Never raises for a damaged folder.

    A run that says it is at work is believed only while one of its recorded processes exists with the recorded start
    time and the heartbeat is fresh; otherwise it is lost. On another machine only the heartbeat can tell.
    """
    now = time.time() if now is None else now
    status = read_record(run, run.status_file) or {}
    attempt = status.get("attempt")
    ended = read_record(run, run.exit_file)
    if ended is not None and ended.get("attempt") != attempt:
        ended = None  # of an earlier attempt, kept until this one has begun
    ranks = rank_states(run)
    current = [rank for rank in ranks if rank.attempt == attempt]
    beat, moved = _heartbeat(run, status, now), status.get("progress")
    age = None if beat is None else now - beat
    state, reason = _judge(str(status.get("state") or ""), attempt, ended, current, age)
    if not reason and state == "lost":
        reason = _unreadable(run)
    return RunState(state, reason, ranks, age, None if moved is None else now - moved, status, ended)


def _judge(
    said: str, attempt: Any, ended: dict[str, Any] | None, ranks: list[RankState], age: float | None
) -> tuple[str, str]:
    if ended and ended.get("state") in ENDED:
        return str(ended["state"]), str(ended.get("reason", ""))
    if said in ENDED or said == "queued":
        return said, ""
    if said not in ACTIVE:
        return "lost", ""
    gone = [rank for rank in ranks if rank.alive is False]
    if ranks and len(gone) == len(ranks):
        return "lost", f"status.json says {said}, but {_processes(gone)} gone without a word"
    if not ranks and said != "starting":
        return "lost", f"status.json says {said}, but no process of attempt {attempt} is recorded"
    limit = FRESH_SECONDS if ranks else STARTING_SECONDS
    if age is None or age > limit:
        return "lost", f"status.json says {said}, but there was no sign of life for {_seconds(age)}"
    if gone:
        return said, f"{_processes(gone)} gone, the others still run"
    return said, ""


def _unreadable(run: RunDir) -> str:
    """Why status.json says nothing."""
    try:
        run.read(run.status_file, SMALL_BYTES)
    except OSError as error:
        return f"there is no readable status.json: {error.strerror or error}"
    return "there is no readable status.json: it is no record of a run's state"


def _processes(ranks: list[RankState]) -> str:
    names = ", ".join(f"rank {rank.rank} (pid {rank.process.pid if rank.process else '?'})" for rank in ranks)
    return f"{names} {'is' if len(ranks) == 1 else 'are'}"


def _seconds(age: float | None) -> str:
    return "an unknown time" if age is None else f"{age:.0f} s"


def _heartbeat(run: RunDir, status: dict[str, Any], now: float) -> float | None:
    """The later of the time written and the file's own: with a full disk the writer can only touch the file.

    A time of the days to come is none: it would keep a dead run alive until then.
    """
    times = [status.get("heartbeat")]
    with contextlib.suppress(OSError):
        times.append(run.status_file.stat().st_mtime if status else None)
    return max((t for t in times if t is not None and t < now + CLOCKS_DIFFER_SECONDS), default=None)
