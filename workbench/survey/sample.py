"""A look into a source, as training would have it: a few of its parts are read, the rest is estimated from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.data.heldout import chosen, reason_against, settled
from mygpt2.data.inspect import shortened
from mygpt2.data.scan import BlockReader, Stopped, spread
from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import parts_of
from mygpt2.data.sources.resolve import open_settled, resolve_data
from mygpt2.data.tokenize import check_ids
from mygpt2.tokenizer import Tokenizer

BLOCKS = 3  # of which every document is looked at
ENCODED = 400_000  # characters or ids of a block that are tokenized
BEGINNINGS = 3
PATIENCE_MINUTES = 0.5  # somebody waits in front of the page

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Survey:
    """What was found. documents: estimated unless `counted`. tokens: estimated, held-out ones included, each document
    with its end-of-text. held_out: documents, estimated. left_out: of `looked` documents, how many by reason, the
    held-out ones apart. encodings: files by encoding, of text only."""

    kind: str
    files: int
    size: int
    documents: int
    counted: bool
    tokens: int
    bytes_per_token: float
    held_out: int
    pieces: int
    looked: int
    left_out: dict[str, int] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    encodings: dict[str, int] = field(default_factory=dict)
    beginnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def survey(data: DataConfig, tokenizer: Tokenizer, cache_dir: Path, stop: Stop) -> Survey:
    """Resolves a source and looks into it. UserError for one that cannot be trained on, Stopped when `stop` says so."""

    def advance(done: int, total: int) -> None:
        _check(stop)

    impatient = data.model_copy(update={"outage_minutes": PATIENCE_MINUTES})
    manifest = resolve_data(impatient, cache_dir=cache_dir, progress=advance)
    _check(stop)
    manifest, reader = open_settled(manifest, impatient, cache_dir=cache_dir, eot_id=tokenizer.eot_id)
    try:
        return _surveyed(manifest, reader, tokenizer, data, stop)
    finally:
        reader.close()


@dataclass
class _Seen:
    """Sums over the parts that were read."""

    share: float = 0.0  # of the source, by size
    documents: int = 0
    encoded: int = 0
    tokens: int = 0
    text_bytes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    beginnings: list[str] = field(default_factory=list)


def _surveyed(manifest: Manifest, reader: BlockReader, tokenizer: Tokenizer, data: DataConfig, stop: Stop) -> Survey:
    seen = _Seen()
    sizes = _sizes(manifest)
    for block in sorted(set(list(spread(len(manifest)))[:BLOCKS])):
        _check(stop)
        try:
            found = reader.read(block)
        except (Unreadable, Outage) as fault:
            seen.unreadable.append(f"{manifest.describe(block)}: {fault.reason}")
            continue
        seen.share += float(sizes[block] / sizes.sum())
        own = manifest.at(block)[0]  # of a folder of several kinds
        _add(seen, found, own, tokenizer, settled(data, own), stop)
    counted = manifest.documents
    documents = counted if counted is not None else round(seen.documents / max(seen.share, 1e-9))
    usable = documents * max(0, seen.documents - sum(seen.left_out.values())) / max(1, seen.documents)
    held_out = seen.left_out.pop("held_out", 0)
    usable += documents * held_out / max(1, seen.documents)
    kinds = [part.manifest for part in parts_of(manifest, data)]
    texts = [f.identity.partition("+")[2] for each in kinds if each.kind in ("txt", "jsonl") for f in each.files]
    return Survey(
        kind=manifest.kind,
        files=len(manifest.files),
        size=manifest.size,
        documents=documents,
        counted=counted is not None,
        tokens=round(usable * seen.tokens / max(1, seen.encoded)),
        bytes_per_token=seen.text_bytes / max(1, seen.tokens - seen.encoded),
        held_out=1 if manifest.share is not None else round(documents * held_out / max(1, seen.documents)),
        pieces=sum(each.pieces for each in kinds),
        looked=seen.documents,
        left_out=dict(seen.left_out),
        unreadable=tuple(seen.unreadable),
        encodings=dict(Counter(name.removesuffix("-sig").upper() or "UTF-8" for name in texts)),
        beginnings=tuple(seen.beginnings),
        notes=manifest.notes,
    )


def _sizes(manifest: Manifest) -> np.ndarray:
    """What the parts are weighed by: rows, bytes or tokens; a file that is one part has its own size."""
    blocks = manifest.blocks
    whole = np.array([file.size for file in manifest.files], float)[blocks["file"]]
    ranges = np.where(blocks["stop"] >= 0, blocks["stop"] - blocks["start"], whole)
    return np.maximum(1, blocks["rows"] if (blocks["rows"] >= 0).all() else ranges).astype(float)


def _add(
    seen: _Seen, found: list[Any], manifest: Manifest, tokenizer: Tokenizer, data: DataConfig, stop: Stop
) -> None:  # fmt: skip
    """Adds a part: every document is judged, and as many are tokenized as are needed for an estimate."""
    seen.documents += len(found)
    numbers, others = chosen(found, data)
    seen.left_out += others
    kept, length = [], 0
    for number in numbers:
        kept.append(found[number])
        length += len(found[number])
        if length >= ENCODED:
            break
    for document in found:
        if len(seen.beginnings) >= BEGINNINGS:
            break
        if reason_against(document, data) in (None, "held_out"):
            text = document if isinstance(document, str) else tokenizer.decode(document[:200])
            seen.beginnings.append(shortened(text))
    _check(stop)
    if manifest.kind == "tokens":
        check_ids(kept, tokenizer, data)
        ids = kept
        seen.text_bytes += sum(len(tokenizer.decode_bytes(each)) for each in kept)
    else:
        ids = tokenizer.encode_batch(kept)
        seen.text_bytes += sum(len(text.encode()) for text in kept)
    seen.encoded += len(ids)
    seen.tokens += sum(len(each) + 1 for each in ids)


def _check(stop: Stop) -> None:
    if stop():
        raise Stopped
