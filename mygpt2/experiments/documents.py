"""The beginnings of the documents of a step's worst rows, and what stands beside their text: address, dump, score.

Only data that lies on this machine is read, and nothing is resolved anew: the trace says where each document is.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mygpt2.config.load import load_config
from mygpt2.data.beside import fields_of
from mygpt2.data.inspect import shortened
from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.resolve import open_reader
from mygpt2.data.trace import read_manifest
from mygpt2.errors import UserError
from mygpt2.experiments.step import BROKEN, StepReport
from mygpt2.machine import cache_folder
from mygpt2.run_dir.paths import RunDir

WORST = 8  # rows whose documents are opened
MOST_BLOCKS = 64  # that are read for them; a block may hold a thousand documents

Key = tuple[int, int]


@dataclass(frozen=True)
class Document:
    """`text`: its beginning on one line. `fields`: name and value of its other columns; `domain` of its address."""

    text: str
    fields: tuple[tuple[str, str], ...]

    @property
    def domain(self) -> str:
        """The host of its address; empty without one."""
        address = next((value for name, value in self.fields if name.lower() in ("url", "uri", "link")), "")
        try:
            return urlsplit(address).hostname or ""
        except ValueError:
            return ""


@dataclass(frozen=True)
class _Here:
    """Data on this machine, for `fields_of`."""

    manifest: Manifest
    client: None = None
    footers: None = None

    def at(self, block: int) -> tuple[_Here, int]:
        manifest, within = self.manifest.at(block)
        return _Here(manifest), within


def documents_of(run: RunDir, found: StepReport) -> tuple[dict[Key, Document], str]:
    """(document by (block, document), why some are missing or ""), of the WORST worst rows."""
    wanted = dict.fromkeys(key for row in found.rows[:WORST] for key in row.keys)
    if not wanted:
        return {}, ""
    try:
        manifest = read_manifest(run.path)
        tokenizer = load_config(None, run.config_file).data.tokenizer
    except (UserError, *BROKEN) as error:
        return {}, f"the documents cannot be read: {error}"
    if manifest.revision is not None:
        return {}, "the documents lie on the hub; the step card of the workbench reads them"
    if not all(Path(file.location).exists() for file in manifest.files):
        return {}, f"the data of this run, {manifest.source}, is not on this machine any more"
    return _read(manifest, tokenizer, list(wanted))


def _read(manifest: Manifest, tokenizer: str, wanted: list[Key]) -> tuple[dict[Key, Document], str]:
    from mygpt2.tokenizer import load_tokenizer

    documents: dict[Key, Document] = {}
    blocks = list(dict.fromkeys(block for block, _ in wanted))
    problem = "" if len(blocks) <= MOST_BLOCKS else f"documents of {len(blocks) - MOST_BLOCKS:,} more blocks not read"
    try:
        ready = any(manifest.at(block)[0].kind == "tokens" for block in blocks)
        words = load_tokenizer(tokenizer) if ready else None
        with closing(open_reader(manifest, cache_dir=cache_folder(), eot_id=words.eot_id if words else 0)) as reader:
            for block in blocks[:MOST_BLOCKS]:
                texts = reader.read(block)
                for key in (key for key in wanted if key[0] == block):
                    found = texts[key[1]]
                    text = words.decode(found[:64]) if words and isinstance(found, np.ndarray) else found
                    documents[key] = Document(shortened(text), tuple(fields_of(_Here(manifest), *key)))
    except (UserError, Unreadable, Outage, *BROKEN) as error:
        problem = f"some documents cannot be read: {getattr(error, 'reason', error)}"
    return documents, problem


def json_of(found: StepReport, documents: dict[Key, Document]) -> dict[str, Any]:
    """The report with the documents that are known, plain."""
    content = found.to_json()
    for row, plain in zip(found.rows, content["rows"], strict=True):
        for key, place in zip(row.keys, plain["documents"], strict=False):
            if known := documents.get(key):
                place |= {"text": known.text, "fields": dict(known.fields), "domain": known.domain or None}
    return content
