"""The batch of a step of a run, token by token, from its trace and the documents it names.

The trace says of each row which documents it touches and how many tokens of the first came before it; the rest is the
packing rule: document, end-of-text, next document, until the row has its T + 1 tokens. Only the documents of the rows
that are shown are read, so the millionth step costs what the first one costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.checkpoint import step_of
from mygpt2.config import RunConfig, load_config
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.resolve import resolve
from mygpt2.data.trace import place_of, read_manifest, read_trace, trace_files
from mygpt2.errors import UserError
from mygpt2.files import read_json
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer import Tokenizer
from workbench.corpus.library import Library, Opened
from workbench.corpus.pages import Page, page_of
from workbench.tokenizers import Tokenizers

PAGE = 4  # rows; each may touch blocks of its own


@dataclass(frozen=True)
class Segment:
    """What a row holds of a document: its tokens start .. start + len(ids) of `tokens`, end-of-text included."""

    file: str
    part: int
    document: int
    start: int
    tokens: int
    ids: np.ndarray


@dataclass(frozen=True)
class Row:
    """A row of the batch: T + 1 tokens, of which the first T are inputs and the last T targets."""

    slot: int
    lane: int
    epoch: int
    loss: float
    segments: tuple[Segment, ...]

    @property
    def ids(self) -> np.ndarray:
        return np.concatenate([segment.ids for segment in self.segments])


@dataclass(frozen=True)
class Traced:
    """A run whose steps can be looked at."""

    run: RunDir
    config: RunConfig
    tokenizer: Tokenizer
    opened: Opened
    warning: str = ""


def step_range(run: RunDir) -> tuple[int, int]:
    """First and last traced step; UserError without a trace."""
    files = trace_files(run.path)
    if not files:
        raise UserError(
            f"run {run.name!r} has no trace yet; one is kept with log.trace=true and written every 200 steps and at "
            "the end"
        )
    return min(f.first for f in files), max(f.last for f in files)


def traced(run: RunDir, library: Library, tokenizers: Tokenizers) -> Traced:
    """The run's data and tokenizer as they were. UserError where they are not there any more."""
    step_range(run)
    config = load_config(None, run.config_file)
    tokenizer = tokenizers.get(config.data.tokenizer)
    try:
        manifest = read_manifest(run.path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the trace of run {run.name!r} has no readable manifest ({error})") from None
    opened = library.of_manifest(_found(manifest, config, library), tokenizer)
    return Traced(run, config, tokenizer, opened, _warning(run, manifest, tokenizer))


def rows_of_step(of: Traced, step: int, page: Any = 1, size: int = PAGE) -> tuple[Page, int, float, list[Row]]:
    """(page, documents and mean loss of the whole batch, the page's rows). UserError for a step without a trace."""
    first, last = step_range(of.run)
    records = read_trace(of.run.path, step, step).to_pylist()
    if not records:
        raise UserError(f"step {step} is not in the trace of run {of.run.name!r}, which holds {first} to {last}")
    documents = {(b, d) for r in records for b, d in zip(r["block"], r["document"], strict=True)}
    shown = page_of(len(records), page, size)
    rows = [row_of(of, record) for record in records[shown.start : shown.stop]]
    return shown, len(documents), float(np.mean([r["loss"] for r in records])), rows


def row_of(of: Traced, record: dict[str, Any]) -> Row:
    """A row rebuilt from its record. UserError where the documents do not give what was trained on."""
    if record["offset"] is None:
        raise UserError(
            f"run {of.run.name!r} was traced by an earlier version, which did not keep where in its first document a "
            "row begins; python -m mygpt2 data inspect --run NAME --step N lists its documents"
        )
    need = of.config.model.block_size + 1
    segments: list[Segment] = []
    for number, (block, document) in enumerate(zip(record["block"], record["document"], strict=True)):
        ids = document_tokens(of, block, document)
        start = int(record["offset"]) if number == 0 else 0
        taken = ids[start : start + need]
        need -= len(taken)
        segments.append(Segment(*place_of(of.opened.manifest, block, document), start, len(ids), taken))
    if need or any(not len(segment.ids) for segment in segments):
        raise UserError(
            f"slot {record['slot']}: the documents that the trace names have other lengths now; the data or the "
            "tokenizer of this run was changed"
        )
    return Row(record["slot"], record["lane"], record["epoch"], record["loss"], tuple(segments))


def document_tokens(of: Traced, block: int, document: int) -> np.ndarray:
    """A document as it lies in a lane: its tokens and end-of-text."""
    found = of.opened.read(block)[document]
    ids = found if of.opened.manifest.kind == "tokens" else of.tokenizer.encode_batch([found])[0]
    return np.concatenate([ids, [of.tokenizer.eot_id]]).astype(of.tokenizer.dtype)


def _found(manifest: Manifest, config: RunConfig, library: Library) -> Manifest:
    """The manifest with files that are there: the run folder may have come from another machine."""
    file = manifest.files[0]
    if manifest.revision is not None or Path(file.location).exists():
        return manifest
    here = resolve(config.data.source, config.data, cache_dir=library.cache_dir)
    if here.fingerprint != manifest.fingerprint:
        raise UserError(
            f"the data of this run, {file.location}, is not there any more, and data.source={config.data.source} "
            "holds other data now"
        )
    return here


def _warning(run: RunDir, manifest: Manifest, tokenizer: Tokenizer) -> str:
    """What the newest checkpoint says against the data or the tokenizer that is here now; empty where all is well."""
    names = [name for name in run.names(run.checkpoints_dir) if step_of(name) is not None]
    state = read_json(run.checkpoints_dir / names[-1] / "state.json", run.path) if names else None
    then: Any = state or {}
    for key in ("data", "fingerprint"):
        then = then.get(key)
        then = then if isinstance(then, dict) else {}
    changed = [
        name
        for name, now in (("data", manifest.fingerprint), ("tokenizer", tokenizer.fingerprint))
        if then.get(name, now) != now
    ]
    return f"not those of the newest checkpoint: {', '.join(changed)}" if changed else ""
