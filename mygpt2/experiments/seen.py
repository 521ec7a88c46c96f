"""Whether the documents of a step were trained on before in the same run, from its trace, newest steps first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mygpt2.data.trace import trace_files
from mygpt2.inside import open_inside

MOST_ROWS = 2_000_000  # of a trace that are looked through, in half a second


@dataclass(frozen=True)
class Earlier:
    """The last time before a step that a document was in a batch. `again`: in a later pass over the data; otherwise an
    earlier part of the same long document."""

    step: int
    loss: float
    again: bool


@dataclass(frozen=True)
class Seen:
    """`found`: by (block, document). `since`: the first step that was looked at; `whole`: it is the trace's first."""

    found: dict[tuple[int, int], Earlier]
    since: int
    whole: bool


def seen_before(run: Path, step: int, documents: Iterable[tuple[int, int, int]], most: int = MOST_ROWS) -> Seen:
    """Of `documents`, each (block, document, epoch of its row) in the batch of `step`. OSError as the trace has it.

    At most about `most` rows are read, the nearest steps first.
    """
    wanted = {_key(block, document): epoch for block, document, epoch in documents}
    files = sorted((file for file in trace_files(run) if file.first < step), key=lambda file: -file.first)
    keys = np.array(sorted(wanted), np.int64)
    found: dict[tuple[int, int], Earlier] = {}
    read, since, left = 0, step, len(files)
    for file in files:
        with open_inside(file.path, run) as content:
            columns = ["step", "epoch", "loss", "block", "document"]
            limit = [("step", "<", min(step, file.until + 1))]
            table = pq.read_table(content, columns=columns, filters=limit, partitioning=None)
        since = min(since, file.first)
        blocks, numbers = (table[name].combine_chunks() for name in ("block", "document"))
        counts = np.diff(blocks.offsets.to_numpy())
        entries = _key(blocks.flatten().to_numpy().astype(np.int64), numbers.flatten().to_numpy().astype(np.int64))
        rows = np.repeat(np.arange(len(table)), counts)
        hits = np.flatnonzero(np.isin(entries, keys))
        steps, epochs, losses = (table[name].to_numpy() for name in ("step", "epoch", "loss"))
        for hit in hits:
            key, row = int(entries[hit]), rows[hit]
            place, at = (key >> 32, key & 0xFFFFFFFF), int(steps[row])
            if place not in found or found[place].step < at:
                found[place] = Earlier(at, float(losses[row]), bool(epochs[row] < wanted[key]))
        read += len(table)
        left -= 1
        if read >= most:
            break
    return Seen(found, since, left == 0)


def _key(block: Any, document: Any) -> Any:
    """One number for a document; of columns, a column."""
    return (block << 32) | document
