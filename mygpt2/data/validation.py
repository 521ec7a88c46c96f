"""The validation set: a fixed choice of whole documents that training never sees.

Which documents is decided by `heldout.held_out` alone; which of those, by an order of the blocks that is spread evenly
over the source and knows nothing of seed, ranks or lanes. So the set depends on the data, the tokenizer and two
settings only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mygpt2.config.data import DataConfig
from mygpt2.data.checked import one_at_a_time, say_damaged, say_unwritable
from mygpt2.data.heldout import chosen, no_text, settled
from mygpt2.data.scan import BlockReader, Dependable, scan, spread
from mygpt2.data.sources.faults import Clock, Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import MixedReader, Mixture
from mygpt2.data.tokenize import check_ids
from mygpt2.errors import UserError, shown
from mygpt2.files import replace_file

if TYPE_CHECKING:
    from mygpt2.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""Called with (tokens found, tokens wanted)."""

READ_AHEAD = 6  # threads that read and search
LEAST_TOKENS = 1024  # of each source of a mixture
CHOICE = 1  # part of the cache's key: a change of how documents are chosen raises it


@dataclass(frozen=True)
class ValidationSet:
    """Documents one after the other, each followed by end-of-text.

    tokens: (N,), the tokenizer's dtype. doc_starts: (documents,) int64. bytes: of the documents' UTF-8 text;
    end-of-text has none. sha256: of tokens, starts and bytes, so that two results are compared on the same text only.
    parts: of a mixture, the set of each source by its name, in the order in which they follow each other.
    """

    tokens: np.ndarray
    doc_starts: np.ndarray
    bytes: int
    sha256: str
    parts: Mapping[str, ValidationSet] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        return len(self.doc_starts)


def validation_set(
    manifest: Manifest,
    reader: BlockReader,
    tokenizer: Tokenizer,
    data: DataConfig,
    cache_dir: Path,
    progress: Progress | None = None,
    clock: Clock | None = None,
    anew: bool = False,
) -> ValidationSet:
    """The set for this source, tokenizer, fraction and size; from the cache when its checksum holds and it need not be
    made `anew`, the text being another now.

    Raises UserError when the source holds no such document, TryAgain when it stays out of reach.
    """
    if isinstance(manifest, Mixture):
        return _of_parts(manifest, reader, tokenizer, data, cache_dir, progress, clock, anew)
    data = settled(data, manifest)
    if data.validation_fraction <= 0:
        raise UserError(
            "data.validation_fraction=0 keeps no document for validation; allowed: above 0 to 0.5; give, say, 0.01"
        )
    path = _cache_path(manifest, tokenizer, data, Path(cache_dir))
    with one_at_a_time(path, Path(cache_dir)):
        found = None if anew else _load(path)
        if found is None:
            found = _collect(manifest, reader, tokenizer, data, progress, clock or Clock())
            _save(path, found, Path(cache_dir))
    return found


def _of_parts(
    mixture: Mixture, reader: BlockReader, tokenizer: Tokenizer, data: DataConfig, cache_dir: Path,
    progress: Progress | None, clock: Clock | None, anew: bool,
) -> ValidationSet:  # fmt: skip
    """Each source's set, of at most an equal part of data.validation_tokens: whatever the weights are, the same sources
    are measured on the same documents."""
    readers = reader.readers if isinstance(reader, MixedReader) else ()
    each = max(LEAST_TOKENS, data.validation_tokens // len(mixture.parts))
    found: dict[str, ValidationSet] = {}
    for part, own in zip(mixture.parts, readers, strict=True):
        done = sum(len(before.tokens) for before in found.values())
        told = None if progress is None else partial(_told, progress, done, data.validation_tokens)
        settings = part.own(data).model_copy(update={"validation_tokens": each})
        try:
            found[part.name] = validation_set(part.manifest, own, tokenizer, settings, cache_dir, told, clock, anew)
        except UserError as error:
            raise UserError(f"data.mix, source {part.name}: {error}") from error
    return together(found)


def together(found: Mapping[str, ValidationSet]) -> ValidationSet:
    """The sets of several sources as the parts of one."""
    sizes = np.cumsum([0, *(len(one.tokens) for one in found.values())])[:-1]
    tokens = np.concatenate([one.tokens for one in found.values()])
    starts = np.concatenate([one.doc_starts + size for one, size in zip(found.values(), sizes, strict=True)])
    text_bytes = sum(one.bytes for one in found.values())
    return ValidationSet(tokens, starts, text_bytes, _sha256(tokens, starts, text_bytes), found)


def _told(progress: Progress, done: int, wanted: int, now: int, _: int) -> None:
    progress(min(done + now, wanted), wanted)


def windows(tokens: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets), both (n, block_size) int64: contiguous, with stride block_size.

    Every token but the first is a target once.
    The last window is filled up with input 0 and target IGNORE.
    """
    from mygpt2.model.loss import IGNORE  # here: the text of a validation set is had without torch

    targets = len(tokens) - 1
    if targets < 1:
        raise ValueError(f"{len(tokens)} tokens make no target")
    n = -(-targets // block_size)
    x = np.zeros(n * block_size, dtype=np.int64)
    y = np.full(n * block_size, IGNORE, dtype=np.int64)
    x[:targets] = tokens[:-1]
    y[:targets] = tokens[1:]
    return x.reshape(n, block_size), y.reshape(n, block_size)


def check_disjoint(validation: ValidationSet, documents: Iterator[np.ndarray]) -> int:
    """Number of the given tokenized documents (without end-of-text) that are in the validation set; must be 0."""
    ends = np.append(validation.doc_starts[1:], len(validation.tokens))
    dtype = validation.tokens.dtype
    known = {validation.tokens[a : b - 1].tobytes() for a, b in zip(validation.doc_starts, ends, strict=True)}
    return sum(np.ascontiguousarray(ids, dtype=dtype).tobytes() in known for ids in documents)


def _collect(
    manifest: Manifest,
    reader: BlockReader,
    tokenizer: Tokenizer,
    data: DataConfig,
    progress: Progress | None,
    clock: Clock,
) -> ValidationSet:
    parts: list[np.ndarray] = []
    starts: list[int] = []
    size = text_bytes = 0
    left_out: Counter[str] = Counter()
    dependable = Dependable(reader, manifest)
    for _, documents in scan(dependable, manifest, spread(len(manifest)), data, threads=READ_AHEAD, clock=clock):
        if isinstance(documents, Unreadable):
            left_out[f"part unreadable ({documents.reason})"] += 1
            continue  # the training loader reports it and leaves it out as well
        numbers, others = chosen(documents, data, held_out=True)
        left_out += others
        found = [documents[number] for number in numbers]
        if manifest.kind == "tokens":
            check_ids(found, tokenizer, data)
        for ids, n_bytes in _tokenized(found, tokenizer):
            if parts and size + len(ids) + 1 > data.validation_tokens:
                return _finished(parts, starts, text_bytes, tokenizer)
            starts.append(size)
            parts += [ids, np.array([tokenizer.eot_id])]
            size += len(ids) + 1
            text_bytes += n_bytes
        if progress:
            progress(size, data.validation_tokens)
    if not parts and not left_out["not_held_out"]:
        raise no_text(manifest, left_out)
    if not parts:
        raise UserError(
            f"none of the {left_out['not_held_out']:,} documents of source={shown(manifest.source)} falls into "
            f"data.validation_fraction={data.validation_fraction}; raise the fraction (0.1, say) or give a source with "
            "more documents"
        )
    return _finished(parts, starts, text_bytes, tokenizer)


def _finished(parts: list[np.ndarray], starts: list[int], text_bytes: int, tokenizer: Tokenizer) -> ValidationSet:
    tokens = np.concatenate(parts).astype(tokenizer.dtype)
    doc_starts = np.array(starts, dtype=np.int64)
    return ValidationSet(tokens, doc_starts, text_bytes, _sha256(tokens, doc_starts, text_bytes))


def _tokenized(documents: list[Any], tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, int]]:
    """(ids, bytes of text) of each document."""
    if documents and isinstance(documents[0], str):
        for text, ids in zip(documents, tokenizer.encode_batch(documents), strict=True):
            yield np.asarray(ids), len(text.encode())
    else:
        for ids in documents:
            yield np.asarray(ids), len(tokenizer.decode_bytes(ids))


def _sha256(tokens: np.ndarray, doc_starts: np.ndarray, text_bytes: int) -> str:
    digest = hashlib.sha256(f"{tokens.dtype.itemsize} {len(tokens)} {text_bytes}\n".encode())
    digest.update(tokens.astype(tokens.dtype.newbyteorder("<")).tobytes())
    digest.update(doc_starts.astype("<i8").tobytes())
    return digest.hexdigest()


def _cache_path(manifest: Manifest, tokenizer: Tokenizer, data: DataConfig, cache_dir: Path) -> Path:
    what = (CHOICE, manifest.fingerprint, tokenizer.fingerprint, data.validation_fraction, data.validation_tokens)
    key = hashlib.sha256(repr((*what, data.max_document_chars)).encode()).hexdigest()[:24]
    return cache_dir / "validation" / f"{key}.safetensors"


def _save(path: Path, found: ValidationSet, cache_dir: Path) -> None:
    arrays = {"tokens": found.tokens, "doc_starts": found.doc_starts}
    content = save(arrays, metadata={"bytes": str(found.bytes), "sha256": found.sha256})
    try:
        replace_file(path, content)
    except OSError as error:
        say_unwritable(cache_dir, error)


def _load(path: Path) -> ValidationSet | None:
    """The set as saved, or None if there is none or its checksum fails: it is made again then, and that is said."""
    try:
        with safe_open(path, framework="numpy") as f:
            notes = f.metadata() or {}
            found = ValidationSet(
                f.get_tensor("tokens"), f.get_tensor("doc_starts"), int(notes.get("bytes", -1)), notes.get("sha256", "")
            )
        if _sha256(found.tokens, found.doc_starts, found.bytes) == found.sha256:
            return found
    except OSError:
        return None
    except (SafetensorError, ValueError, TypeError):  # what damage makes of its head
        say_damaged(path)
        return None
    say_damaged(path)
    return None
