"""The trace: which documents each row of each batch came from, with that row's loss, in the run folder's `trace/`.

Parquet files of some 200 steps with the columns of SCHEMA, whole or not at all: each of one rank, or of all ranks of a
node, which write one together; after a failure a rank may have to write its own. `manifest.json` beside them says which
file and row group a block is. After a resume the later attempt wins from its first step on; what it overwrote stays in
the files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.batch import Batch
from mygpt2.data.sources.manifest import ROWS, Manifest
from mygpt2.data.sources.mixture import manifest_from
from mygpt2.errors import first_line
from mygpt2.files import read_json, replace_file
from mygpt2.inside import names_inside, open_inside, read_inside
from mygpt2.records import whole

SCHEMA = pa.schema(
    [
        ("attempt", pa.int32()),
        ("step", pa.int64()),
        ("slot", pa.int32()),  # of the global batch
        ("lane", pa.int32()),
        ("epoch", pa.int32()),  # of the lane, at the row's first token
        ("loss", pa.float32()),  # of the row, nats per token
        ("block", pa.list_(pa.int32())),  # of each document that the row touches, in order
        ("document", pa.list_(pa.int32())),  # its number within that block
        ("offset", pa.int64()),  # tokens of the first document that come before the row; older traces have none
        ("targets", pa.list_(pa.int32())),  # of the row that are each of its documents'; older traces have none
    ]
)
STEPS_PER_FILE = 200
MANIFEST_BYTES = 256 << 20  # a million row groups take 60 MB
ROWS_PER_FILE = 200_000
MOST_ROWS = 10 * ROWS_PER_FILE  # that wait in memory
MANIFEST = "manifest.json"
SINCE = "since"  # of a manifest: the first attempt whose blocks are its own

_MANIFESTS = re.compile(r"manifest(-[0-9a-f]{12}(-\d+)?)?\.json")
_NAME = re.compile(r"attempt-(\d+)-(?:rank|node)-(\d+)-step-(\d+)-(\d+)\.parquet")


class TraceWriter:
    """One rank's part of the trace. `flush` writes a file; whoever adds steps calls it when the writer is `full`."""

    def __init__(
        self, folder: Path, attempt: int, rank: int, manifest: Manifest | None = None, node: int | None = None
    ) -> None:
        """`manifest` is saved beside the trace; give it on rank 0 only. `node` is this rank's, if several ranks of it
        write together, see `hand_over`."""
        self._folder, self._attempt, self._rank, self._node = Path(folder), attempt, rank, node
        self._mixed = False  # rows of other ranks wait beside this one's
        self._folder.mkdir(parents=True, exist_ok=True)
        self._parts: list[pa.RecordBatch] = []
        self._steps: list[int] = []
        self._rows = 0
        if manifest is not None:
            _save_manifest(self._folder, manifest, attempt)

    def add(self, step: int, batch: Batch, row_losses: Sequence[float] | np.ndarray) -> None:
        """Note the rows of a step with their losses (rows,)."""
        found = batch.documents()
        offsets = pa.array(found.offsets)
        rows = len(batch.slots)
        columns = [
            pa.array(np.full(rows, self._attempt), pa.int32()),
            pa.array(np.full(rows, step), pa.int64()),
            pa.array(batch.slots, pa.int32()),
            pa.array(batch.lanes, pa.int32()),
            pa.array(found.epochs[found.offsets[:-1]], pa.int32()),
            pa.array(np.asarray(row_losses, np.float32), pa.float32()),
            pa.ListArray.from_arrays(offsets, pa.array(found.blocks)),
            pa.ListArray.from_arrays(offsets, pa.array(found.documents)),
            pa.array(found.starts, pa.int64()),
            pa.ListArray.from_arrays(offsets, pa.array(found.targets)),
        ]
        self._parts.append(pa.record_batch(columns, schema=SCHEMA))
        self._steps.append(step)
        self._rows += rows

    @property
    def full(self) -> bool:
        return len(self._steps) >= STEPS_PER_FILE or self._rows >= ROWS_PER_FILE

    def hand_over(self, gather: Callable[[bytes], list[bytes]]) -> None:
        """Gives what was added to the first rank of the node, by all ranks of it at once. `gather` brings the bytes of
        all to that rank, and none to the others."""
        content = pa.BufferOutputStream()
        with pa.ipc.new_stream(content, SCHEMA) as stream:
            for part in self._parts:
                stream.write_batch(part)
        everyones = gather(content.getvalue().to_pybytes())
        self._parts = [part for each in everyones for part in pa.ipc.open_stream(each)]
        self._steps = self._steps if everyones else []
        self._rows, self._mixed = sum(part.num_rows for part in self._parts), bool(everyones)

    def flush(self) -> None:
        """Write what was added since the last time. What an OSError kept from the disk waits for the next time."""
        if not self._parts:
            return
        first, last = min(self._steps), max(self._steps)
        whose = f"node-{self._node:04d}" if self._mixed else f"rank-{self._rank:04d}"
        name = f"attempt-{self._attempt:04d}-{whose}-step-{first:08d}-{last:08d}.parquet"
        content = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_batches(self._parts, SCHEMA), content, compression="zstd")
        try:
            replace_file(self._folder / name, content.getvalue().to_pybytes())
        except OSError:
            while self._rows > MOST_ROWS:  # bounds what waits in memory while the disk cannot be written
                self._rows -= self._parts.pop(0).num_rows
            self._steps = sorted({step for part in self._parts for step in part.column("step").unique().to_pylist()})
            raise
        self._parts, self._steps, self._rows, self._mixed = [], [], 0, False


def _save_manifest(folder: Path, manifest: Manifest, attempt: int) -> None:
    """Write manifest.json; that of other data, from before a fork, is kept under its fingerprint.

    `since` in it is the attempt from which on the trace's blocks are its own. One that is damaged, or no file of this
    folder, says nothing that could be kept and is replaced.
    """
    path = folder / MANIFEST
    known = read_json(path, most=MANIFEST_BYTES) or {}
    then = str(known.get("fingerprint", ""))
    if then == manifest.fingerprint:
        return
    if re.fullmatch("[0-9a-f]{12,}", then):
        kept = folder / f"manifest-{then[:12]}.json"
        again = f"-{whole(known.get(SINCE)) or 0}" if kept.exists() else ""  # the same data twice, others between
        os.replace(path, kept.with_stem(kept.stem + again))
    replace_file(path, json.dumps({**manifest.to_dict(), SINCE: attempt}).encode())


@dataclass(frozen=True)
class TraceFile:
    """One file of a trace and what its name says about it."""

    path: Path
    attempt: int
    rank: int  # or the node
    first: int
    last: int
    until: int  # the last step that counts: the next attempt has trained the later ones again


def trace_files(run_dir: Path) -> list[TraceFile]:
    """All trace files of a run, by attempt, first step and rank. OSError where a link leads out of the run's folder."""
    folder = Path(run_dir) / "trace"
    try:
        names = names_inside(folder, Path(run_dir))
    except (FileNotFoundError, NotADirectoryError):
        return []
    files, begins = [], dict[int, int]()
    for match in filter(None, map(_NAME.fullmatch, names)):
        attempt, rank, first, last = map(int, match.groups())
        files.append(TraceFile(folder / match[0], attempt, rank, first, last, last))
        begins[attempt] = min(first, begins.get(attempt, first))
    for i, file in enumerate(files):
        later = [first - 1 for attempt, first in begins.items() if attempt > file.attempt]
        files[i] = replace(file, until=min([file.last, *later]))
    return sorted(files, key=lambda f: (f.attempt, f.first, f.rank))


def read_trace(run_dir: Path, first: int = 0, last: int | None = None) -> pa.Table:
    """The rows of the steps [first, last] that count: of each step, those of the latest attempt that had begun by then.

    Columns of SCHEMA, sorted by step and slot; empty where nothing was written.
    """
    return _read(trace_files(run_dir), Path(run_dir), first, last)


def trace_pieces(run_dir: Path, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int, pa.Table]]:
    """(first step, last step, rows as `read_trace` has them) of some hundred steps at a time, ascending."""
    files = trace_files(run_dir)
    end = max((file.until for file in files), default=-1)
    end = end if last is None else min(end, last)
    begins = sorted({max(first, file.first) for file in files if max(first, file.first) <= min(file.until, end)})
    for begin, stop in pairwise([*begins, end + 1]):
        yield begin, stop - 1, _read(files, Path(run_dir), begin, stop - 1)


def _read(files: Sequence[TraceFile], run_dir: Path, first: int, last: int | None) -> pa.Table:
    tables = [SCHEMA.empty_table()]
    for file in files:
        stop = file.until if last is None else min(file.until, last)
        if max(first, file.first) <= stop:
            limits = [("step", ">=", first), ("step", "<=", stop)]
            with open_inside(file.path, run_dir) as content:
                try:
                    tables.append(pq.read_table(content, filters=limits, partitioning=None))
                except (pa.ArrowException, OSError) as error:
                    raise ValueError(f"{file.path.name} is damaged: {first_line(error)}") from error
    return pa.concat_tables(tables, promote_options="default").sort_by([("step", "ascending"), ("slot", "ascending")])


@dataclass(frozen=True)
class TracedRow:
    """A row of a batch, decoded. `documents`: (file, row group or part, document within the block) of each."""

    slot: int
    lane: int
    epoch: int
    loss: float
    documents: list[tuple[str, int, int]]


def documents_of_step(run_dir: Path, step: int) -> list[TracedRow]:
    """What the batch of a step was made of, by slot; empty where the trace does not hold the step."""
    rows = read_trace(run_dir, step, step).to_pylist()
    if not rows:
        return []
    manifest = read_manifest(run_dir)
    found = []
    for row in rows:
        places = [place_of(manifest, block, i) for block, i in zip(row["block"], row["document"], strict=True)]
        found.append(TracedRow(row["slot"], row["lane"], row["epoch"], row["loss"], places))
    return found


def read_manifest(run_dir: Path) -> Manifest:
    """The manifest that the blocks of the newest part of the trace refer to."""
    return manifest_from(_manifest_json(run_dir, MANIFEST))


def read_manifests(run_dir: Path) -> dict[int, Manifest]:
    """The manifests of a trace, each by the first attempt whose blocks are its own, ascending.

    Earlier versions did not say since when. One such manifest is of the first attempts; of several only the newest is
    known to be of the newest attempt, and what the blocks before it are cannot be told.
    """
    names = [n for n in names_inside(Path(run_dir) / "trace", Path(run_dir)) if _MANIFESTS.fullmatch(n)]
    contents = {name: _manifest_json(run_dir, name) for name in names}
    undated = [name for name, content in contents.items() if whole(content.get(SINCE)) is None]
    found: dict[int, Manifest] = {}
    for name, content in contents.items():
        since = whole(content.get(SINCE))
        if since is None and undated == [name]:
            since = 0
        elif since is None and name == MANIFEST:
            since = max((file.attempt for file in trace_files(run_dir)), default=0)
        if since is not None:
            found[since] = manifest_from(content)
    return dict(sorted(found.items()))


def _manifest_json(run_dir: Path, name: str) -> dict[str, Any]:
    content = json.loads(read_inside(Path(run_dir) / "trace" / name, Path(run_dir), most=MANIFEST_BYTES))
    if not isinstance(content, dict):
        raise ValueError(f"{name} holds no manifest")
    return content


def place_of(manifest: Manifest, block: int, document: int) -> tuple[str, int, int]:
    """(file, row group or part, document in it, from 0) of a document of a block."""
    row, files = manifest.blocks[block], manifest.files_of(block)
    manifest = manifest.at(block)[0]
    if len(files) > 1:  # small text files, a document each
        return files[min(document // max(1, manifest.pieces), len(files) - 1)].name, 0, 0
    within = int(row["start"]) if manifest.kind in ROWS and row["stop"] >= 0 else 0
    return files[0].name, int(row["part"]), within + document
