"""Which documents have which loss? The rows of a trace, by source or by what a column beside their text holds.

A row of one source is counted there as a whole. By a column, a row's loss counts for each of its documents, in
proportion to the row's targets that are the document's; so the weights of all groups add up to the targets.

`above` is a group's mean loss less that of all rows of the same steps, as a group that was read early has a high loss
for that alone. Its standard error is clustered by document and by row, which documents share (Cameron, Gelbach and
Miller, Robust inference with multiway clustering, Journal of Business & Economic Statistics 29, 2011), and taken as no
smaller than either alone gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mygpt2.config.load import load_config
from mygpt2.data.trace import read_manifests, trace_files, trace_pieces
from mygpt2.errors import UserError, shown
from mygpt2.experiments.grouping import ByColumn, BySource, Entries, Groups
from mygpt2.experiments.step import BROKEN
from mygpt2.machine import cache_folder
from mygpt2.progress import Progress, silent
from mygpt2.run_dir.paths import RunDir

EXACT = "a row's loss counts for each of its documents in proportion to the row's targets that are the document's"
EQUAL = "a row's loss counts for its documents in equal parts, as the trace is of a version that kept no lengths"
BY_SOURCE = "a row is of one source and counts there as a whole"
ERROR = "of `above`, the distance from all rows of the same steps; clustered by document and by row"
FIELDS = 15  # sums by group, see _Sums


@dataclass(frozen=True)
class GroupLoss:
    """A group's figures. `tokens`: targets, of `share` of all; losses in nats per token. `change`: the mean loss in the
    second half of the steps less that in the first; None where a half has none. `error`: see ERROR; None where fewer
    than two documents or rows are the group's."""

    value: str
    tokens: float
    share: float
    loss: float
    above: float
    error: float | None
    change: float | None


@dataclass(frozen=True)
class Losses:
    """`groups`: by tokens, the largest first; `more`: what is left of them beyond the largest, `whole`: all of them
    together. `last` is lower than was asked for where it was stopped. `no_number`: rows left out, as their loss is
    none."""

    run: str
    by: str
    first: int
    last: int
    stopped: bool
    rows: int
    no_number: int
    protocol: str
    notes: tuple[str, ...]
    whole: GroupLoss
    groups: tuple[GroupLoss, ...]
    more: GroupLoss | None
    more_values: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes), "groups": [asdict(group) for group in self.groups],
                "error_is": ERROR}  # fmt: skip


class Grouping(Protocol):
    """From the documents of a trace to groups."""

    groups: Groups
    notes: list[str]

    def of(self, entries: Entries, stopped: Callable[[], bool], told: Callable[[float], None]) -> np.ndarray | None:
        """(entries,) the group of each; None where it was stopped. `told` is called with the share that is done."""
        ...

    def close(self) -> None: ...


def losses(
    run: RunDir, by: str, first: int = 0, last: int | None = None, *, top: int | None = None,
    width: float | None = None, progress: Progress = silent, stopped: Callable[[], bool] = lambda: False,
) -> Losses:  # fmt: skip
    """The loss of a run's rows in the steps [first, last], by `source`, `domain` or a column of the documents.

    `width`: numbers are grouped in ranges so wide. `top`: the largest groups, the others as one. When `stopped` says so
    what is known by then comes out. UserError without a trace, a column or the data; TryAgain for a hub out of reach.
    """
    _check(by, first, last, top, width)
    begin, end = _range(run, first, last)
    tokens = load_config(None, run.config_file).model.block_size
    try:
        manifests = read_manifests(run.path)
    except BROKEN:
        manifests = {}
    if not manifests:
        raise UserError(
            f"the trace of run {run.name!r} has no manifest that can be read, which says where its documents are; "
            "restore trace/manifest.json from a copy of the run"
        )
    by_column = by != "source"
    of: Grouping = ByColumn(manifests, by, width, cache_folder(), run.name) if by_column else BySource(manifests)
    try:
        sums = _sums(run, of, begin, end, tokens, progress, stopped)
    finally:
        of.close()
    if not sums.rows:
        why = "has a loss that is a number" if sums.no_number else "was read before it was stopped"
        raise UserError(
            f"no row of run {run.name!r} in the steps {begin} to {end} {why}; nothing is known of its losses"
        )
    return _told(run.name, by, begin, end, of, sums, top)


def _check(by: str, first: int, last: int | None, top: int | None, width: float | None) -> None:
    if not by or len(by) > 200:
        raise UserError("--by is what the losses are grouped by: source, domain, or a column of the documents")
    if last is not None and last < first:
        raise UserError(f"--first {first} --last {last} are no steps; the last comes after the first")
    if top is not None and top < 1:
        raise UserError(f"--top {top} shows nothing; give 1 or more, or leave it out")
    if width is not None and not 0 < width < 1e15:
        raise UserError(f"--width {width:g} is no width of ranges; give a number above 0")


def _range(run: RunDir, first: int, last: int | None) -> tuple[int, int]:
    """The steps that there are. UserError without any."""
    try:
        files = trace_files(run.path)
    except BROKEN as error:
        raise UserError(f"the trace of run {run.name!r} cannot be read ({error})") from None
    if not files:
        raise UserError(
            f"run {run.name!r} has no trace; one is kept with log.trace=true, and written every 200 steps and at the "
            "end"
        )
    lowest, highest = min(file.first for file in files), max(file.until for file in files)
    begin, end = max(first, lowest), highest if last is None else min(last, highest)
    if begin > end:
        raise UserError(f"the trace of run {run.name!r} holds the steps {lowest} to {highest}; give some of these")
    return begin, end


class _Sums:
    """What is kept while rows pass by.

    `table` (FIELDS, groups): weights, losses and distances from the step's mean; weights and losses of either half; of
    rows, and of the parts of rows that are one document's, the squares of sums of distances, their products with
    weights, the squares of weights, and how many.
    """

    def __init__(self) -> None:
        self.table = np.zeros((FIELDS, 0))
        self.documents = _Clusters()
        self.steps = self.rows = self.no_number = self.in_equal_parts = 0
        self.reached = -1  # the last step
        self.all = np.zeros(6)  # weights and losses: of all rows, of either half

    def add(self, rows: _Rows, entries: Entries, group: np.ndarray, distance: np.ndarray, late: np.ndarray) -> None:
        """The rows of some whole steps. `distance` (rows,): loss less the step's mean; `late` (rows,): second half."""
        count = max(int(group.max(initial=-1)) + 1, self.table.shape[1])
        if count > self.table.shape[1]:
            self.table = np.pad(self.table, ((0, 0), (0, count - self.table.shape[1])))
        used = entries.weight > 0
        row, group, weight = entries.row[used], group[used], entries.weight[used]
        far, second = weight * distance[row], late[row]
        table, loss = self.table, weight * rows.loss[row]
        for field, values in enumerate((weight, loss, far)):
            table[field] += np.bincount(group, values, count)
        for field, half in ((3, ~second), (5, second)):
            table[field] += np.bincount(group[half], weight[half], count)
            table[field + 1] += np.bincount(group[half], loss[half], count)
        key, place = np.unique(row * count + group, return_inverse=True)
        self._squares(7, key % count, np.bincount(place, far), np.bincount(place, weight))
        self._squares(11, group, far, weight)
        self.documents.add(entries.document[used], group, far, weight)
        each = np.bincount(row, weight, len(rows.loss))
        for field, chosen in enumerate((late | ~late, ~late, late)):
            self.all[2 * field : 2 * field + 2] += each[chosen].sum(), (each * rows.loss)[chosen].sum()

    def _squares(self, field: int, group: np.ndarray, far: np.ndarray, weight: np.ndarray) -> None:
        for more, values in enumerate((far**2, far * weight, weight**2, np.ones(len(far)))):
            self.table[field + more] += np.bincount(group, values, self.table.shape[1])

    def errors(self) -> np.ndarray:
        """(groups,) the standard error of `above`; NaN for fewer than two documents or rows."""
        count = self.table.shape[1]
        group, far, weight = self.documents.all()
        by_document = np.array(
            [np.bincount(group, v, count) for v in (far**2, far * weight, weight**2, np.ones(len(far)))]
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            total, mean = self.table[0], self.table[2] / self.table[0]

            def variance(sums: np.ndarray) -> np.ndarray:
                scale = np.where(sums[3] > 1, sums[3] / (sums[3] - 1), np.nan)
                return np.asarray(scale * (sums[0] - 2 * mean * sums[1] + mean**2 * sums[2]) / total**2)

            documents, rows, parts = (variance(s) for s in (by_document, self.table[7:11], self.table[11:15]))
            return np.sqrt(np.maximum(np.maximum(documents, rows), documents + rows - parts).clip(min=0.0))


class _Clusters:
    """Sums by document, of any number of them: pieces are put together whenever they outgrow what is together."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, key: np.ndarray, group: np.ndarray, far: np.ndarray, weight: np.ndarray) -> None:
        self._parts.append(_together([(key, group, far, weight)]))
        if sum(len(part[0]) for part in self._parts[1:]) > len(self._parts[0][0]) + 1_000_000:
            self._parts = [_together(self._parts)]

    def all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Group, sum of distances and sum of weights, each (documents,)."""
        self._parts = [_together(self._parts)] if self._parts else []
        if not self._parts:
            return np.zeros(0, int), np.zeros(0), np.zeros(0)
        return self._parts[0][1], self._parts[0][2], self._parts[0][3]


def _together(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One entry for each document, of each group that it is in."""
    keys, groups, far, weight = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not len(keys):
        return keys, groups, far, weight
    order = np.lexsort((keys, groups))
    keys, groups = keys[order], groups[order]
    new = np.flatnonzero(np.r_[True, (np.diff(keys) != 0) | (np.diff(groups) != 0)])
    return keys[new], groups[new], np.add.reduceat(far[order], new), np.add.reduceat(weight[order], new)


@dataclass(frozen=True)
class _Rows:
    """Rows of whole steps, those whose loss is a number; each (rows,)."""

    step: np.ndarray
    loss: np.ndarray


def _sums(
    run: RunDir, of: Grouping, begin: int, end: int, tokens: int, progress: Progress, stopped: Callable[[], bool]
) -> _Sums:
    sums, middle, steps = _Sums(), (begin + end) / 2, end - begin + 1
    try:
        for first, last, table in trace_pieces(run.path, begin, end):

            def told(share: float, first: int = first, size: int = last - first + 1) -> None:
                progress(f"losses by {of.groups.by}", int(first - begin + share * size), steps, "steps")

            told(0.0)
            finite = np.isfinite(loss := np.asarray(table["loss"].to_numpy(), float))
            good = table.filter(pa.array(finite))
            entries = Entries.of(good, tokens)
            group = of.of(entries, stopped, told)
            if group is None or stopped():
                break
            rows = _Rows(good["step"].to_numpy(), loss[finite])
            known, place = np.unique(rows.step, return_inverse=True)
            mean = np.bincount(place, rows.loss) / np.bincount(place) if len(known) else np.zeros(0)
            sums.add(rows, entries, group, rows.loss - mean[place], rows.step > middle)
            sums.steps += len(np.unique(table["step"].to_numpy()))
            sums.rows += len(rows.loss)
            sums.no_number += int((~finite).sum())
            sums.in_equal_parts += entries.in_equal_parts
            sums.reached = last
            told(1.0)
    except BROKEN as error:
        raise UserError(
            f"the trace of run {run.name!r} cannot be read ({error}); restore the file from a copy, or delete it: its "
            "steps are left out then, and counted"
        ) from None
    return sums


def _told(run: str, by: str, begin: int, end: int, of: Grouping, sums: _Sums, top: int | None) -> Losses:
    table, errors, all_weight = sums.table, sums.errors(), float(sums.all[0])
    order = [int(g) for g in np.argsort(-table[0], kind="stable") if table[0][g] > 0]
    groups = [_group(of.groups.name(g), table[:, g], float(errors[g]), all_weight) for g in order[:top]]
    rest = order[len(groups) :]
    more = _group(f"{len(rest):,} more", table[:, rest].sum(axis=1), math.nan, all_weight) if rest else None
    w = sums.all
    change = w[5] / w[4] - w[3] / w[2] if w[2] and w[4] else None
    whole = GroupLoss("all", all_weight, 1.0, float(w[1] / w[0]), 0.0, None, None if change is None else float(change))
    protocol = BY_SOURCE if by == "source" else EXACT
    notes = list(of.notes)
    if sums.in_equal_parts and by != "source":
        protocol = EQUAL
        if sums.in_equal_parts < sums.rows:
            notes.append(f"{sums.in_equal_parts:,} of {sums.rows:,} rows count in equal parts, the others exactly")
    if (gone := (steps := sums.reached - begin + 1) - sums.steps) > 0:
        notes.append(f"{gone:,} of {steps:,} steps are left out, as the trace does not hold them")
    if sums.no_number:
        notes.append(f"{sums.no_number:,} rows are left out, as their loss is no number")
    return Losses(
        run, by, begin, sums.reached, sums.reached < end, sums.rows, sums.no_number, protocol, tuple(notes), whole,
        tuple(groups), more, len(rest),
    )  # fmt: skip


def _group(value: str, sums: np.ndarray, error: float, all_weight: float) -> GroupLoss:
    weight, loss, far, w1, l1, w2, l2 = sums[:7].tolist()
    change = l2 / w2 - l1 / w1 if w1 and w2 else None
    return GroupLoss(
        shown(value), weight, weight / all_weight, loss / weight, far / weight, error if math.isfinite(error) else None,
        change,
    )  # fmt: skip
