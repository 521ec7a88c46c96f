"""The batch of a step of a run: its rows by loss, and token by token, from its trace and the documents it names.

The trace says of each row which documents it touches and how many tokens of the first came before it; the rest is the
packing rule: document, end-of-text, next document, until the row has its T + 1 tokens. Only the documents of the rows
that are shown are read, so the millionth step costs what the first one costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.checkpoint import step_of
from mygpt2.config import RunConfig, load_config
from mygpt2.data.sources.manifest import WORDS, Manifest
from mygpt2.data.sources.mixture import Mixture, parts_of
from mygpt2.data.sources.resolve import resolve_data
from mygpt2.data.trace import place_of, read_manifests, read_trace, trace_files
from mygpt2.errors import UserError
from mygpt2.files import read_json
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer import Tokenizer
from workbench.corpus.library import Library, Opened
from workbench.corpus.pages import Page, page_of
from workbench.tokenizers import Tokenizers

PAGE = 4  # rows; each may touch blocks of its own
BY_SOURCE = "*"  # an order of rows; no source is called so


Place = tuple[str, int, int]  # file, row group or part, document in it


@dataclass(frozen=True)
class Line:
    """A row of a batch as the trace has it, with nothing read of the data. `places`: of its documents, in order."""

    slot: int
    lane: int
    epoch: int
    loss: float
    places: tuple[Place, ...]
    record: dict[str, Any]
    source: str = ""  # of a mixture the one that the row is of
    unit: str = ""  # what the parts of its files are called


@dataclass(frozen=True)
class SourceRows:
    """A source of a mixture in a step. `loss`: the mean of its rows, None without any. `place`: in the mixture."""

    name: str
    place: int
    rows: int
    loss: float | None


@dataclass(frozen=True)
class Batch:
    """The rows of a step, worst first. `loss`: their mean. `first`, `last`: the steps that the trace holds. `sources`:
    of a mixture, in its order."""

    step: int
    first: int
    last: int
    loss: float
    documents: int
    lines: tuple[Line, ...]
    source: str
    unit: str  # what the parts of a file are called
    sources: tuple[SourceRows, ...] = ()

    def rows(self, order: str = "") -> tuple[Line, ...]:
        """The rows in an order: worst first, with BY_SOURCE source by source, with a source's name its own alone.

        UserError for a name that is none of the sources.
        """
        if not order:
            return self.lines
        places = {source.name: source.place for source in self.sources}
        if order == BY_SOURCE:
            return tuple(sorted(self.lines, key=lambda line: places.get(line.source, 0)))
        if order not in places:
            raise UserError(f"{order[:64]!r} is not a source of this run; allowed: {', '.join(places) or 'none'}")
        return tuple(line for line in self.lines if line.source == order)


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


def batch_of(run: RunDir, step: int) -> Batch:
    """What a step was made of, from the trace alone. UserError for a step that it does not hold."""
    first, last = step_range(run)
    records = read_trace(run.path, step, step).to_pylist()
    if not records:
        raise UserError(f"step {step} is not in the trace of run {run.name!r}, which holds {first} to {last}")
    manifest, _ = _manifest(run, step)
    lines = sorted((_line(manifest, record) for record in records), key=_worst_first)
    documents = {place for record in records for place in zip(record["block"], record["document"], strict=True)}
    loss = float(np.mean([line.loss for line in lines]))
    unit = WORDS[manifest.kind][0]
    sources = _by_source(manifest, lines)
    return Batch(step, first, last, loss, len(documents), tuple(lines), manifest.source, unit, sources)


def _by_source(manifest: Manifest, lines: Sequence[Line]) -> tuple[SourceRows, ...]:
    found = []
    for place, part in enumerate(manifest.parts if isinstance(manifest, Mixture) else ()):
        losses = [line.loss for line in lines if line.source == part.name]
        found.append(SourceRows(part.name, place, len(losses), float(np.mean(losses)) if losses else None))
    return tuple(found)


def _line(manifest: Manifest, record: dict[str, Any]) -> Line:
    try:
        pairs = zip(record["block"], record["document"], strict=True)
        places = tuple(place_of(manifest, block, document) for block, document in pairs)
    except (IndexError, TypeError, ValueError):
        raise UserError(
            "the trace names blocks that its manifest does not have; it was written with other data than this"
        ) from None
    loss = float("nan") if record["loss"] is None else float(record["loss"])
    own, source = manifest, ""
    if isinstance(manifest, Mixture) and record["block"]:
        part = manifest.parts[manifest.part_of(record["block"][0])]
        own, source = part.manifest, part.name
    return Line(record["slot"], record["lane"], record["epoch"], loss, places, record, source, WORDS[own.kind][0])


def _worst_first(line: Line) -> tuple[float, int]:
    return (-math.inf if math.isnan(line.loss) else -line.loss), line.slot


def _manifest(run: RunDir, step: int | None = None) -> tuple[Manifest, bool]:
    """(what the blocks of a step refer to, whether that is the newest data), or of the newest step. A fork may have
    gone on with other data. UserError where it cannot be read.
    """
    found = _manifests(run)
    newest = max(found)
    attempts = [file.attempt for file in trace_files(run.path) if step is None or file.first <= step <= file.until]
    fitting = [since for since in found if since <= max(attempts, default=newest)]
    if not fitting:
        raise UserError(
            f"step {step} was trained on data that the trace does not describe; it keeps that of the steps from "
            f"attempt {min(found)} on"
        )
    return found[max(fitting)], max(fitting) == newest


def newest_manifest(run: RunDir) -> Manifest:
    """What a run trains on since its last fork, whether or not the trace has a step of that yet. UserError where it
    cannot be read."""
    found = _manifests(run)
    return found[max(found)]


def _manifests(run: RunDir) -> dict[int, Manifest]:
    """`read_manifests`, one or more; read once per version of the files. UserError where none can be read."""
    try:
        files = [(path.name, path.stat()) for path in sorted(run.trace_dir.glob("manifest*.json"))]
        found = _read_manifests(run.path, tuple((name, file.st_mtime_ns, file.st_ino) for name, file in files))
        max(found)  # of none a ValueError
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"the trace of run {run.name!r} has no readable manifest ({error})") from None
    return found


@lru_cache(maxsize=4)
def _read_manifests(path: Path, files: tuple[tuple[str, int, int], ...]) -> dict[int, Manifest]:
    return read_manifests(path)


def traced(run: RunDir, library: Library, tokenizers: Tokenizers, step: int | None = None) -> Traced:
    """The run's data, of a step or of the newest one, and its tokenizer as they were. UserError where they are not
    there any more."""
    step_range(run)
    config = load_config(None, run.config_file)
    tokenizer = tokenizers.get(config.data.tokenizer)
    manifest, newest = _manifest(run, step)
    opened = library.of_manifest(_found(manifest, config, library), tokenizer)
    return Traced(run, config, tokenizer, opened, _warning(run, manifest if newest else None, tokenizer))


def rows_of_step(
    of: Traced, step: int, page: Any = 1, size: int = PAGE, order: str = ""
) -> tuple[Page, Batch, list[Row]]:
    """(page, the whole batch, the page's rows in an order of `Batch.rows`). UserError for a step without a trace."""
    batch = batch_of(of.run, step)
    lines = batch.rows(order)
    shown = page_of(len(lines), page, size)
    return shown, batch, [row_of(of, line.record) for line in lines[shown.start : shown.stop]]


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
    ids = found if isinstance(found, np.ndarray) else of.tokenizer.encode_batch([found])[0]
    return np.concatenate([ids, [of.tokenizer.eot_id]]).astype(of.tokenizer.dtype)


def _found(manifest: Manifest, config: RunConfig, library: Library) -> Manifest:
    """The manifest with files that are there: the run folder may have come from another machine."""
    local = (part.manifest for part in parts_of(manifest, config.data) if part.manifest.revision is None)
    gone = next((m.files[0] for m in local if not Path(m.files[0].location).exists()), None)
    if gone is None:
        return manifest
    here = resolve_data(config.data, cache_dir=library.cache_dir)
    if here.fingerprint != manifest.fingerprint:
        raise UserError(
            f"the data of this run, {gone.location}, is not there any more, and {config.data.text} holds other data now"
        )
    return here


def _warning(run: RunDir, manifest: Manifest | None, tokenizer: Tokenizer) -> str:
    """What the newest checkpoint says against the data or the tokenizer that is here now; empty where all is well."""
    names = [name for name in run.names(run.checkpoints_dir) if step_of(name) is not None]
    state = read_json(run.checkpoints_dir / names[-1] / "state.json", run.path) if names else None
    then: Any = state or {}
    for key in ("data", "fingerprint"):
        then = then.get(key)
        then = then if isinstance(then, dict) else {}
    known = {"data": manifest.fingerprint} if manifest else {}  # that of before a fork need not be
    changed = [
        name for name, now in {**known, "tokenizer": tokenizer.fingerprint}.items() if then.get(name, now) != now
    ]
    return f"not those of the newest checkpoint: {', '.join(changed)}" if changed else ""
