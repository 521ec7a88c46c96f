"""metrics.jsonl and events.jsonl as a reader wants them: one row per step, the latest attempt's.

A trainer never truncates these files. After a resume from step 1000 the steps 1001, 1002, ... may appear twice: the
later attempt wins from its first step on, and what it overwrote stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.records import MOST_EXACT, is_number, whole
from mygpt2.run_dir import by_source
from mygpt2.run_dir.by_source import BY_SOURCE, arrow_type, source_of
from mygpt2.run_dir.lines import parse_lines, portions, read_records
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.writer import METRIC_KEYS

Columns = dict[str, NDArray[Any]]
POLL_BYTES = 16 << 20  # text turned into columns at once: its rows as objects take ten times as much
MANY = 1000  # lines; of fewer the plain parser is quicker than setting up the other
VALUES = (*(key for key in METRIC_KEYS if key != "step"), "time")  # columns that a trainer writes
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


@dataclass(frozen=True)
class Rows:
    """Rows in the order of the file. `step` and `attempt` (n,) int64; each of `values` (n,) float64, NaN for null.

    `garbage` counts lines that were no rows.
    """

    step: NDArray[np.int64]
    attempt: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    garbage: int = 0

    def __len__(self) -> int:
        return len(self.step)


def read_metrics(run: RunDir) -> Metrics:
    """All metrics of a run; empty columns where there are none that can be read. 70,000 steps take 0.1 s."""
    try:
        rows = read_rows(run)
    except OSError:
        rows = parse_rows([])
    wins = winners(rows.attempt, rows.step)
    kept = np.flatnonzero(wins)
    kept = kept[np.argsort(rows.step[kept], kind="stable")]
    columns: Columns = {"attempt": rows.attempt, "step": rows.step, **rows.values}
    return Metrics(
        {key: column[kept] for key, column in columns.items()},
        {key: column[~wins] for key, column in columns.items()},
        rows.garbage,
    )


def read_rows(run: RunDir) -> Rows:
    """All rows in file order, with every column that anybody wrote; a column that some rows lack is NaN there.

    OSError for a file that cannot be read.
    """
    parts = [parse_rows(lines) for lines in portions(run.metrics_file, POLL_BYTES)]
    join = np.concatenate
    names = list(dict.fromkeys(name for part in parts for name in part.values))[:MOST_COLUMNS]
    return Rows(
        join([part.step for part in parts]),
        join([part.attempt for part in parts]),
        {name: join([part.values.get(name, np.full(len(part), np.nan)) for part in parts]) for name in names},
        sum(part.garbage for part in parts),
    )


def parse_rows(lines: Sequence[bytes], columns: Sequence[str] | None = None) -> Rows:
    """The rows among complete lines; lines that are not metrics are passed over. Of all columns, or of some.

    Arrow's parser is five times as quick and refuses a file with a single odd line; the plain one reads what it can.
    """
    rows = _parse_many(lines, columns) if len(lines) > MANY else None
    return rows if rows is not None else _parse_each(lines, columns)


def parse_text(data: bytes) -> Rows:
    """The rows of complete lines as they stand in the file, each with its line end; of all columns."""
    rows = _parse_block(data, data.count(b"\n"), None)
    return rows if rows is not None else _parse_each(data.split(b"\n")[:-1], None)


def _parse_many(lines: Sequence[bytes], columns: Sequence[str] | None) -> Rows | None:
    return _parse_block(b"\n".join(lines) + b"\n", len(lines), columns)


def _parse_block(data: bytes, lines: int, columns: Sequence[str] | None) -> Rows | None:
    import pyarrow as pa
    from pyarrow import json

    known = VALUES if columns is None else columns
    plain = [(name, pa.float64()) for name in known if source_of(name) is None]
    nested = [] if len(plain) == len(known) else [(BY_SOURCE, arrow_type(known))]
    schema = pa.schema([("step", pa.int64()), ("attempt", pa.int64()), *plain, *nested])
    try:
        table = json.read_json(
            pa.BufferReader(data),
            read_options=json.ReadOptions(block_size=4 << 20),
            parse_options=json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="infer" if columns is None else "ignore"
            ),
        )
        if len(table) != lines or table["step"].null_count or table["attempt"].null_count:
            return None
        names = [name for name in table.column_names if name not in ("step", "attempt", BY_SOURCE)][:MOST_COLUMNS]
        values = {name: _of_arrow(table[name], pa) for name in names}
        if BY_SOURCE in table.column_names:
            of_sources = by_source.of_arrow(table[BY_SOURCE])
            if of_sources is None:
                return None
            wanted = list(of_sources)[: MOST_COLUMNS - len(values)] if columns is None else columns
            values |= {name: of_sources[name] for name in wanted if name in of_sources}
    except pa.ArrowException:
        return None
    step, attempt = table["step"].to_numpy(), table["attempt"].to_numpy()
    keep = (step >= 0) & (step < MOST_EXACT) & (attempt >= 0) & (attempt < MOST_EXACT)
    if not keep.all():
        values = {name: column[keep] for name, column in values.items()}
    return Rows(step[keep], attempt[keep], values, lines - int(keep.sum()))


def _of_arrow(column: Any, pa: Any) -> NDArray[np.float64]:
    """A column's numbers; NaN for one that holds something else."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.full(len(column), np.nan)
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _parse_each(lines: Sequence[bytes], columns: Sequence[str] | None) -> Rows:
    records = [row for row in parse_lines(list(lines))[0] if is_row(row)]
    if columns is None:
        found = dict.fromkeys(VALUES) | {key: None for row in records for key in row} | by_source.names_in(records)
        columns = [key for key in found if key not in ("step", "attempt", BY_SOURCE)][:MOST_COLUMNS]
    step, attempt = (np.array([row[key] for row in records], dtype=np.int64) for key in ("step", "attempt"))
    nested = [name for name in columns if source_of(name) is not None]
    values = {name: _floats([row.get(name) for row in records]) for name in columns if name not in nested}
    values |= by_source.columns_of(nested, records)
    return Rows(step, attempt, values, len(lines) - len(records))


def is_row(record: dict[str, Any]) -> bool:
    """Whether a record of metrics.jsonl says which step of which attempt it is of."""
    return whole(record.get("step")) is not None and whole(record.get("attempt")) is not None


def _floats(values: list[Any]) -> NDArray[np.float64]:
    try:
        if not any(isinstance(value, str) for value in values):
            column = np.array(values, dtype=np.float64)
            if column.ndim == 1:
                return column
    except (TypeError, ValueError, OverflowError):
        pass  # somebody wrote a list, an object or a number without end: those cells are NaN, the column stays
    return np.array([float(value) if is_number(value) else np.nan for value in values], dtype=np.float64)


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


def resets(step: NDArray[np.int64], before: int | None) -> list[list[int]]:
    """[[row, step], ...]: from this row on, what was known of this step and later ones is overwritten.

    A trainer appends, so a step that does not rise is a later attempt that began further back. The rule is that
    of `winners`, for rows that come one after another.
    """
    if not len(step):
        return []
    rows = (np.flatnonzero(np.diff(step) <= 0) + 1).tolist()
    rows = ([0] if before is not None and step[0] <= before else []) + rows
    return [[row, int(step[row])] for row in rows]


def read_events(run: RunDir, kinds: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Events in the order they happened, of some kinds or all."""
    wanted = None if kinds is None else set(kinds)
    return [record for record in read_records(run.events_file) if wanted is None or record.get("kind") in wanted]
