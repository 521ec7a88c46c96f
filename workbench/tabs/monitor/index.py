"""The list of runs, kept up to date by looking at what changed: an unchanged run costs a few stats and no reading."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mygpt2.records import number
from mygpt2.run_dir import ACTIVE, RunDir, RunState, last_record, state_of
from mygpt2.run_dir.paths import NAME
from workbench.colours import colours_of
from workbench.jobs.reading import TAIL_BYTES, came_to_nothing, current, reached, tokenizer_of
from workbench.tabs.monitor.labels import labels_file, read_labels

log = logging.getLogger(__name__)
Stamp = tuple[tuple[int, int, int], ...]
MAX_SPEC = 200  # characters of a tokenizer's name
NOTE_IN_LIST = 2000  # characters of a note that the search looks at
MAX_AGE = 0.4  # seconds for which several pages share one look


@dataclass
class _Entry:
    stamp: Stamp
    settled: bool  # what it says can only change together with one of its files: nothing is at work on it
    row: dict[str, Any]
    version: int


class RunIndex:
    """Rows of all runs of a folder, each with the version at which it last changed.

    A page remembers the mark of what it has and asks for what changed since. `inspected` counts how often the files
    of a run were read, not merely looked at. Usable from any thread; one per server.
    """

    def __init__(
        self, runs: Path, *, clock: Callable[[], float] = time.time, at_work: Callable[[], set[str]] = set,
        read_only: bool = False,
    ) -> None:  # fmt: skip
        self._read_only = read_only
        self._colours: Mapping[str, int] = {}
        self._runs, self._clock, self._at_work = runs, clock, at_work
        self._entries: dict[str, _Entry] = {}
        self._epoch = secrets.token_hex(4)
        self._version = self._names_version = 0
        self._looked = -1.0
        self._watched = _watched()
        self._lock = threading.Lock()
        self.inspected = 0

    @property
    def at_work(self) -> bool:
        """Whether a run was at work at the last look: what it says then changes without a file of ours."""
        return any(not entry.settled for entry in self._entries.values())

    def changes(self, mark: str = "", alerts: Mapping[str, int] | None = None) -> dict[str, Any]:
        """{"mark", "rows": rows changed since `mark`, "names": all names if some came or went, else None}.

        An unknown mark, such as another server's, gets everything. `alerts`: how many a run has, shown in its row.
        """
        with self._lock:
            self._look(alerts or {})
            epoch, _, version = mark.partition(".")
            since = int(version) if epoch == self._epoch and version.isdecimal() and len(version) < 20 else -1
            rows = [entry.row for entry in self._entries.values() if entry.version > since]
            names = list(self._entries) if self._names_version > since else None
            return {"mark": f"{self._epoch}.{self._version}", "rows": rows, "names": names}

    def tokenizers(self, names: Sequence[str]) -> dict[str, str]:
        """By run, as their configurations say it; those for which that is not known are left out."""
        with self._lock:
            rows = {name: self._entries[name].row["tokenizer"] for name in names if name in self._entries}
        return {name: spec for name, spec in rows.items() if spec}

    def _look(self, alerts: Mapping[str, int]) -> None:
        now = time.monotonic()
        if 0 <= now - self._looked < MAX_AGE:
            return
        runs = str(self._runs)
        found = {name: stamp for name in self._names() if (stamp := _stamp(f"{runs}/{name}", self._watched))}
        names_changed = found.keys() != self._entries.keys()
        self._colours = colours_of(self._runs).of(found, read_only=self._read_only)
        version = self._version + 1  # of what this look finds changed
        entries, launched = {}, self._at_work()
        for name, stamp in found.items():
            entries[name] = self._guarded(name, stamp, alerts.get(name, 0), version, name in launched)
        self._entries = entries
        if names_changed:
            self._names_version = version
        if names_changed or any(entry.version == version for entry in entries.values()):
            self._version = version
        self._looked = time.monotonic()

    def _guarded(self, name: str, stamp: Stamp, alerts: int, version: int, launched: bool) -> _Entry:
        """One folder that cannot be understood is a row that says so, and hides no other."""
        try:
            return self._looked_at(name, stamp, alerts, version, launched)
        except Exception as error:
            before = self._entries.get(name)
            if before is None or before.stamp != stamp:
                log.exception("run %s cannot be read", name)
            reason = f"it cannot be read ({type(error).__name__})"
            row = {**UNREADABLE, "name": name, "alerts": alerts, "colour": self._colours.get(name), "reason": reason}
            return _Entry(stamp, True, row, before.version if before and before.row == row else version)

    def _looked_at(self, name: str, stamp: Stamp, alerts: int, version: int, launched: bool) -> _Entry:
        before = self._entries.get(name)
        if before and before.settled and before.stamp == stamp and not launched:
            row, settled = before.row, True
        else:
            self.inspected += 1
            state = starting(state_of(RunDir(self._runs / name), now=self._clock()), launched)
            row, settled = row_of(RunDir(self._runs / name), state), not state.alive
        row = {**row, "alerts": alerts, "colour": self._colours.get(name)}
        return _Entry(stamp, settled, row, before.version if before and before.row == row else version)

    def _names(self) -> list[str]:
        """Folders that may be runs; a link to elsewhere is none."""
        try:
            with os.scandir(self._runs) as entries:
                return sorted(e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False))
        except OSError:
            return []


def starting(state: RunState, launched: bool) -> RunState:
    """The state, or "starting" while a launcher is at work that has no ranks yet: at first, or between two attempts."""
    if launched and state.state in ("queued", "lost"):
        return replace(state, state="starting", reason="the launcher is at work")
    return state


def row_of(run: RunDir, state: RunState) -> dict[str, Any]:
    """What one line of the list says, as JSON."""
    status, row = state.status, last_record(run.metrics_file, TAIL_BYTES)
    last, labels = current(status, row), read_labels(run)
    steps, step = number(status.get("steps")), reached(run, status, row)
    alive = state.state in ACTIVE
    return {
        "name": run.name,
        "state": state.state,
        "reason": state.reason,
        "diverged": not alive and state.state in ("finished", "stopped", "lost") and bool(came_to_nothing(run)),
        "step": step,
        "steps": steps,
        "share": min(1.0, (step or 0) / steps) if steps else 0.0,
        "loss": number(last.get("loss")),
        "tokenizer": tokenizer_of(run)[-MAX_SPEC:],
        "speed": number(last.get("tokens_per_second")) if alive else None,
        "eta": eta_seconds(state) if alive else None,
        "started": number(status.get("started")) or _modified(run.config_file) or _modified(run.path),
        "star": labels.star,
        "tags": list(labels.tags),
        "note": labels.note[:NOTE_IN_LIST],
    }


def eta_seconds(state: RunState) -> float | None:
    """Seconds left by now, in steps of one so that a row does not change without need."""
    eta = number(state.status.get("eta"))
    return None if eta is None else float(round(max(0.0, eta - (state.heartbeat_age or 0.0))))


UNREADABLE: dict[str, Any] = {
    "state": "lost", "step": None, "steps": None, "share": 0.0, "loss": None, "speed": None, "eta": None,
    "started": None, "star": False, "tags": [], "note": "", "diverged": False, "tokenizer": "",
}  # fmt: skip
_ABSENT = (0, 0, 0)


def _watched() -> tuple[str, ...]:
    """Every file that a row is made of, by its place in the run folder."""
    run = RunDir(Path("run"))
    files = (run.status_file, run.config_file, run.exit_file, run.ranks_dir, labels_file(run), run.notes_file)
    return tuple(str(file.relative_to(run.path)) for file in files)


def _stamp(folder: str, watched: Sequence[str]) -> Stamp:
    """Changes with every file that a row is made of; empty for a folder that is not a run."""
    stamp = tuple(_signature(f"{folder}/{file}") for file in watched)
    is_run = stamp[0] != _ABSENT or stamp[1] != _ABSENT or RunDir(Path(folder)).exists()
    return stamp if is_run else ()


def _signature(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return _ABSENT
    return found.st_mtime_ns, found.st_size, found.st_ino


def _modified(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return None
