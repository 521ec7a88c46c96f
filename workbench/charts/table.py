"""Every point of runs as CSV, piece by piece: a run of a million steps is on its way at once and never held as text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.errors import UserError
from mygpt2.records import MOST_EXACT
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.lines import portions
from mygpt2.run_dir.metrics import VALUES, Rows, winners
from workbench.charts.marks import marks
from workbench.columns import whole_run

WHOLE = ("tokens", "memory_bytes")  # columns of whole numbers
OURS = ("loss_bits_per_byte", "validation_loss", "validation_bits_per_byte", "overwritten")  # at the end of each row
NOT_METRICS = ("schema", "run", *OURS)
PLAIN = re.compile(r"[\w./-]+")  # a column's name that is one cell to any reader
PIECE_ROWS = 50_000


def table_csv(runs: Sequence[RunDir]) -> Iterator[bytes]:
    """The header, then the rows of each run at full precision: ascending in step, then those that a later attempt has
    `overwritten`. Runs that logged different columns have empty cells.

    `validation_loss` is what was evaluated after that step of that attempt, if anything was; a loss in bits per byte
    goes by the bytes per token of the run's last validation, as in the chart. UserError for files that cannot be read.
    """
    if len(runs) == 1:
        rows = _read(runs[0])
        names = _names(rows)
        yield _header(names)
        yield from _lines(runs[0], rows, names)
        return
    names = list(dict.fromkeys(name for run in runs for name in _names(_read(run))))
    yield _header(names)
    for run in runs:
        yield from _lines(run, _read(run), names)


def points_csv(run: RunDir) -> str:
    """All of `table_csv` of one run as text."""
    return b"".join(table_csv([run])).decode()


def _read(run: RunDir) -> Rows:
    try:
        return whole_run(run)
    except OSError as error:
        raise UserError(f"{run.name} cannot be read: {error.strerror or error}") from None


def _names(rows: Rows) -> list[str]:
    return [
        name for name in dict.fromkeys((*VALUES, *rows.values)) if name not in NOT_METRICS and PLAIN.fullmatch(name)
    ]


def _header(names: Sequence[str]) -> bytes:
    return (",".join(("run", "step", "attempt", *names, *OURS)) + "\n").encode()


def _lines(run: RunDir, rows: Rows, names: Sequence[str]) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import csv

    evaluated = _evaluated(run)
    bits_per_nat = next((bits / loss for loss, bits in reversed(evaluated.values()) if bits and loss), None)
    wins = _wins(rows)
    order = np.concatenate([np.flatnonzero(wins)[np.argsort(rows.step[wins], kind="stable")], np.flatnonzero(~wins)])
    validation = _at_their_rows(rows, evaluated)
    whole = {name: _is_whole(rows.values[name]) for name in WHOLE if name in rows.values}
    for first in range(0, len(rows), PIECE_ROWS):
        at = order[first : first + PIECE_ROWS]
        columns: dict[str, Any] = {
            "run": pa.repeat(run.name, len(at)),
            "step": rows.step[at],
            "attempt": rows.attempt[at],
        }
        for name in names:
            values = rows.values.get(name)
            column = (
                pa.nulls(len(at)) if values is None else pa.array(values[at], from_pandas=True)
            )  # NaN: an empty cell
            columns[name] = column.cast(pa.int64(), safe=False) if whole.get(name) else column
        losses = rows.values.get("loss")
        none = np.full(len(at), np.nan)
        bits = none if losses is None or bits_per_nat is None else losses[at] * bits_per_nat
        found = (bits, validation[0][at], validation[1][at])
        columns |= {name: pa.array(values, from_pandas=True) for name, values in zip(OURS, found, strict=False)}
        columns["overwritten"] = (~wins[at]).astype(np.int8)
        out = io.BytesIO()
        csv.write_csv(pa.table(columns), out, csv.WriteOptions(include_header=False, quoting_style="none"))
        yield out.getvalue()


def _wins(rows: Rows) -> NDArray[np.bool_]:
    """As `winners`; at once for a run that was never resumed."""
    if len(rows) and (np.diff(rows.step) > 0).all() and (np.diff(rows.attempt) >= 0).all():
        return np.ones(len(rows), dtype=bool)
    return winners(rows.attempt, rows.step)


def _is_whole(values: NDArray[np.float64]) -> bool:
    return bool(np.all(np.isnan(values) | (np.abs(values) < MOST_EXACT)))


def _at_their_rows(rows: Rows, evaluated: Mapping[tuple[Any, Any], tuple[float, float | None]]) -> tuple[Any, Any]:
    """What was evaluated as columns: losses in nats per token, and in bits per byte; NaN elsewhere."""
    nats, bits = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for (attempt, step), (loss, per_byte) in evaluated.items():
        at = np.flatnonzero(rows.step == step)
        at = at[rows.attempt[at] == attempt]
        nats[at], bits[at] = loss, np.nan if per_byte is None else per_byte
    return nats, bits


def _evaluated(run: RunDir) -> dict[tuple[Any, Any], tuple[float, float | None]]:
    """The last validation loss by (attempt, step), in nats per token and bits per byte."""
    try:
        found = [mark for lines in portions(run.events_file) for mark in marks(lines) if mark["kind"] == "eval"]
    except OSError as error:
        raise UserError(f"{run.name} cannot be read: {error.strerror or error}") from None
    return {(mark["attempt"], mark["step"]): (float(mark["value"]), mark.get("bits")) for mark in found}
