"""What went wrong, written down once, whether or not anybody is looking."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mygpt2.run_dir import Follower, LineWriter, parse_lines

LEVELS = ("info", "warning", "error")


@dataclass(frozen=True)
class Alert:
    """kind: nonfinite, spike, gradient, stall, disk, crash, failed, outage or save; run: empty for the whole folder.

    key: two alerts with one key are the same alert. log_tail: the last lines of the log of whoever crashed.
    """

    key: str
    level: str
    kind: str
    run: str
    step: int | None
    time: float
    text: str
    log_tail: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Alert | None:
        """None for anything that is not an alert."""
        try:
            step, tail = record.get("step"), record.get("log_tail", [])
            return cls(
                str(record["key"]), str(record["level"]), str(record["kind"]), str(record["run"]),
                step if isinstance(step, int) else None, float(record["time"]), str(record["text"]),
                tuple(str(line) for line in tail) if isinstance(tail, list) else (),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            return None


class AlertLog:
    """alerts.jsonl: any number of readers, and one writer that never writes the same alert twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._follower = Follower(path)
        self._alerts: dict[str, Alert] = {}
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
            if alert.key in self._alerts:
                return False
            if self._writer is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._writer = LineWriter(self._path)
            self._writer.append({"schema": 1, **asdict(alert)})
            self._alerts[alert.key] = alert
            return True

    def has(self, key: str) -> bool:
        """Whether this alert was raised."""
        with self._lock:
            self._read()
            return key in self._alerts

    def close(self) -> None:
        with self._lock:
            if self._writer:
                self._writer.close()
                self._writer = None

    def _read(self) -> None:
        lines = self._follower.read()
        for record in parse_lines(lines)[0]:
            alert = Alert.from_json(record)
            if alert:
                self._alerts.setdefault(alert.key, alert)


def new_alert(
    level: str, kind: str, run: str, text: str, *, at: str = "", step: int | None = None,
    when: float | None = None, log_tail: Sequence[str] = (),
) -> Alert:  # fmt: skip
    """An alert whose key is made of run, kind and `at`, which tells this occasion from others."""
    moment = time.time() if when is None else when
    return Alert(f"{run}/{kind}/{at}", level, kind, run, step, moment, text, tuple(log_tail))
