"""HellaSwag's validation items, from the hub or from a local jsonl, parquet or Arrow file; and what came of each.

The outcomes are a file of one line each: what a run is resumed from, and what two models are compared by. While items
are scored their lines are appended to parts, one per rank, beside the file. The file itself appears whole, in the order
of the items, when all are done; so it is the same bytes however often scoring was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.local.encoding import as_utf8
from mygpt2.data.sources.local.unpack import Damaged, whole
from mygpt2.errors import UserError, first_line, shown
from mygpt2.files import replace_file
from mygpt2.machine import home_path
from mygpt2.run_dir.lines import LineWriter

SCHEMA = 1
IDENTITY = ("schema", "kind", "weights_sha256", "items_sha256", "tokenizer", "block_size", "precision", "protocols")
"""What must be equal in two headers for their lines to belong together."""
HUB = ("Rowan/hellaswag", "data/validation-*.parquet")
ENDINGS = 4
FORMATS = ".jsonl, .parquet or .arrow"


@dataclass(frozen=True)
class Item:
    """One question: a context, four endings, and which of them is right. Field names are the dataset's."""

    ind: int
    activity_label: str
    ctx_a: str
    ctx_b: str
    ctx: str
    endings: tuple[str, str, str, str]
    label: int


class _NotItems(ValueError):
    """What is wrong with a file, beginning with its path."""


def load_items(
    where: str,
    cache_dir: Path,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    option: str = "--hellaswag ",
) -> list[Item]:
    """The items of `hub`, or of a path; `limit` takes that many, spread evenly (their order goes by source).

    UserError that names the line and the field, after `option`, for a file that is not HellaSwag with labels.
    """
    try:
        path = _published(cache_dir, progress) if where == "hub" else _file(home_path(where))
        items = [_item(record, f"{path}, item {number}") for number, record in enumerate(_records(path), start=1)]
        if not items:
            raise _NotItems(f"{where} holds no items; give HellaSwag's validation set")
    except _NotItems as error:
        raise UserError(f"{option}{error}") from error
    return items if limit is None or limit >= len(items) else [items[i * len(items) // limit] for i in range(limit)]


def items_sha256(items: Iterable[Item]) -> str:
    """What identifies a set of items, whatever file they came in."""
    text = json.dumps([astuple(item) for item in items], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _published(cache_dir: Path, progress: Callable[[int, int], None] | None) -> Path:
    """The published file, asked for once and kept when its content has the identity that the hub lists."""
    from mygpt2.config.data import DataConfig
    from mygpt2.data.sources.hub.dataset import HubSource
    from mygpt2.data.sources.hub.fetch import fetch_file

    path = cache_dir / "evals" / "hellaswag-validation.parquet"
    if path.is_file():
        return path
    repo, pattern = HUB
    with HubSource(repo, DataConfig(), cache_dir, pattern=pattern) as hub:
        file, done = hub.only_file(), 0

        def more(size: int) -> None:
            nonlocal done
            done += size
            if progress:
                progress(done, file.size)

        return fetch_file(file, path, hub, more)


def _file(path: Path) -> Path:
    """The file meant by a path: itself, or the only one of a known format in a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise _NotItems(f"{path} does not exist; give hub, or a {FORMATS} file of the validation set")
    found = [p for p in sorted(path.rglob("*")) if p.suffix in (".jsonl", ".parquet", ".arrow") and p.is_file()]
    chosen = [p for p in found if "val" in str(p.relative_to(path))] or found
    if len(chosen) != 1:
        raise _NotItems(f"{path} is a folder with {len(chosen) or 'no'} {FORMATS} files; give the validation file")
    return chosen[0]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.suffix == ".jsonl":
            lines = as_utf8(whole(path)).decode().split("\n")
            yield from (_object(line, path, number) for number, line in enumerate(lines, start=1) if line.strip())
        elif path.suffix == ".parquet":
            yield from pq.read_table(path).to_pylist()
        elif path.suffix == ".arrow":
            yield from _arrow(path).to_pylist()
        else:
            raise _NotItems(f"{path} has no known format; give hub, or a {FORMATS} file")
    except UnicodeDecodeError as error:
        raise _NotItems(
            f"{shown(path)} is not UTF-8 ({error.reason} at {error.start:,}); save it as UTF-8, or give "
            "the file as it was published"
        ) from error
    except (OSError, MemoryError, Damaged, pa.ArrowException) as error:
        reason = first_line(error)
        raise _NotItems(f"{path} cannot be read ({reason}); fetch it again or give another file") from error


def _arrow(path: Path) -> pa.Table:
    """An Arrow file in either of its two layouts: `datasets` writes streams."""
    with pa.memory_map(str(path)) as file:
        try:
            return pa.ipc.open_stream(file).read_all()
        except pa.ArrowInvalid:
            file.seek(0)
            return pa.ipc.open_file(file).read_all()


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _NotItems(f"{path}, line {number} is not JSON ({error}); fetch the file again") from error
    if not isinstance(record, dict):
        raise _NotItems(f"{path}, line {number} is not a JSON object; give HellaSwag's own file")
    return record


def _item(record: dict[str, Any], place: str) -> Item:
    texts: dict[str, Any] = {}
    for key in ("activity_label", "ctx_a", "ctx_b", "ctx"):
        texts[key] = record.get(key)
        if not isinstance(texts[key], str):
            raise _NotItems(f"{place} has no text {key}; give HellaSwag's own file, with all its fields")
    endings = record.get("endings")
    if not isinstance(endings, list) or len(endings) != ENDINGS or not all(isinstance(e, str) for e in endings):
        raise _NotItems(f"{place} has no {ENDINGS} endings; give HellaSwag's own file")
    label = str(record.get("label", ""))
    if label not in ("0", "1", "2", "3"):
        raise _NotItems(f"{place} has label {label!r}, allowed: 0 to 3; give the validation set, the test set has none")
    ind = record.get("ind")
    return Item(ind=ind if isinstance(ind, int) else -1, endings=tuple(endings), label=int(label), **texts)


class ItemFile:
    """Lines of one scoring. `known` holds what earlier attempts at the same scoring left, by item."""

    def __init__(self, path: Path, header: Mapping[str, Any], rank: int = 0) -> None:
        self.path = path
        self._header = {"schema": SCHEMA, **header}
        self.known: dict[int, dict[str, Any]] = {}
        for found in (path, *self._parts()):
            head, lines = read_lines(found)
            if same_scoring(head, self._header):
                self.known |= lines
        part = path.with_name(f"{path.name}.part-{rank}")
        if not same_scoring(read_lines(part)[0], self._header):
            part.unlink(missing_ok=True)  # of another model, or of a set that was changed
        fresh = not part.exists()
        try:
            self._writer = LineWriter(part)
        except OSError as error:
            raise UserError(f"cannot write {part}: {error.strerror or error}; choose another folder") from error
        if fresh:
            self._writer.append(self._header)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            self._writer.append(line)

    def close(self) -> None:
        self._writer.close()

    def finish(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Writes the whole file in one step and removes the parts. For one rank, when all are done."""
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (self._header, *lines))
        try:
            replace_file(self.path, text.encode())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}; the scores wait beside it, run the command again"
            ) from error
        for part in self._parts():
            part.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        prefix = f"{self.path.name}.part-"
        if not self.path.parent.is_dir():
            return []
        return sorted(p for p in self.path.parent.iterdir() if p.name.startswith(prefix))


def read_lines(path: Path) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """(header, line by item) of a file of items; what is not whole is left out, a later line of an item wins."""
    header: dict[str, Any] = {}
    lines: dict[int, dict[str, Any]] = {}
    try:
        content = path.read_bytes()
    except OSError:
        return header, lines
    for raw in content.split(b"\n"):
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError):
            continue  # the last line of a process that was killed
        if isinstance(record, dict) and record.get("kind") == "hellaswag":
            header = header or record
        elif isinstance(record, dict) and isinstance(record.get("item"), int):
            lines[record["item"]] = record
    return header, lines


def same_scoring(header: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(header) and all(header.get(key) == other.get(key) for key in IDENTITY)


def read_baseline(path: Path, items_sha256: str, items: int) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """The outcomes of another model on the same items. UserError when it is no such file or of other items."""
    if not path.is_file():
        raise UserError(f"--baseline {path} does not exist; give the .items.jsonl that eval wrote for the other model")
    header, lines = read_lines(path)
    if not header:
        raise UserError(f"--baseline {path} is not a file of items; give the .items.jsonl that eval wrote")
    if header.get("items_sha256") != items_sha256:
        raise UserError(
            f"--baseline {path} is of other items ({header.get('items', 'unknown number')}, not these {items}); "
            "evaluate both models on the same file with the same --limit"
        )
    if set(lines) != set(range(items)):
        raise UserError(f"--baseline {path} holds {len(lines)} of {items} items; let that evaluation finish first")
    return header, lines
