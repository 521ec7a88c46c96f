"""From what a person writes as `data.source` to a manifest, and from a manifest to a reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.hub.names import ALLOWED
from mygpt2.data.sources.manifest import Kind, Manifest
from mygpt2.data.sources.mixture import MixedReader, Mixture, by_size, joined
from mygpt2.errors import TryAgain, UserError, shown
from mygpt2.machine import cache_folder, home_path
from mygpt2.progress import progress_bar

if TYPE_CHECKING:
    from mygpt2.data.scan import BlockReader
    from mygpt2.data.sources.local.formats import LocalReader

_FILE_ENDING = re.compile(r"\.(parquet|jsonl|json|arrow|feather|tar|tgz|csv|txt|md|bin|npy|pt|gz|zst)$", re.IGNORECASE)


def resolve(
    source: str,
    data: DataConfig,
    *,
    cache_dir: Path,
    progress: Callable[[int, int], None] | None = None,
    only: Kind | None = None,
) -> Manifest:
    """The manifest of a source. What exists as a path is taken as one, before any name of the hub.

    `only`: the files of this kind, of a path with several kinds (`local.find.kinds_in` tells them).

    UserError when it is neither, or cannot be used; TryAgain when the hub stays out of reach. `progress(done, all)` is
    called while something slow is done for the first time: harvesting `pydocs`, reading footers on the hub.
    """
    from mygpt2.data.sources.local.folder import resolve_local

    if source == "pydocs":
        from mygpt2.data.sources.pydocs.corpus import harvest

        return resolve_local(source, harvest(cache_dir, progress), data)
    path = home_path(source)
    if path.exists():
        return resolve_local(source, path, data, only, cache_dir)
    if source.startswith(("/", ".", "~")) or source.partition("@")[0].count("/") > 1 or _FILE_ENDING.search(source):
        raise UserError(f"data.source={shown(source)} does not exist; allowed: {ALLOWED}; check the path")
    from mygpt2.data.sources.hub.dataset import HubSource

    with HubSource(source, data, cache_dir) as hub:
        return hub.manifest(progress)


def resolve_data(data: DataConfig, *, cache_dir: Path, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """The manifest of what is configured: a source, a folder of several kinds, or a mixture.

    Errors as `resolve`'s, with the name of the mixture's source before them.
    """
    if not data.mix:
        return _whole(data, cache_dir, progress)
    found = []
    for source in data.mix:
        with _named(source.name):
            found.append(_whole(data.of(source), cache_dir, progress))
    return joined(data, found)


@contextmanager
def _named(name: str, mixed: bool = True) -> Iterator[None]:
    """What goes wrong with a source of a mixture says of which; `mixed`: whether data.mix names it."""
    try:
        yield
    except UserError as error:
        kind = TryAgain if isinstance(error, TryAgain) else UserError
        raise kind(f"data.mix, source {name}: {error}" if mixed else f"{name}: {error}") from error


def _whole(data: DataConfig, cache_dir: Path, progress: Callable[[int, int], None] | None) -> Manifest:
    """The manifest of one source, all of its kinds."""
    from mygpt2.data.sources.local.find import kinds_in

    path = home_path(data.source)
    kinds = kinds_in(path) if data.source != "pydocs" and path.is_dir() else {}
    if len(kinds) < 2:
        return resolve(data.source, data, cache_dir=cache_dir, progress=progress)
    return by_size(data.source, {kind: resolve(data.source, data, cache_dir=cache_dir, only=kind) for kind in kinds})


@contextmanager
def opened(data: DataConfig, eot_id: int = 0, *, whole: bool = False) -> Iterator[tuple[Manifest, BlockReader, Path]]:
    """(manifest, reader, cache folder) of the configured source: as training has it, or every document.

    A bar tells how far the resolving is.
    """
    caches = cache_folder(data.cache_dir)
    with progress_bar(f"resolve {shown(data.text)}", "parts") as advance:
        manifest = resolve_data(data, cache_dir=caches, progress=advance)
    if whole:
        reader = open_reader(manifest, cache_dir=caches, eot_id=eot_id)
    else:
        manifest, reader = open_settled(manifest, data, cache_dir=caches, eot_id=eot_id)
    with closing(reader):
        yield manifest, reader, caches


def open_settled(manifest: Manifest, data: DataConfig, *, cache_dir: Path, eot_id: int) -> tuple[Manifest, BlockReader]:
    """The reader, and the manifest with what is held out of a small source: for training, and for looking at it."""
    from mygpt2.data.heldout import settle

    if isinstance(manifest, Mixture):
        return _settled_parts(manifest, data, cache_dir, eot_id)
    reader = open_reader(manifest, cache_dir=cache_dir, eot_id=eot_id, outage_minutes=data.outage_minutes)
    try:
        settled = settle(manifest, reader, data, cache_dir)
    except BaseException:
        reader.close()
        raise
    if settled.pieces:
        reader = open_reader(settled, cache_dir=cache_dir, eot_id=eot_id, outage_minutes=data.outage_minutes)
    return settled, reader


def _settled_parts(mixture: Mixture, data: DataConfig, cache_dir: Path, eot_id: int) -> tuple[Mixture, BlockReader]:
    parts, readers = [], []
    try:
        for part in mixture.parts:
            own = part.own(data)
            with _named(part.name, bool(data.mix)):
                settled, reader = open_settled(part.manifest, own, cache_dir=cache_dir, eot_id=eot_id)
            parts.append(replace(part, manifest=settled))
            readers.append(reader)
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    settled_mixture = Mixture.of(mixture.source, parts)
    return settled_mixture, MixedReader(settled_mixture, readers)


def open_reader(
    manifest: Manifest, *, cache_dir: Path, eot_id: int, outage_minutes: float | None = None
) -> BlockReader:
    """The reader of a manifest's blocks. `eot_id` is where pre-tokenized files are cut into documents."""
    if isinstance(manifest, Mixture):
        each = (part.manifest for part in manifest.parts)
        return MixedReader(
            manifest,
            [open_reader(one, cache_dir=cache_dir, eot_id=eot_id, outage_minutes=outage_minutes) for one in each],
        )
    if manifest.pieces:
        from mygpt2.data.heldout import InPieces

        uncut = replace(manifest, pieces=0)
        whole = open_reader(uncut, cache_dir=cache_dir, eot_id=eot_id, outage_minutes=outage_minutes)
        return InPieces(whole, manifest.pieces)
    if manifest.revision is not None:
        from mygpt2.data.sources.hub.dataset import open_hub

        return open_hub(manifest, cache_dir, outage_minutes=outage_minutes)
    from mygpt2.data.sources.local.arrow import ArrowReader
    from mygpt2.data.sources.local.formats import JsonlReader, ParquetReader, TextReader, TokensReader
    from mygpt2.data.sources.local.tar import TarReader

    if manifest.kind == "tokens":
        return TokensReader(manifest, eot_id)
    readers: dict[Kind, type[LocalReader]] = {
        "parquet": ParquetReader, "jsonl": JsonlReader, "arrow": ArrowReader, "tar": TarReader, "txt": TextReader,
    }  # fmt: skip
    return readers[manifest.kind](manifest)
