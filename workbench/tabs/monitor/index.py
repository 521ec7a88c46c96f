"""The list of runs, kept up to date by looking at what changed: an unchanged run costs a few stats and no reading."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.launch.handed import Told, seen
from mygpt2.records import number
from mygpt2.run_dir import ACTIVE, RunDir, RunState, last_record, state_of
from mygpt2.run_dir.divergence import diverged
from mygpt2.run_dir.family import file_of
from mygpt2.run_dir.ghost import ghost_of
from mygpt2.run_dir.lines import TAIL_BYTES
from mygpt2.run_dir.marks import read_marks
from mygpt2.run_dir.moves import size_of
from mygpt2.run_dir.paths import NAME
from mygpt2.run_dir.settings import settings_of
from workbench.colours import colours_of
from workbench.jobs.reading import current, reached, starting
from workbench.tabs.monitor import family
from workbench.tabs.monitor.facts import brief, facts, group_of
from workbench.tabs.monitor.labels import labels_file, read_labels
from workbench.tabs.monitor.mixed import mixed_as_text

log = logging.getLogger(__name__)
Stamp = tuple[tuple[int, int, int], ...]
MAX_SPEC = 200  # characters of a tokenizer's name
NOTE_IN_LIST = 2000  # characters of a note that the search looks at
MAX_AGE = 0.4  # seconds for which several pages share one look
SIZE_SECONDS = 0.08  # of one look that go into measuring folders; what is left over is measured by the next ones
SIZE_AGE = 30.0  # seconds after which a run that is at work is measured again


@dataclass
class _Entry:
    stamp: Stamp
    settled: bool  # what it says can only change together with one of its files: nothing is at work on it
    row: dict[str, Any]
    version: int
    settings: Mapping[str, Any]
    told: Told | None = None


class RunIndex:
    """Rows of all runs of a folder, each with the version at which it last changed.

    A page remembers the mark of what it has and asks for what changed since. `inspected` counts how often the files
    of a run were read, not merely looked at. Usable from any thread; one per server.
    """

    def __init__(
        self, runs: Path, *, clock: Callable[[], float] = time.time, at_work: Callable[[], set[str]] = set,
        read_only: bool = False, elsewhere: Callable[[], Mapping[str, Told]] = dict,
    ) -> None:  # fmt: skip
        self._elsewhere = elsewhere
        self.told: Mapping[str, Told] = {}
        self._read_only = read_only
        self._colours: Mapping[str, int] = {}
        self._runs, self._clock, self._at_work = runs, clock, at_work
        self._entries: dict[str, _Entry] = {}
        self._epoch = secrets.token_hex(4)
        self._version = self._names_version = 0
        self._looked = -1.0
        self._watched = _watched()
        self._settings_version = 0
        self._settings: tuple[int, dict[str, Any]] = (-1, {})
        self._sizes: dict[str, tuple[Stamp, float, int]] = {}  # name -> its stamp and when it was measured, bytes
        self._lock = threading.Lock()
        self.inspected = 0
        self.measuring = 0  # runs whose size waits for the next look

    @property
    def at_work(self) -> bool:
        """Whether a run was at work at the last look, or waits on a cluster: what is said of it changes without a file
        of ours."""
        return any(not entry.settled or waits(entry.told, entry.row["state"]) for entry in self._entries.values())

    def working(self) -> set[str]:
        """The runs that were at work at the last look."""
        return {name for name, entry in self._entries.items() if not entry.settled}

    def changes(self, mark: str = "", alerts: Mapping[str, int] | None = None) -> dict[str, Any]:
        """{"mark", "rows": rows changed since `mark`, "names": all names if some came or went, else None, "shared"}.

        An unknown mark, such as another server's, gets everything. `alerts`: how many a run has, shown in its row.
        `shared`: of a look that another page asked for, a moment ago; what has changed since is not in it.
        """
        with self._lock:
            shared = not self._look(alerts or {})
            epoch, _, version = mark.partition(".")
            since = int(version) if epoch == self._epoch and version.isdecimal() and len(version) < 20 else -1
            rows = [entry.row for entry in self._entries.values() if entry.version > since]
            names = list(self._entries) if self._names_version > since else None
            return {"mark": f"{self._epoch}.{self._version}", "rows": rows, "names": names, "shared": shared}

    def settings(self) -> tuple[str, dict[str, Any]]:
        """(digest, {"names", "same": settings that all runs share, "differ": key -> a value for each name}).

        Of the last look. A run whose settings cannot be read has null everywhere.
        """
        with self._lock:
            if self._settings[0] != self._settings_version:
                known = {name: entry.settings for name, entry in self._entries.items()}
                self._settings = (self._settings_version, spread(known))
            return f"{self._epoch}.{self._settings_version}", self._settings[1]

    def look_again(self) -> None:
        """What was just changed is seen by the next who asks."""
        self._looked = -1.0

    def _look(self, alerts: Mapping[str, int]) -> bool:
        """Looks, unless somebody just did; whether it has looked."""
        now = time.monotonic()
        if 0 <= now - self._looked < MAX_AGE:
            return False
        runs = str(self._runs)
        found = {name: stamp for name in self._names() if (stamp := _stamp(f"{runs}/{name}", self._watched))}
        names_changed = found.keys() != self._entries.keys()
        self._colours = colours_of(self._runs).of(found, read_only=self._read_only)
        version = self._version + 1  # of what this look finds changed
        entries, launched, self.told = {}, self._at_work(), self._elsewhere()
        for name, stamp in found.items():
            entries[name] = self._guarded(name, stamp, alerts.get(name, 0), version, name in launched)
        before, self._entries = self._entries, entries
        if names_changed:
            self._names_version = version
        told = {name: entry.settings for name, entry in before.items()}
        if names_changed or any(told.get(name) is not entry.settings for name, entry in entries.items()):
            self._settings_version = version
        self._measure(entries, version)
        if names_changed or any(entry.version == version for entry in entries.values()):
            self._version = version
        self._looked = time.monotonic()
        return True

    def _measure(self, entries: Mapping[str, _Entry], version: int) -> None:
        """Sizes of folders, as many as there is time for; those never measured first."""
        self._sizes = {name: size for name, size in self._sizes.items() if name in entries}
        now, known = time.monotonic(), self._sizes
        due = [name for name, entry in entries.items() if name not in known or (
            known[name][0] != entry.stamp and (entry.settled or now - known[name][1] > SIZE_AGE))]  # fmt: skip
        self.measuring = len(due)
        for name in sorted(due, key=lambda name: name in known):
            if time.monotonic() - now > SIZE_SECONDS:
                break
            entry = entries[name]
            size = size_of(self._runs / name)
            known[name] = (entry.stamp, now, size)
            self.measuring -= 1
            if entry.row.get("bytes") != size:
                entry.row, entry.version = {**entry.row, "bytes": size}, version

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
            row["bytes"] = self._sizes[name][2] if name in self._sizes else None
            return _Entry(stamp, True, row, before.version if before and before.row == row else version, {})

    def _looked_at(self, name: str, stamp: Stamp, alerts: int, version: int, launched: bool) -> _Entry:
        before = self._entries.get(name)
        told = self.told.get(name)
        if before and before.settled and before.stamp == stamp and before.told == told and not launched:
            row, settled, settings = before.row, True, before.settings
        else:
            self.inspected += 1
            state = seen(starting(state_of(RunDir(self._runs / name), now=self._clock()), launched), told)
            settings = settings_of(RunDir(self._runs / name))
            row, settled = row_of(RunDir(self._runs / name), state), not state.alive
        row = {**row, "alerts": alerts, "colour": self._colours.get(name)}
        row["bytes"] = self._sizes[name][2] if name in self._sizes else None
        return _Entry(stamp, settled, row, before.version if before and before.row == row else version, settings, told)

    def _names(self) -> list[str]:
        """Folders that may be runs; a link to elsewhere is none."""
        try:
            with os.scandir(self._runs) as entries:
                return sorted(e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False))
        except OSError:
            return []


def waits(told: Told | None, state: str) -> bool:
    """Whether a run that was handed to a cluster may begin there, as far as is known."""
    return told is not None and not told.handed.ended and state in ("queued", "starting")


def row_of(run: RunDir, state: RunState) -> dict[str, Any]:
    """What one line of the list and of the table says, as JSON."""
    status, row = state.status, last_record(run.metrics_file, TAIL_BYTES)
    last, labels = current(status, row), read_labels(run)
    steps, step = number(status.get("steps")), reached(run, status, row)
    alive, marks, settings = state.state in ACTIVE, read_marks(run), settings_of(run)
    ghost = ghost_of(run)
    return {
        **facts(run, state, last, settings),
        "name": run.name,
        "state": state.state,
        "reason": state.reason,
        "diverged": bool(diverged(run, state)),
        "step": step,
        "steps": steps,
        "share": min(1.0, (step or 0) / steps) if steps else 0.0,
        "loss": brief(number(last.get("loss"))),
        "tokenizer": str(settings.get("data.tokenizer") or (ghost.tokenizer if ghost else ""))[-MAX_SPEC:],
        "speed": brief(number(last.get("tokens_per_second"))) if alive else None,
        "eta": eta_seconds(state) if alive else None,
        "started": number(status.get("started")) or _modified(run.config_file) or _modified(run.path),
        "star": labels.star,
        "tags": list(labels.tags),
        "note": labels.note[:NOTE_IN_LIST],
        "archived": marks.get("archived") is True,
        "group": group_of(run.name, marks),
        **family.row(run),
        "ghost": ghost.told if ghost else "",
    }


def spread(known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of all runs by what they share, see `RunIndex.settings`; lists and long texts as short ones."""
    known = {name: mixed_as_text(settings) for name, settings in known.items()}
    keys = list(dict.fromkeys(key for settings in known.values() for key in settings))
    same: dict[str, Any] = {}
    differ: dict[str, list[Any]] = {}
    for key in keys:
        values = [_told(settings.get(key)) for settings in known.values()]
        read = [value for value, settings in zip(values, known.values(), strict=True) if settings]
        if all(value == read[0] and type(value) is type(read[0]) for value in read):
            same[key] = read[0]
        else:
            differ[key] = values
    return {"names": list(known), "same": same, "differ": differ}


def _told(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_SPEC else f"{text[: MAX_SPEC - 1]}…"


def eta_seconds(state: RunState) -> float | None:
    """Seconds left by now, in steps of one so that a row does not change without need; none before the first step."""
    eta = None if state.state == "starting" else number(state.status.get("eta"))
    return None if eta is None else float(round(max(0.0, eta - (state.heartbeat_age or 0.0))))


UNREADABLE: dict[str, Any] = {
    "state": "lost", "step": None, "steps": None, "share": 0.0, "loss": None, "speed": None, "eta": None,
    "started": None, "star": False, "tags": [], "note": "", "diverged": False, "tokenizer": "", "archived": False,
    "group": "", "parent": "", "branch": "", "ghost": "", "measured": "", "tokens": None, "val": None, "bpb": None,
}  # fmt: skip
_ABSENT = (0, 0, 0)


def _watched() -> tuple[str, ...]:
    """Every file that a row is made of, by its place in the run folder."""
    run = RunDir(Path("run"))
    files = (run.status_file, run.config_file, run.exit_file, run.ranks_dir, labels_file(run), run.notes_file,
             file_of(run))  # fmt: skip
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
