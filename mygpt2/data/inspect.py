"""`data inspect`: what a source is made of, as text for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.schema import RunConfig
from mygpt2.data.heldout import chosen
from mygpt2.data.loader import Loader
from mygpt2.data.scan import BlockReader, scan, spread
from mygpt2.data.shape import choose_shapes
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.manifest import WORDS, Manifest
from mygpt2.data.sources.mixture import MixedReader, Mixture, parts_of
from mygpt2.data.tokenize import check_ids
from mygpt2.data.trace import documents_of_step, place_of, trace_files
from mygpt2.data.validation import ValidationSet, check_disjoint
from mygpt2.errors import UserError, shown
from mygpt2.format import file_size
from mygpt2.tokenizer import Tokenizer

SAMPLED_BLOCKS = 3
SHOWN_LANES = 4
SHOWN_CHARS = 88


def describe(
    manifest: Manifest, reader: BlockReader, tokenizer: Tokenizer, config: RunConfig
) -> Iterator[tuple[str, str]]:
    """(label, value) lines on the source as a whole. Tokens are estimated from a few blocks spread over it."""
    if isinstance(manifest, Mixture):
        yield from _mixture(manifest, reader, tokenizer, config)
        return
    yield (
        "source",
        f"{shown(manifest.source)}, {manifest.kind}" + (f", commit {manifest.revision}" if manifest.revision else ""),
    )
    yield "fingerprint", manifest.fingerprint
    yield "files", f"{len(manifest.files):,}, {file_size(manifest.size)}"
    yield "blocks", f"{len(manifest):,} {WORDS[manifest.kind][1]}"
    met, documents, tokens, text_bytes, blocks, left_out = _sampled(manifest, reader, tokenizer, config)
    total = manifest.documents
    by = "" if blocks == len(manifest) else f", by {blocks} of its {len(manifest):,} {WORDS[manifest.kind][1]}"
    guess = met * len(manifest) // max(blocks, 1)
    yield "documents", f"{total:,}" if total is not None else f"about {_three(guess)}{by}"
    if documents and tokens:
        about, each = _three((guess if total is None else total) * tokens / met), tokens / documents
        yield "tokens", f"about {about} of {config.data.tokenizer} ({each:.0f} per document{by})"
        yield "bytes", f"{text_bytes / tokens:.2f} of text per token"
    if left_out:
        yield "left out", f"of the parts sampled: {', '.join(f'{n:,} {why}' for why, n in sorted(left_out.items()))}"
    yield from (("note", note) for note in manifest.notes)


def _three(count: float) -> str:
    """A count that is estimated, to three digits: a few blocks tell no more."""
    return f"{round(float(f'{count:.3g}')):,}"


def estimated_tokens(
    manifest: Manifest, reader: BlockReader, tokenizer: Tokenizer, config: RunConfig
) -> tuple[float, str]:
    """(tokens of a source with its end-of-texts, held-out documents among them; how they are known): counted where they
    lie ready, else from a few blocks spread over it."""
    if manifest.kind == "tokens":
        count = int((manifest.blocks["stop"] - manifest.blocks["start"]).sum())
        return float(count), f"it holds {count:,} tokens"
    _, _, tokens, _, blocks, _ = _sampled(manifest, reader, tokenizer, config)
    estimate = tokens / max(1, blocks) * len(manifest)
    known = "counted" if blocks == len(manifest) else f"by {blocks} of its {len(manifest):,} blocks"
    return estimate, f"it holds about {round(estimate):,} tokens, {known}"


def _mixture(
    mixture: Mixture, reader: BlockReader, tokenizer: Tokenizer, config: RunConfig
) -> Iterator[tuple[str, str]]:
    """Each source by its name, and what a run as it is configured would read of it."""
    yield "mixture", ", ".join(f"{part.name} {100 * part.share:.4g} %" for part in mixture.parts)
    yield "fingerprint", mixture.fingerprint
    readers = reader.readers if isinstance(reader, MixedReader) else ()
    for part, own in zip(mixture.parts, readers, strict=True):
        settings = config.model_copy(update={"data": part.own(config.data)})
        for label, value in describe(part.manifest, own, tokenizer, settings):
            yield f"{part.name}: {label}", value


def _sampled(
    manifest: Manifest, reader: BlockReader, tokenizer: Tokenizer, config: RunConfig
) -> tuple[int, int, int, int, int, Counter[str]]:
    """Of a few blocks: (documents, those taken, their tokens, bytes of their text, blocks, what is left out)."""
    blocks = [block for block, _ in zip(spread(len(manifest)), range(SAMPLED_BLOCKS), strict=False)]
    met = documents = tokens = text_bytes = 0
    left_out: Counter[str] = Counter()
    everything = config.data.model_copy(update={"validation_fraction": 0.0})
    readable = _documents(manifest, reader, config, blocks, left_out)
    for found in readable.values():
        numbers, others = chosen(found, everything)
        left_out += Counter({f"documents {reason.replace('_', ' ')}": count for reason, count in others.items()})
        kept = [found[number] for number in numbers]
        met += len(found)
        if manifest.kind == "tokens":
            check_ids(kept, tokenizer, config.data)
            text_bytes += sum(len(tokenizer.decode_bytes(x)) for x in kept)
        else:
            text_bytes += sum(len(t.encode()) for t in kept)
        ids = kept if manifest.kind == "tokens" else tokenizer.encode_batch(kept)
        documents += len(ids)
        tokens += sum(len(x) + 1 for x in ids)
    return met, documents, tokens, text_bytes, len(readable), left_out


def _documents(
    manifest: Manifest, reader: BlockReader, config: RunConfig, blocks: list[int], unreadable: Counter[str]
) -> dict[int, list[Any]]:
    """The documents of some blocks; unreadable ones are missing, and counted with their reasons."""
    documents = {}
    for block, result in scan(reader, manifest, blocks, config.data, threads=4):
        if isinstance(result, Unreadable):
            unreadable[f"unreadable ({manifest.describe(block)}: {result.reason})"] += 1
        else:
            documents[block] = result
    return documents


def shape(manifest: Manifest, config: RunConfig) -> str:
    """The lanes and the window that a run with this configuration has."""
    sequences = config.train.batch_tokens // config.model.block_size
    found = choose_shapes(config.data, parts_of(manifest, config.data), sequences, 1)
    windows = ", ".join(str(each.window) for each in found)
    return f"{found[0].lanes} x window {windows}, for batches of {sequences} x {config.model.block_size} tokens"


def first_documents(
    manifest: Manifest, reader: BlockReader, tokenizer: Tokenizer, config: RunConfig, cache_dir: Path, count: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(line, ids) of the first documents that the first lanes train on, `count` in all.

    Each lane is opened as if it had a rank of its own, so that no more than these lanes' first blocks are read.
    """
    sequences = config.train.batch_tokens // config.model.block_size
    lanes = choose_shapes(config.data, parts_of(manifest, config.data), sequences, 1)[0].lanes
    shown = min(SHOWN_LANES, lanes, count)
    for lane in range(shown):
        with Loader(
            config.data, tokenizer=tokenizer, block_size=config.model.block_size, batch_sequences=sequences,
            seed=config.data.seed, rank=lane, world_size=lanes, cache_dir=cache_dir, manifest=manifest,
            reader=_Open(reader),
        ) as loader:  # fmt: skip
            while (batch := loader.poll(1.0)) is None:
                pass
            places = list(dict.fromkeys(place for row in batch.provenance for place in row))
        most = count // shown + (lane < count % shown)
        texts = _documents(manifest, reader, config, sorted({block for block, _ in places[:most]}), Counter())
        for block, document in places[:most]:
            found = texts[block][document]
            ready = isinstance(found, np.ndarray)
            ids = found if ready else tokenizer.encode_batch([found])[0]
            text = tokenizer.decode(found) if ready else found
            yield f"lane {lane}  {_place(manifest, block, document)}  {shortened(text)}", ids


class _Open:
    """A reader that several loaders may use one after the other: closing is left to its owner."""

    def __init__(self, reader: BlockReader) -> None:
        self.read = reader.read
        if isinstance(reader, MixedReader):
            self.readers = [_Open(one) for one in reader.readers]

    def close(self) -> None:
        """Nothing."""


def disjointness(validation: ValidationSet, shown: list[np.ndarray]) -> str:
    """What the check of the documents shown against the validation set found."""
    inside = check_disjoint(validation, iter(shown))
    if inside:
        raise RuntimeError(f"{inside} of {len(shown)} training documents are in the validation set")
    return f"none of the {len(shown)} training documents shown is in it"


def step_lines(run_dir: Path, step: int) -> Iterator[str]:
    """Every row of a step of a run: slot, lane, loss, and the documents it was made of. UserError without a trace."""
    rows = documents_of_step(run_dir, step)
    if not rows:
        there = trace_files(run_dir)
        if not there:
            raise UserError(f"--step {step}: {run_dir} has no trace; give a run that was trained with log.trace=true")
        first, last = min(file.first for file in there), max(file.last for file in there)
        held = f"others between {first} and {last}" if first <= step <= last else f"the steps {first} to {last}"
        raise UserError(f"--step {step}: the trace of {run_dir} has {held}; give one of them")
    documents = {place for row in rows for place in row.documents}
    yield f"step {step}: {len(rows)} rows, {len(documents)} documents, mean loss {np.mean([r.loss for r in rows]):.4f}"
    for row in rows:
        places = "; ".join(f"{shown(name)} row group {part} document {i}" for name, part, i in row.documents)
        yield f"slot {row.slot:4d}  lane {row.lane:3d}  epoch {row.epoch}  loss {row.loss:.4f}  {places}"


def _place(manifest: Manifest, block: int, document: int) -> str:
    name, part, number = place_of(manifest, block, document)
    return f"{shown(name)} {part}:{number}"


def shortened(text: str) -> str:
    """The beginning of a text on one line, without control characters."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * SHOWN_CHARS])
    line = " ".join(line.split())
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 3] + "..."
