"""metrics.jsonl and events.jsonl as a reader wants them: one row per step, the latest attempt's.

A trainer never truncates these files. After a resume from step 1000 the steps 1001, 1002, ... may appear twice: the
later attempt wins from its first step on, and what it overwrote stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.records import is_number, is_whole
from mygpt2.run_dir.lines import Follower, parse_lines, read_records
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.writer import METRIC_KEYS

Columns = dict[str, NDArray[Any]]
POLL_BYTES = 16 << 20  # text turned into columns at once: its rows as objects take ten times as much
MOST_COLUMNS = 256  # a trainer writes 14; more are what a damaged or a hostile file holds


@dataclass(frozen=True)
class Metrics:
    """Columns of equal length, ascending in step. `step` and `attempt` are int64, all others float64 with NaN for null.

    `overwritten` holds the same columns for rows a later attempt replaced, in file order. `garbage` counts lines that
    were no metrics.
    """

    columns: Columns
    overwritten: Columns
    garbage: int

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, key: str) -> NDArray[Any]:
        """A column; all NaN for a quantity nobody wrote."""
        found = self.columns.get(key)
        return np.full(len(self), np.nan) if found is None else found


class MetricsReader:
    """Follows a run's metrics: every `poll` reads only what is new."""

    def __init__(self, run: RunDir) -> None:
        self._follower = Follower(run.metrics_file)
        self._reset()

    def _reset(self) -> None:
        self._parts: list[Columns] = []
        self._garbage = 0
        self._restarts = self._follower.restarts
        self._latest: Metrics | None = None

    def poll(self) -> Metrics:
        """All metrics so far. The same object as before if nothing is new."""
        lines = self._follower.read(POLL_BYTES)
        if self._follower.restarts != self._restarts:
            self._reset()
        if not lines and self._latest is not None:
            return self._latest
        while True:
            records, garbage = parse_lines(lines)
            rows = [record for record in records if _is_row(record)]
            self._garbage += garbage + len(records) - len(rows)
            self._parts.append(_columns(rows))
            if not (lines := self._follower.read(POLL_BYTES)):
                break
        self._parts = [_join(self._parts)]
        self._latest = _resolve(self._parts[0], self._garbage)
        return self._latest


def read_metrics(run: RunDir) -> Metrics:
    """All metrics of a run; empty columns for a run without any. 70,000 steps take well under a second."""
    return MetricsReader(run).poll()


def _is_row(record: dict[str, Any]) -> bool:
    return is_whole(record.get("step")) and is_whole(record.get("attempt"))


def _columns(rows: list[dict[str, Any]]) -> Columns:
    keys = dict.fromkeys(("attempt", *METRIC_KEYS, "time")) | {key: None for row in rows for key in row}
    columns: Columns = {}
    for key in list(keys)[:MOST_COLUMNS]:
        values = [row.get(key) for row in rows]
        columns[key] = np.array(values, dtype=np.int64) if key in ("step", "attempt") else _floats(values)
    return columns


def _floats(values: list[Any]) -> NDArray[np.float64]:
    try:
        if not any(isinstance(value, str) for value in values):
            column = np.array(values, dtype=np.float64)
            if column.ndim == 1:
                return column
    except (TypeError, ValueError, OverflowError):
        pass  # somebody wrote a list, an object or a number without end: those cells are NaN, the column stays
    return np.array([float(value) if is_number(value) else np.nan for value in values], dtype=np.float64)


def _join(parts: list[Columns]) -> Columns:
    """Columns of several parts after one another; a column one of them lacks is NaN there."""
    if len(parts) == 1:
        return parts[0]
    keys = list(dict.fromkeys(key for part in parts for key in part))[:MOST_COLUMNS]
    lengths = [len(part["step"]) for part in parts]
    return {
        key: np.concatenate([part.get(key, np.full(n, np.nan)) for part, n in zip(parts, lengths, strict=True)])
        for key in keys
    }


def _resolve(columns: Columns, garbage: int) -> Metrics:
    wins = winners(columns["attempt"], columns["step"])
    kept = np.flatnonzero(wins)
    kept = kept[np.argsort(columns["step"][kept], kind="stable")]
    return Metrics(
        {key: column[kept] for key, column in columns.items()},
        {key: column[~wins] for key, column in columns.items()},
        garbage,
    )


def winners(attempt: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows count, for rows in file order: no later attempt began at or before their step.

    Should a step appear twice within one attempt, its last row counts.
    """
    wins = np.ones(len(step), dtype=bool)
    cutoff = np.iinfo(np.int64).max
    order = np.argsort(attempt, kind="stable")
    ends = np.flatnonzero(np.diff(attempt[order])) + 1
    for of_attempt in reversed(np.split(order, ends) if len(order) else []):
        wins[of_attempt] = step[of_attempt] < cutoff
        last_first = of_attempt[::-1]
        _, first = np.unique(step[last_first], return_index=True)
        doubled = np.ones(len(of_attempt), dtype=bool)
        doubled[first] = False
        wins[last_first[doubled]] = False
        cutoff = min(cutoff, int(step[of_attempt].min()))
    return wins


def read_events(run: RunDir, kinds: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Events in the order they happened, of some kinds or all."""
    wanted = None if kinds is None else set(kinds)
    return [record for record in read_records(run.events_file) if wanted is None or record.get("kind") in wanted]
