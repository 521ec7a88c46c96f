"""The columns of a text log: CSV, JSON, JSON lines, build-nanogpt's log.txt, and what programs write to their consoles.

Every row is kept: a chart's thinned points cannot show a period shorter than two of their spacings.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mygpt2.errors import UserError
from mygpt2.progress import Progress
from mygpt2.ripples.console import console_records
from mygpt2.ripples.textfile import FORMATS, checked_file, opened

TOLD_EVERY = 1 << 16  # lines between two words of progress
LOOKED_AT = 200  # lines that tell a table from something else
MOST_COLUMNS = 4096
MOST_JSON = 512 << 20  # bytes of a file that must be held whole
_NANOGPT = re.compile(r"\s*(\d+)\s+(train|val|hella)\s+(\S+)\s*$")
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*$")
_THOUSANDS = re.compile(r"\s*[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*$")


@dataclass(frozen=True)
class Table:
    """Columns of equal length, float64 with NaN for what is not a number; `logged` (n,) by name, whether a row means to
    say something there. `notes`: what a person should know of how they were read. `found`: further settings.
    """

    columns: dict[str, np.ndarray]
    logged: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()
    found: dict[str, Any] | None = None


def read_table(path: Path, progress: Progress) -> Table:
    """The table of a text file, by what its first lines look like. UserError for a file without one."""
    size = checked_file(path)
    with opened(path) as file:
        head = list(islice((line[:4096] for line in file if line.strip()), LOOKED_AT))
    if not head:
        raise UserError(f"{path} is empty; give {FORMATS} with a loss per step")
    if _NANOGPT.match(head[0]):
        with opened(path) as file:
            return _nanogpt(file)
    if head[0].lstrip()[:1] in "[{" and not head[0].lstrip().startswith("{'"):
        if (table := _json(path, size, progress)) is not None:
            return table
    elif _is_table(head):
        return _csv(path, _separator(head), progress)
    with opened(path) as file:
        records = console_records(_followed(file, path, progress))
    if len(records) > 1:
        return _from_records(path, records)
    if head[0].lstrip()[:1] in "[{":
        raise UserError(f"{path} holds no list of records; give {FORMATS}")
    return _csv(path, _separator(head), progress)


def _followed(file: TextIO, path: Path, progress: Progress) -> Iterator[str]:
    """The lines of a file, with progress."""
    size = max(1, path.stat().st_size)
    for number, line in enumerate(file):
        if number % TOLD_EVERY == 0:
            progress(f"read {path.name}", min(file.buffer.tell(), size), size, "B")
        yield line


def _nanogpt(file: TextIO) -> Table:
    """Lines of `STEP train|val|hella NUMBER`."""
    found = [match.groups() for line in file if (match := _NANOGPT.match(line[:4096]))]
    rows = [{"step": step, {"train": "loss", "val": "val_loss"}[kind]: x} for step, kind, x in found if kind != "hella"]
    return _from_records(None, rows)


def _separator(head: list[str]) -> str:
    """What stands between the cells: of the usual ones the most frequent in the header, else blanks."""
    best = max(",;\t", key=head[0].count)
    if best in head[0] or len(head[0].split()) == 1:
        return best
    return " " if len(head) > 1 and len(head[1].split()) == len(head[0].split()) else best


def _rows(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=separator, strict=True)


def _is_table(head: list[str]) -> bool:
    """Whether a header of names is followed by rows with as many cells, of which some are numbers."""
    separator = _separator(head)
    try:
        first, *rows = _rows(iter(head), separator)
    except (csv.Error, ValueError):
        return False
    if any(np.isfinite(_number(name)) for name in first):
        return False
    cells = [row for row in rows if row and len(row) <= len(first)]
    said = [_number(cell, decimal=separator != ",") for row in cells for cell in row]
    return 2 * len(cells) > len(rows) and 4 * int(np.isfinite(said).sum()) >= len(said) > 0


def _csv(path: Path, separator: str, progress: Progress) -> Table:
    decimal = separator != ","  # where cells are not separated by commas, a comma is the decimal one
    with opened(path) as file:
        rows = _rows(_followed(file, path, progress), separator)
        try:
            header = _header(path, next(row for row in rows if any(cell.strip() for cell in row)))
            values, said = [array("d") for _ in header], [array("b") for _ in header]
            missing = [""] * len(header)
            for row in rows:
                row += missing[len(row) :]
                filled = [bool(cell) and not cell.isspace() for cell in row[: len(header)]]
                many = sum(filled) > 1
                for column, told_of, cell, full in zip(values, said, row, filled, strict=False):
                    column.append(_number(cell, decimal) if full else np.nan)
                    told_of.append(full or not many)  # a cell left empty beside others was not meant to hold anything
        except csv.Error as error:
            raise UserError(f"{path} is not CSV: {error}; give {FORMATS}") from None
    names = _distinct(header)
    columns = {name: np.frombuffer(column, np.float64) for name, column in zip(names, values, strict=True)}
    logged = {name: np.frombuffer(told_of, np.int8) > 0 for name, told_of in zip(names, said, strict=True)}
    return Table(columns, logged)


def _header(path: Path, cells: list[str]) -> list[str]:
    if len(cells) > MOST_COLUMNS:
        raise UserError(
            f"{path} has {len(cells):,} columns; at most {MOST_COLUMNS:,} are read; give step and loss alone"
        )
    names = [name.strip() for name in cells]
    if all(_number(name) == _number(name) for name in names):
        raise UserError(f"{path} has no header line; name its columns, for example step,tokens,loss")
    return names


def _distinct(names: list[str]) -> list[str]:
    """Names of which none stands twice: the second `loss` is `loss (2)`."""
    count: Counter[str] = Counter()
    found = []
    for name in names:
        count[name] += 1
        found.append(name if count[name] == 1 else f"{name} ({count[name]})")
    return found


def _json(path: Path, size: int, progress: Progress) -> Table | None:
    """A list of records or of TensorBoard's [time, step, value], an object that holds one, or a record a line; None
    where no line is one.
    """
    value = _whole(path, size)
    if value is None:
        value = []
        with opened(path) as file:
            for line in _followed(file, path, progress):
                if (record := _record(line)) is not None:
                    value.append(record)
        if not value:
            return None
    found: dict[str, Any] = {}
    if isinstance(value, dict):
        found = {key: item for key, item in value.items() if isinstance(item, int | float)}
        lists = [item for item in value.values() if isinstance(item, list) and item]
        if lists and all(not isinstance(x, dict | list) for item in lists for x in item[:1]):
            return _from_lists(path, {k: v for k, v in value.items() if isinstance(v, list)}, max(map(len, lists)))
        value = max(lists, key=len, default=[value])
    if not isinstance(value, list):
        raise UserError(f"{path} holds no list of records; give {FORMATS}")
    if value and all(isinstance(row, list) and len(row) == 3 for row in value):
        return _from_records(path, [{"time": row[0], "step": row[1], "value": row[2]} for row in value])
    return _from_records(path, [_flat(row) for row in value if isinstance(row, dict)], found)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """{"train": {"loss": 3}} as {"train/loss": 3}, the name that others write."""
    if not any(isinstance(item, dict) for item in row.values()):
        return row
    flat: dict[str, Any] = {}
    for name, item in row.items():
        flat |= {f"{name}/{inner}": x for inner, x in item.items()} if isinstance(item, dict) else {name: item}
    return flat


def _whole(path: Path, size: int) -> Any:
    """The file as one JSON value; None where it is not one, as JSON lines are not."""
    if size > MOST_JSON:
        return None
    with opened(path) as file:
        try:
            return json.loads(file.read())
        except RecursionError:
            raise UserError(f"{path} has too many brackets within one another; give {FORMATS}") from None
        except ValueError:
            return None


def _record(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _from_lists(path: Path, lists: dict[str, list[Any]], length: int) -> Table:
    _check_count(path, len(lists))
    columns = {str(k): _padded(v, length) for k, v in lists.items()}
    logged = {str(k): np.arange(length) < len(v) for k, v in lists.items()}
    return Table(columns, logged)


def _padded(values: list[Any], length: int) -> np.ndarray:
    found = np.full(length, np.nan)
    found[: len(values)] = [_number(value) for value in values]
    return found


def _from_records(path: Path | None, rows: Sequence[dict[str, Any]], found: dict[str, Any] | None = None) -> Table:
    names = dict.fromkeys(name for row in rows for name in row)
    _check_count(path, len(names))
    columns = {name: np.array([_number(row.get(name)) for row in rows], np.float64) for name in names}
    logged = {name: np.array([name in row for row in rows], bool) for name in names}
    return Table(columns, logged, found=found)


def _check_count(path: Path | None, count: int) -> None:
    if count > MOST_COLUMNS:
        raise UserError(
            f"{path} has {count:,} different names; at most {MOST_COLUMNS:,} are read; give records of step and loss"
        )


def _number(value: Any, decimal: bool = False) -> float:
    """A number, or NaN for anything else; 1,234 is one thousand, or with `decimal` a little more than one."""
    try:
        return float(value)
    except (TypeError, OverflowError):
        return np.nan
    except ValueError:
        kinds = ((_THOUSANDS, ""), (_DECIMAL_COMMA, "."))
        for kind, point in reversed(kinds) if decimal else kinds:
            if isinstance(value, str) and len(value) < 64 and kind.match(value):
                return float(value.replace(",", point))
        return np.nan
