"""The held-out documents of several runs' sources, each source once: the text on which different mixtures compare.

What is held out of a source does not depend on the weights, so that two runs hold out the same documents of a source
that both train on. Where their shares or sizes differ, the smaller share and the larger size are taken: documents that
none of the runs was trained on, and as many as either is measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import parts_of
from mygpt2.data.sources.resolve import open_settled, resolve_data
from mygpt2.data.validation import LEAST_TOKENS, ValidationSet, together, validation_set
from mygpt2.errors import UserError, shown
from mygpt2.tokenizer import Tokenizer

Progress = Callable[[int, int], None]


@dataclass
class _Held:
    """One source: its settings, and which runs train on it."""

    name: str
    manifest: Manifest
    reader: Any
    data: DataConfig
    runs: list[str]


def held_out_of(
    runs: Mapping[str, DataConfig], tokenizer: Tokenizer, cache_dir: Path, progress: Progress | None = None
) -> tuple[ValidationSet, dict[str, list[str]]]:
    """(the documents of each source as a part of the set, the runs that train on each), by the source's name.

    A source is the same in two runs where its data are, whatever it is called; the first run's name is taken. UserError
    where a run holds nothing out, or a source cannot be had.
    """
    with ExitStack() as stack:
        found: dict[tuple[str, int], _Held] = {}
        for run, data in runs.items():
            if data.validation_fraction <= 0:
                raise UserError(
                    f"run {run!r} holds no document out (data.validation_fraction = 0), and would be measured on what "
                    "it was trained on; give --protocol a text of neither run"
                )
            manifest = resolve_data(data, cache_dir=cache_dir)
            settled, reader = open_settled(manifest, data, cache_dir=cache_dir, eot_id=tokenizer.eot_id)
            stack.enter_context(closing(reader))
            parts, readers = parts_of(settled, data), getattr(reader, "readers", (reader,))
            size = max(LEAST_TOKENS, data.validation_tokens // len(parts)) if len(parts) > 1 else data.validation_tokens
            for part, own in zip(parts, readers, strict=True):
                settings = part.own(data).model_copy(update={"validation_tokens": size})
                _add(found, _Held(part.name or shown(data.source), part.manifest, own, settings, [run]))
        sets = {
            each.name: validation_set(each.manifest, each.reader, tokenizer, each.data, cache_dir, progress)
            for each in found.values()
        }
    return together(sets), {each.name: each.runs for each in found.values()}


def _add(found: dict[tuple[str, int], _Held], new: _Held) -> None:
    key = new.manifest.fingerprint, new.data.max_document_chars
    known = found.get(key)
    if known is None:
        taken = {each.name for each in found.values()}
        name = new.name if new.name not in taken else f"{new.name} of {new.runs[0]}"
        found[key] = _Held(name, new.manifest, new.reader, new.data, new.runs)
        return
    size = max(known.data.validation_tokens, new.data.validation_tokens)
    if new.data.validation_fraction < known.data.validation_fraction:
        known.manifest, known.reader, known.data = new.manifest, new.reader, new.data
    known.data = known.data.model_copy(update={"validation_tokens": size})
    known.runs += new.runs
