"""The losses by source of a mixture's rows as columns: `loss.NAME`, the mean of a step, and `targets.NAME`.

A row of metrics.jsonl has `by_source`: {NAME: [sum of the loss in nats, targets]}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.records import is_number

BY_SOURCE = "by_source"
LOSS, TARGETS = "loss.", "targets."


def source_of(column: str) -> str | None:
    """The source that a column is of; None for one that is of none."""
    return next((column.removeprefix(kind) for kind in (LOSS, TARGETS) if column.startswith(kind)), None)


def plain(value: Any) -> dict[str, list[float]]:
    """A row's `by_source` as far as it is one."""
    found = value if isinstance(value, Mapping) else {}
    return {str(name): list(pair) for name, pair in found.items() if _is_pair(pair)}


def columns_of(names: Iterable[str], records: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """The columns named, of rows one by one; NaN where a row has nothing of the source."""
    return {name: np.array([_cell(record.get(BY_SOURCE), name) for record in records], np.float64) for name in names}


def names_in(records: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    """All columns that rows have, in the order in which they come."""
    return {
        kind + name: None for record in records for name in plain(record.get(BY_SOURCE)) for kind in (LOSS, TARGETS)
    }


def arrow_type(names: Iterable[str]) -> Any:
    """The type of `by_source` for Arrow's parser, for the columns named."""
    import pyarrow as pa

    return pa.struct([(name, pa.list_(pa.float64())) for name in dict.fromkeys(filter(None, map(source_of, names)))])


def of_arrow(column: Any) -> dict[str, NDArray[np.float64]] | None:
    """All columns of a parsed `by_source`; None for what is none, which the plain parser has to read."""
    import pyarrow as pa
    from pyarrow import compute

    found: dict[str, NDArray[np.float64]] = {}
    if pa.types.is_null(column.type):
        return found
    if not pa.types.is_struct(column.type):
        return None
    for field in column.type:
        pairs = compute.struct_field(column, field.name)
        if pa.types.is_null(pairs.type):
            continue
        if not pa.types.is_list(pairs.type):
            return None
        if not compute.all(compute.equal(compute.list_value_length(pairs), 2), min_count=0).as_py():
            return None
        numbers = compute.list_flatten(pairs).cast(pa.float64(), safe=False).to_numpy().reshape(-1, 2)
        there = compute.is_valid(pairs).to_numpy()
        both = np.full((len(column), 2), np.nan)
        both[there] = numbers
        found[LOSS + field.name] = _mean(both[:, 0], both[:, 1])
        found[TARGETS + field.name] = both[:, 1]
    return found


def _mean(total: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(total, targets, out=np.full(len(total), np.nan), where=targets > 0)


def _cell(value: Any, column: str) -> float:
    pair: Any = value.get(source_of(column)) if isinstance(value, Mapping) else None
    if not _is_pair(pair):
        return np.nan
    total, targets = pair
    return float(targets) if column.startswith(TARGETS) else total / targets if targets > 0 else np.nan


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
