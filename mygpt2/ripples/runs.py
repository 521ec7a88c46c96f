"""Reading our own run folders: the metrics of every step, and from the trace the place in the data of every row.

A trace is read once: for the mean wave of each step's rows for every candidate, and the loss by place in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.config.earlier import renewed
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.trace import read_manifests, trace_files
from mygpt2.errors import UserError
from mygpt2.inside import open_inside
from mygpt2.progress import Progress, silent
from mygpt2.records import is_number
from mygpt2.ripples.layout import Layout
from mygpt2.ripples.log import Curve, Floats, Log, make_curve, make_log, spacing
from mygpt2.run_dir.metrics import read_events, read_metrics
from mygpt2.run_dir.paths import RunDir

Config = dict[str, Any]
BINS = 96  # of a file, for the profile of loss
ORDERS = ("sequential", "buffer", "lanes")
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError, pa.ArrowException)  # a trace


def read_run(path: Path, progress: Progress = silent) -> Log:
    """The log of a run folder, with its layout where a trace says it. UserError where it is not one."""
    run = RunDir(Path(path))
    if not run.exists():
        raise UserError(f"{path} is not a run folder; give one that holds config.toml, or a log file")
    progress(f"read {run.name}", 0, 1, "runs")
    metrics = read_metrics(run)
    config = read_config(run)
    evals = read_events(run, ("eval",))
    warmup = _whole(config, "schedule", "warmup_steps", least=0)
    notes = [f"{metrics.garbage:,} lines of metrics.jsonl were no metrics"] if metrics.garbage else []
    if replaced := len(metrics.overwritten["step"]):
        notes.append(f"{replaced:,} steps were trained again after a resume; the later ones count")
    return make_log(
        run.name,
        metrics["step"],
        metrics["loss"],
        tokens=metrics["tokens"] if len(metrics) and np.isfinite(metrics["tokens"]).all() else None,
        rate=metrics["lr"],
        validation=make_curve(*_points(evals)),
        warmup=warmup,
        layout=layout_of(run, config),
        run=run.path,
        notes=tuple(notes),
    )


def read_config(run: RunDir) -> Config:
    """The run's configuration as plain tables; empty where it cannot be read."""
    try:
        return renewed(from_toml(run.read(run.config_file, MAX_BYTES)))
    except (OSError, ValueError):
        return {}


def _points(evals: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """(steps, losses) of the evaluation events."""
    found: list[tuple[Any, Any]] = [(e.get("step"), e.get("loss", e.get("val_loss"))) for e in evals]
    good = [(float(s), float(x)) for s, x in found if is_number(s) and is_number(x)]
    return [s for s, _ in good], [x for _, x in good]


def _table(config: Config, name: str) -> Config:
    """A table of the configuration; an empty one where something else stands in its place."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _whole(config: Config, table: str, key: str, least: int = 1) -> int | None:
    """A whole number of the configuration; None where none, or an impossible one, stands there."""
    value = _table(config, table).get(key)
    return value if type(value) is int and least <= value < 10**15 else None


def block_size(config: Config) -> int:
    """Tokens of a row; 0 where the configuration does not say."""
    return _whole(config, "model", "block_size") or 0


def layout_of(run: RunDir, config: Config) -> Layout:
    """What the configuration and the trace's manifest say about periods. Sizes in tokens need a trace."""
    data = _table(config, "data")
    order = data.get("order")
    order = order if order in ORDERS else "lanes"
    layout = Layout(
        order=order,
        lanes=_whole(config, "data", "lanes"),
        window=_whole(config, "data", "window"),
        buffer_documents=_whole(config, "data", "buffer_documents") if order == "buffer" else None,
        eval_interval=_whole(config, "eval", "interval") or _usual(run, "eval"),
        save_interval=_whole(config, "checkpoint", "interval") or _usual(run, "save"),
    )
    trace = open_trace(run.path, block_size(config))
    held_out = data.get("validation_fraction", 0.0)
    held_out = held_out if isinstance(held_out, float) and 0 <= held_out < 1 else 0.0
    try:
        return layout if trace is None else trace.layout(layout, held_out)
    except DAMAGED:
        return layout


def _usual(run: RunDir, kind: str) -> int | None:
    """The steps between two events of a kind, where the configuration does not say and they are regular."""
    steps: list[Any] = [e.get("step") for e in read_events(run, (kind,))]
    found = np.unique([float(s) for s in steps if is_number(s)])
    return spacing(Curve(found, found))


def open_trace(run: Path, block_size: int) -> Trace | None:
    """The trace of a run; None where none was kept or it cannot be read."""
    try:
        if not trace_files(run):
            return None
        manifests = read_manifests(run)
        return Trace(run, manifests[max(manifests)], block_size, max(manifests))
    except DAMAGED:
        return None


@dataclass(frozen=True)
class Rows:
    """Rows of some steps: step, lane and loss (n,), and the documents that each touches as offsets (n + 1,)."""

    step: np.ndarray
    lane: np.ndarray
    loss: np.ndarray
    offsets: np.ndarray
    blocks: np.ndarray
    documents: np.ndarray


@dataclass(frozen=True)
class Trace:
    """The trace of a run, read a file at a time, since its last fork to other data: blocks from before are others."""

    run: Path
    manifest: Manifest
    block_size: int
    since: int = 0  # the first attempt with this manifest

    @property
    def left_out(self) -> int:
        """The last step of those before, 0 without any."""
        return max((file.until for file in trace_files(self.run) if file.attempt < self.since), default=0)

    def pieces(self, progress: Progress = silent) -> Iterator[Rows]:
        """The rows that count, some hundred steps at a time, in the order of the files."""
        files = [file for file in trace_files(self.run) if file.attempt >= self.since]
        for number, file in enumerate(files):
            progress("trace", number, len(files), "files")
            with open_inside(file.path, self.run) as content:
                table = pq.read_table(
                    content, columns=["step", "lane", "loss", "block", "document"], partitioning=None,
                    filters=[("step", "<=", file.until)],
                )  # fmt: skip
            if len(table):
                yield _rows(table)

    def layout(self, layout: Layout, held_out: float) -> Layout:
        """The layout with sizes in tokens, from what the first rows say of a document's length.

        `held_out` is the share of the documents that training leaves out.
        """
        blocks, documents = self.manifest.blocks, self.manifest.documents
        files = len(np.unique(blocks["file"]))
        lanes = layout.lanes
        per_document = 0.0
        for rows in self.pieces():
            starts = len(rows.documents) / len(rows.step) - 1  # boundaries between documents within a row's tokens
            per_document = self.block_size / starts if starts > 0 else 0.0
            lanes = lanes or int(rows.lane.max()) + 1
            break
        if documents is None or not per_document:
            return replace(layout, files=files, lanes=lanes)
        documents = round(documents * (1 - held_out))
        return replace(
            layout, files=files, lanes=lanes, document_tokens=per_document,
            file_tokens=documents * per_document / files, set_tokens=documents * per_document,
            row_group_tokens=documents * per_document / len(blocks),
        )  # fmt: skip

    @cached_property
    def places(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By candidate: (start, length) of every block as shares of the file set, its file, and itself.

        A document i of n of a block is at start + length * i / n.
        """
        blocks = self.manifest.blocks
        size = np.where(blocks["rows"] > 0, blocks["rows"], 1).astype(np.float64)
        before = np.cumsum(size) - size
        file = blocks["file"]
        first = np.r_[True, file[1:] != file[:-1]]
        begin = np.maximum.accumulate(np.where(first, before, 0.0))
        number = np.cumsum(first) - 1
        whole = np.bincount(number, size)[number]
        total = size.sum()
        return {
            "one pass over the file set": (before / total, size / total),
            "a file": ((before - begin) / whole, size / whole),
            "a row group": (np.zeros(len(blocks)), np.ones(len(blocks))),
        }

    def share_within(self, rows: Rows) -> np.ndarray:
        """Where in its block each row begins, 0 to 1, by the number of its first document."""
        first = rows.offsets[:-1]
        size = np.maximum(self.manifest.blocks["rows"][rows.blocks[first]], 1)
        return np.minimum(rows.documents[first] / size, 1.0)

    def phases(self, rows: Rows, name: str) -> np.ndarray:
        """The place of each row's beginning as a share of the candidate's period, 0 to 1."""
        start, length = self.places[name]
        block = rows.blocks[rows.offsets[:-1]]
        return start[block] + length[block] * self.share_within(rows)


def _rows(table: pa.Table) -> Rows:
    blocks, documents = (table[name].combine_chunks() for name in ("block", "document"))
    offsets = blocks.offsets.to_numpy()
    return Rows(
        table["step"].to_numpy(),
        table["lane"].to_numpy(),
        table["loss"].to_numpy().astype(np.float64),
        offsets - offsets[0],
        blocks.flatten().to_numpy(),
        documents.flatten().to_numpy(),
    )


@dataclass(frozen=True)
class Traced:
    """`waves`: by candidate, the mean of exp(2 pi i place) over the rows of each of the log's steps (n,), complex.

    `profile` (BINS,) is the mean loss above the trend by place in the file, `error` its standard error; `rows` counts
    what they are made of.
    """

    waves: dict[str, np.ndarray]
    profile: Floats
    error: Floats
    rows: int


def gather(trace: Trace, log: Log, trend: Floats, progress: Progress = silent) -> Traced | None:
    """The sums over the trace's rows whose steps are in the log; None when there are none. `trend` is (n,)."""
    n = len(log)
    sums = {name: np.zeros(n, complex) for name in trace.places}
    count = np.zeros(n)
    bins = np.zeros((3, BINS))  # rows, losses, squares
    for piece in trace.pieces(progress):
        at = np.searchsorted(log.step, piece.step)
        good = (at < n) & (log.step[np.minimum(at, n - 1)] == piece.step) & np.isfinite(piece.loss)
        if not good.any():
            continue
        index = at[good]
        count += np.bincount(index, minlength=n)
        for name, total in sums.items():
            wave = np.exp(2j * np.pi * trace.phases(piece, name)[good])
            total += np.bincount(index, wave.real, n) + 1j * np.bincount(index, wave.imag, n)
        place = np.minimum((trace.phases(piece, "a file")[good] * BINS).astype(np.int64), BINS - 1)
        above = piece.loss[good] - trend[index]
        for row, values in zip(bins, (np.ones(len(above)), above, above**2), strict=True):
            row += np.bincount(place, values, BINS)
    if not count.any():
        return None
    waves = {name: np.divide(total, count, out=np.zeros(n, complex), where=count > 0) for name, total in sums.items()}
    number = np.maximum(bins[0], 1)
    mean = bins[1] / number
    error = np.sqrt(np.maximum(bins[2] / number - mean**2, 0) / number)
    return Traced(waves, np.where(bins[0] > 0, mean, np.nan), error, int(count.sum()))
