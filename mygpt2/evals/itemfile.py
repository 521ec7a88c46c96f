"""The outcome of every item, one line each: what a run is resumed from, and what two models are compared by.

While items are scored their lines are appended to parts, one per rank, beside the file. The file itself appears whole,
in the order of the items, when all are done; so it is the same bytes however often scoring was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.files import replace_file
from mygpt2.run_dir.lines import LineWriter

SCHEMA = 1
IDENTITY = ("schema", "kind", "weights_sha256", "items_sha256", "tokenizer", "block_size", "precision", "protocols")
"""What must be equal in two headers for their lines to belong together."""


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
        raise UserError(f"--baseline {path} is no file of items; give the .items.jsonl that eval wrote")
    if header.get("items_sha256") != items_sha256:
        raise UserError(
            f"--baseline {path} is of other items ({header.get('items', 'unknown number')}, not these {items}); "
            "evaluate both models on the same file with the same --limit"
        )
    if set(lines) != set(range(items)):
        raise UserError(f"--baseline {path} holds {len(lines)} of {items} items; let that evaluation finish first")
    return header, lines
