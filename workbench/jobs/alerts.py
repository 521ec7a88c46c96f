"""What went wrong, written down once, whether or not anybody is looking."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mygpt2.files import read_json
from mygpt2.records import number, whole
from mygpt2.run_dir import Follower, LineWriter, RunDir, parse_lines


@dataclass(frozen=True)
class Alert:
    """kind: nonfinite, divergence, spike, gradient, stall, disk, crash, failed, outage, save or left_out.

    run: empty for the whole folder. key: two alerts with one key are the same alert. log_tail: the last lines of the
    log of whoever crashed. folder: which of the run's folders it is of, where several had its name, see `folder_of`.
    number: its place in the log, from 1; later ones have higher numbers, whatever the time
    they tell of; 0: it is in none.
    """

    key: str
    level: str
    kind: str
    run: str
    step: int | None
    time: float
    text: str
    log_tail: tuple[str, ...] = ()
    folder: str = ""
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a line of the log, where the place is the number."""
        return {"schema": 1, **{key: value for key, value in asdict(self).items() if key != "number"}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Alert | None:
        """None for anything that is not an alert."""
        try:
            tail, time = record.get("log_tail", []), number(record["time"])
            if time is None:
                return None
            return cls(
                str(record["key"]), str(record["level"]), str(record["kind"]), str(record["run"]),
                whole(record.get("step")), time, str(record["text"]),
                tuple(str(line) for line in tail) if isinstance(tail, list) else (), str(record.get("folder", "")),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            return None


class AlertLog:
    """alerts.jsonl: any number of readers, and one writer that never writes the same alert twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._follower = Follower(path)
        self._alerts: dict[tuple[str, str], Alert] = {}  # by folder and key
        self._writer: LineWriter | None = None
        self._lock = threading.Lock()

    def all(self, run: str | None = None) -> list[Alert]:
        """Newest first, of one run or of all; reads only what is new."""
        with self._lock:
            self._read()
            found = [alert for alert in self._alerts.values() if run is None or alert.run == run]
        return sorted(found, key=lambda alert: alert.time, reverse=True)

    def add(self, alert: Alert) -> bool:
        """Writes an alert unless it is there already, from this server or an earlier one."""
        with self._lock:
            self._read()
            if self._known(alert):
                return False
            if self._writer is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._writer = LineWriter(self._path)
            self._writer.append(alert.to_json())
            self._read()  # in the order of the file, where another server may have written before it
            if not self._known(alert):  # there is no room on the disk: it waits in memory
                self._number(alert)
            return True

    def has(self, key: str, folder: str = "") -> bool:
        """Whether this alert was raised."""
        with self._lock:
            self._read()
            return (folder, key) in self._alerts or ("", key) in self._alerts

    def close(self) -> None:
        with self._lock:
            if self._writer:
                self._writer.close()
                self._writer = None

    def _read(self) -> None:
        lines = self._follower.read()
        for record in parse_lines(lines)[0]:
            alert = Alert.from_json(record)
            if alert and not self._known(alert):
                self._number(alert)

    def _known(self, alert: Alert) -> bool:
        """An alert that does not say of which folder it is, as of earlier versions, counts for each of that name."""
        return (alert.folder, alert.key) in self._alerts or ("", alert.key) in self._alerts

    def _number(self, alert: Alert) -> None:
        self._alerts[alert.folder, alert.key] = replace(alert, number=len(self._alerts) + 1)


def new_alert(
    level: str, kind: str, run: str, text: str, *, at: str = "", step: int | None = None,
    when: float | None = None, log_tail: Sequence[str] = (), folder: str = "",
) -> Alert:  # fmt: skip
    """An alert whose key is made of run, kind and `at`, which tells this occasion from others."""
    moment = time.time() if when is None else when
    return Alert(f"{run}/{kind}/{at}", level, kind, run, step, moment, text, tuple(log_tail), folder)


def folder_of(run: RunDir) -> str:
    """What tells a run's folder from another of its name that was removed: when its first attempt was begun."""
    file = run.attempt_dir(1) / run.command_file.name
    try:
        found = os.stat(file)
    except OSError:
        return ""
    return _begun(file, run.path, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=1024)
def _begun(file: Path, run: Path, changed: int, inode: int) -> str:
    time = number((read_json(file, run) or {}).get("time"))
    return "" if time is None else f"{time:.3f}"
