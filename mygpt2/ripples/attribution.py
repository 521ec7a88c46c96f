"""What of a row's loss its documents' properties explain: dump, score, length, language score, from the trace.

The rows' losses above the trend are regressed on the means over each row's documents. A property's partial R squared
is what it adds to all others together. Rows of a row group are alike for reasons that are in no column, so that errors
are clustered by row group (Liang & Zeger 1986). Only columns of local parquet files are read. Of a mixture the source
of a row is a property by itself, and the others count where they are known: elsewhere as their mean, beside which the
source tells what there is to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import special

from mygpt2.data.sources.mixture import Mixture
from mygpt2.progress import Progress, silent
from mygpt2.ripples.log import Floats, Log
from mygpt2.ripples.runs import Rows, Trace

COLUMNS = {"dump": "dump", "score": "score", "length": "token_count", "language score": "language_score"}
MOST_ROWS = 60_000
MOST_LEVELS = 12  # dumps told apart; the rarer ones together are the base
FEWEST_GROUPS = 10


@dataclass(frozen=True)
class Table:
    """Rows for the regression: loss above the trend (n,), the row group of each, the step, and columns by property."""

    above: Floats
    group: np.ndarray
    step: np.ndarray
    columns: dict[str, Floats]  # by property (n, k)


def attribute(
    trace: Trace, log: Log, trend: Floats, period_steps: float | None, progress: Progress = silent
) -> dict[str, Any] | None:
    """The regression, JSON-ready; None where the data has none of the columns or cannot be read here."""
    table = _table(trace, log, trend, progress)
    if table is None or not table.columns or len(np.unique(table.group)) < FEWEST_GROUPS:
        return None
    names = [name for name, values in table.columns.items() for _ in range(values.shape[1])]
    design = np.column_stack([np.ones(len(table.above)), *table.columns.values()])
    solution, covariance, groups = _clustered(design, table.above, table.group)
    rest = table.above - design @ solution
    whole = float(rest @ rest)
    total = float(np.sum((table.above - table.above.mean()) ** 2))
    found = []
    for name in table.columns:
        own = np.array([False, *(other == name for other in names)])
        without = design[:, ~own]
        reduced = table.above - without @ np.linalg.lstsq(without, table.above, rcond=None)[0]
        share = 1 - whole / max(float(reduced @ reduced), 1e-300)
        beta = solution[own]
        wald = float(beta @ np.linalg.pinv(covariance[np.ix_(own, own)]) @ beta) / own.sum()
        p = float(special.fdtrc(own.sum(), groups - 1, max(wald, 0.0)))
        found.append({"name": name, "partial_r2": max(0.0, share), "p_value": p})
    return {
        "rows": len(table.above), "row_groups": groups, "r2": 1 - whole / total if total > 0 else 0.0,
        "properties": sorted(found, key=lambda item: -item["partial_r2"]),
        "ripple_left": _left(table, rest, period_steps),
    }  # fmt: skip


def _left(table: Table, rest: Floats, period: float | None) -> float | None:
    """The ripple's amplitude after the properties were taken away, as a share of what it was."""
    if period is None:
        return None
    wave = np.exp(-2j * np.pi * table.step / period)
    before = abs(np.mean((table.above - table.above.mean()) * wave))
    return float(abs(np.mean(rest * wave)) / before) if before > 0 else None


def _clustered(x: Floats, y: Floats, group: np.ndarray) -> tuple[Floats, Floats, int]:
    """(coefficients, covariance clustered by group, number of groups) of least squares."""
    inverse = np.linalg.pinv(x.T @ x)
    solution = inverse @ (x.T @ y)
    names, index = np.unique(group, return_inverse=True)
    scores = np.zeros((len(names), x.shape[1]))
    np.add.at(scores, index, x * (y - x @ solution)[:, None])
    count = len(names)
    return solution, inverse @ (scores.T @ scores) @ inverse * count / max(1, count - 1), count


def _table(trace: Trace, log: Log, trend: Floats, progress: Progress) -> Table | None:
    pieces = list(_sampled(trace, log, progress))
    if not pieces:
        return None
    wanted = np.unique(np.concatenate([rows.blocks for rows, _ in pieces]))
    try:
        source = _Columns(trace, wanted, progress)
    except (OSError, ValueError, LookupError, pa.ArrowException):
        return None
    parts = [source.means(rows) for rows, _ in pieces]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}
    if isinstance(trace.manifest, Mixture):
        columns = {_where_known(name, values): values for name, values in columns.items()}
    columns = {name: _varying(values) for name, values in columns.items() if _varying(values).shape[1]}
    step = np.concatenate([rows.step for rows, _ in pieces])
    loss = np.concatenate([rows.loss for rows, _ in pieces])
    above = loss - trend[np.concatenate([index for _, index in pieces])]
    group = np.concatenate([rows.blocks[rows.offsets[:-1]] for rows, _ in pieces])
    return Table(above, group, step, columns)


def _where_known(name: str, values: Floats) -> str:
    """A property's name, with the share of the rows of which it is known."""
    known = float(np.isfinite(values).all(1).mean())
    return name if known == 1 else f"{name}, known of {known:.0%} of the rows"


def _varying(values: Floats) -> Floats:
    """The columns that vary, scaled; NaN becomes the mean."""
    mean = np.nanmean(np.where(np.isfinite(values), values, np.nan), axis=0, keepdims=True) if len(values) else values
    filled = np.where(np.isfinite(values), values, np.nan_to_num(mean)) - np.nan_to_num(mean)
    spread = filled.std(axis=0)
    return filled[:, spread > 1e-9] / spread[spread > 1e-9]


def _sampled(trace: Trace, log: Log, progress: Progress) -> Iterator[tuple[Rows, np.ndarray]]:
    """Rows of evenly spaced steps, some MOST_ROWS in all, with the index of each in the log."""
    every = 1
    for piece in trace.pieces(progress):
        if every == 1:
            per_step = len(piece.step) / max(1, len(np.unique(piece.step)))
            every = max(1, round(per_step * len(log) / MOST_ROWS))
        at = np.minimum(np.searchsorted(log.step, piece.step), len(log) - 1)
        good = np.flatnonzero((log.step[at] == piece.step) & np.isfinite(piece.loss) & (at % every == 0))
        if len(good):
            yield _chosen(piece, good), at[good]


def _chosen(rows: Rows, places: np.ndarray) -> Rows:
    counts = np.diff(rows.offsets)[places]
    offsets = np.r_[0, np.cumsum(counts)]
    entries = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - rows.offsets[places], counts)
    return Rows(
        rows.step[places], rows.lane[places], rows.loss[places], offsets, rows.blocks[entries], rows.documents[entries]
    )


class _Columns:
    """The properties of every document of some blocks. Of a mixture those that cannot be read here are NaN, like those
    that a source does not have; of one source a property is left out then."""

    def __init__(self, trace: Trace, blocks: np.ndarray, progress: Progress) -> None:
        manifest = trace.manifest
        self._firsts = [part.first for part in manifest.parts] if isinstance(manifest, Mixture) else []
        self._first: dict[int, int] = {}
        parts: dict[str, list[np.ndarray]] = {}
        known: dict[str, list[np.ndarray]] = {}  # the documents that `parts` are of
        at = 0
        opened: tuple[str, pq.ParquetFile | None] = ("", None)
        for number, block in enumerate(blocks.tolist()):
            progress("documents' properties", number, len(blocks), "row groups")
            row, path = manifest.blocks[block], manifest.file_of(block).location
            here = Path(path).is_file()
            if manifest.at(block)[0].kind != "parquet" or (self._firsts and not here):
                continue
            if not here:
                raise OSError(f"{path} is not on this machine")
            if opened[0] != path:
                opened = (path, pq.ParquetFile(path))
            file = opened[1]
            assert file is not None
            names = [c for c in COLUMNS.values() if c in file.schema_arrow.names]
            table = file.read_row_group(int(row["part"]), columns=names)
            if row["stop"] >= 0:
                table = table.slice(int(row["start"]), int(row["stop"] - row["start"]))
            self._first[block] = at
            for name in names:
                values = table[name].to_numpy(zero_copy_only=False)
                parts.setdefault(name, []).append(values.astype(object) if self._firsts else values)
                known.setdefault(name, []).append(np.arange(at, at + len(table)))
            at += len(table)
        self._values: dict[str, Floats] = {}
        for name, column in COLUMNS.items():
            if column in parts and (self._firsts or sum(map(len, parts[column])) == at):
                numbers = _numbers(name, np.concatenate(parts[column]))
                self._values[name] = np.full((at, numbers.shape[1]), np.nan)
                self._values[name][np.concatenate(known[column])] = numbers

    def means(self, rows: Rows) -> dict[str, Floats]:
        """(rows, k) of each property: the mean over each row's documents."""
        first = np.array([self._first.get(int(b), -1) for b in rows.blocks]) if self._values else np.zeros(0)
        counts = np.diff(rows.offsets)
        found = {}
        if self._firsts:  # a row holds one source; the last one is the base
            source = np.searchsorted(self._firsts, rows.blocks[rows.offsets[:-1]], side="right") - 1
            found["source"] = (source[:, None] == np.arange(len(self._firsts) - 1)).astype(np.float64)
        for name, values in self._values.items():
            entries = values[np.minimum(first + rows.documents, len(values) - 1)]
            entries[first < 0] = np.nan
            found[name] = np.add.reduceat(entries, rows.offsets[:-1], axis=0) / counts[:, None]
        return found


def _numbers(name: str, values: np.ndarray) -> Floats:
    """(documents, k): a number as it is, its logarithm for a length, a column of zeros and ones for a word."""
    if name != "dump":
        numbers = np.array([x if isinstance(x, int | float | np.number) else np.nan for x in values], np.float64)
        return (np.log1p(np.maximum(numbers, 0)) if name == "length" else numbers)[:, None]
    words, index, counts = np.unique(np.array([str(x) for x in values]), return_inverse=True, return_counts=True)
    common = np.argsort(-counts)[: min(MOST_LEVELS, len(words) - 1)]
    return (index[:, None] == common[None, :]).astype(np.float64)
