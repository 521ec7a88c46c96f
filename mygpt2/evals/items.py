"""HellaSwag's validation items, from the hub or from a local jsonl, parquet or Arrow file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.data.sources.local.encoding import as_utf8
from mygpt2.data.sources.local.unpack import Damaged, whole
from mygpt2.errors import UserError, shown
from mygpt2.machine import home_path

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


def load_items(
    where: str, cache_dir: Path, limit: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Item]:
    """The items of `hub`, or of a path; `limit` takes that many, spread evenly (their order goes by source).

    UserError that names the line and the field for a file that is not HellaSwag with labels.
    """
    if where == "hub":
        from mygpt2.evals.hub import download

        repo, pattern = HUB
        path = download(repo, pattern, cache_dir / "evals" / "hellaswag-validation.parquet", cache_dir, progress)
    else:
        path = _file(home_path(where))
    items = [_item(record, f"{path}, item {number}") for number, record in enumerate(_records(path), start=1)]
    if not items:
        raise UserError(f"--hellaswag {where} holds no items; give HellaSwag's validation set")
    return items if limit is None or limit >= len(items) else [items[i * len(items) // limit] for i in range(limit)]


def items_sha256(items: Iterable[Item]) -> str:
    """What identifies a set of items, whatever file they came in."""
    text = json.dumps([astuple(item) for item in items], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _file(path: Path) -> Path:
    """The file meant by a path: itself, or the only one of a known format in a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"--hellaswag {path} does not exist; give hub, or a {FORMATS} file of the validation set")
    found = [p for p in sorted(path.rglob("*")) if p.suffix in (".jsonl", ".parquet", ".arrow") and p.is_file()]
    chosen = [p for p in found if "val" in str(p.relative_to(path))] or found
    if len(chosen) != 1:
        raise UserError(
            f"--hellaswag {path} is a folder with {len(chosen) or 'no'} {FORMATS} files; give the validation file"
        )
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
            raise UserError(f"--hellaswag {path} has no known format; give hub, or a {FORMATS} file")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--hellaswag {shown(path)} is not UTF-8 ({error.reason} at {error.start:,}); save it as UTF-8, or give "
            "the file as it was published"
        ) from error
    except (OSError, MemoryError, Damaged, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--hellaswag {path} cannot be read ({reason}); fetch it again or give another file") from error


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
        raise UserError(f"--hellaswag {path}, line {number} is no JSON ({error}); fetch the file again") from error
    if not isinstance(record, dict):
        raise UserError(f"--hellaswag {path}, line {number} is no JSON object; give HellaSwag's own file")
    return record


def _item(record: dict[str, Any], place: str) -> Item:
    texts: dict[str, Any] = {}
    for key in ("activity_label", "ctx_a", "ctx_b", "ctx"):
        texts[key] = record.get(key)
        if not isinstance(texts[key], str):
            raise UserError(f"--hellaswag {place} has no text {key}; give HellaSwag's own file, with all its fields")
    endings = record.get("endings")
    if not isinstance(endings, list) or len(endings) != ENDINGS or not all(isinstance(e, str) for e in endings):
        raise UserError(f"--hellaswag {place} has no {ENDINGS} endings; give HellaSwag's own file")
    label = str(record.get("label", ""))
    if label not in ("0", "1", "2", "3"):
        raise UserError(
            f"--hellaswag {place} has label {label!r}, allowed: 0 to 3; give the validation set, the test set has none"
        )
    ind = record.get("ind")
    return Item(ind=ind if isinstance(ind, int) else -1, endings=tuple(endings), label=int(label), **texts)
