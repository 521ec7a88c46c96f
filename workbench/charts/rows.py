"""Lines of metrics.jsonl as arrays, and arrays as short text for the browser."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.run_dir.lines import parse_lines

MANY = 1 << 18  # bytes; below this the plain parser is quicker than setting up the other
LARGEST = 2**53  # beyond it a step is no number of a browser


@dataclass(frozen=True)
class Rows:
    """Rows in the order of the file. `step` and `attempt` (n,) int64; each of `values` (n,) float64, NaN for null."""

    step: NDArray[np.int64]
    attempt: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.step)


def parse(data: bytes, columns: Sequence[str]) -> Rows:
    """The rows among complete lines; lines that are no metrics are passed over.

    Arrow's parser is five times as quick and refuses a file with a single odd line; the plain one reads what it can.
    """
    rows = _parse_many(data, columns) if len(data) > MANY else None
    return rows if rows is not None else _parse_each(data, columns)


def _parse_many(data: bytes, columns: Sequence[str]) -> Rows | None:
    import pyarrow as pa
    from pyarrow import json

    schema = pa.schema([("step", pa.int64()), ("attempt", pa.int64()), *((name, pa.float64()) for name in columns)])
    try:
        table = json.read_json(
            pa.BufferReader(data),
            read_options=json.ReadOptions(block_size=4 << 20),
            parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException:
        return None
    if table["step"].null_count or table["attempt"].null_count:
        return None
    values = {name: np.array(table[name].to_numpy(), dtype=np.float64) for name in columns}
    return _sound(Rows(table["step"].to_numpy(), table["attempt"].to_numpy(), values))


def _parse_each(data: bytes, columns: Sequence[str]) -> Rows:
    records, _ = parse_lines(data.split(b"\n")[:-1])
    rows = [row for row in records if _is_count(row.get("step")) and _is_count(row.get("attempt"))]
    step, attempt = (np.array([row[key] for row in rows], dtype=np.int64) for key in ("step", "attempt"))
    values = {name: np.array([_float(row.get(name)) for row in rows], dtype=np.float64) for name in columns}
    return Rows(step, attempt, values)


def _sound(rows: Rows) -> Rows:
    keep = (rows.step >= 0) & (rows.step < LARGEST) & (rows.attempt >= 0) & (rows.attempt < LARGEST)
    if keep.all():
        return rows
    return Rows(rows.step[keep], rows.attempt[keep], {name: column[keep] for name, column in rows.values.items()})


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _float(value: Any) -> float:
    try:
        return float(value) if type(value) in (int, float) else np.nan
    except OverflowError:
        return np.nan


def changes(values: NDArray[np.int64], before: int | None) -> list[list[int]]:
    """[[row, value], ...] where a value differs from the one before it; `before` stands in front of the first."""
    if not len(values):
        return []
    rows = (np.flatnonzero(np.diff(values)) + 1).tolist()
    rows = ([] if values[0] == before else [0]) + rows
    return [[row, int(values[row])] for row in rows]


def resets(step: NDArray[np.int64], before: int | None) -> list[list[int]]:
    """[[row, step], ...]: from this row on, what was known of this step and later ones is overwritten.

    A trainer appends, so a step that does not rise is a later attempt that began further back. The rule is the run
    folder's (`mygpt2.run_dir.metrics.winners`) for rows that come one after another.
    """
    if not len(step):
        return []
    rows = (np.flatnonzero(np.diff(step) <= 0) + 1).tolist()
    rows = ([0] if before is not None and step[0] <= before else []) + rows
    return [[row, int(step[row])] for row in rows]


def packed(values: NDArray[np.float64]) -> str | None:
    """Little-endian float32 as base64; None where there is nothing but nulls."""
    if np.isnan(values).all():
        return None
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype("<f4").tobytes()).decode()


def progression(values: NDArray[Any]) -> list[list[float]] | str:
    """Numbers that mostly rise evenly as [[first, count, difference], ...]; otherwise float64 as base64."""
    n, at = len(values), 0
    pieces: list[list[float]] = []
    numbers = np.nan_to_num(values.astype(np.float64), nan=-1.0)
    steps = np.diff(numbers)
    turns = np.flatnonzero(np.diff(steps)) + 1
    while at < n:
        if len(pieces) > 8 + n // 16:
            return base64.b64encode(numbers.astype("<f8").tobytes()).decode()
        turn = np.searchsorted(turns, at, side="right")
        last = int(turns[turn]) if turn < len(turns) else n - 1
        rise = float(steps[at]) if at < n - 1 else 0.0
        pieces.append([float(numbers[at]), last - at + 1, rise])
        at = last + 1
    return pieces
