"""The first part of one file of a dataset on the hub, and no more of it than is needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.schema import DataConfig
from mygpt2.data.scan import scan
from mygpt2.data.sources.faults import Clock, Unreadable
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import HubSource
from mygpt2.data.sources.hub.fetch import fetch_file
from mygpt2.data.sources.hub.parquet import HubParquetReader
from mygpt2.data.sources.local.formats import TOKENS_HEADER, TOKENS_MAGIC, published
from mygpt2.data.sources.local.unpack import Damaged
from mygpt2.data.sources.manifest import Manifest, SourceFile
from mygpt2.errors import UserError
from mygpt2.evals.protocols import HubProtocol
from mygpt2.evals.stream import TokenStream, joined, make_stream, split_at
from mygpt2.tokenizer import Tokenizer

READ_AHEAD = 4  # row groups
CHUNK = 8 << 20  # bytes of a range request

Progress = Callable[[int, int], None]
"""Called with (done, all), in tokens, documents or bytes."""


@contextmanager
def hub_file(
    repo: str, pattern: str, cache_dir: Path, *, client: HubClient | None = None, clock: Clock | None = None
) -> Iterator[tuple[HubSource, SourceFile]]:
    """One file of a dataset at the commit that `main`, or the revision in its name, points to now."""
    with HubSource(repo, DataConfig(), cache_dir, client, clock, pattern) as hub:
        found = hub.files()
        if len(found) != 1:
            raise UserError(f"{repo} has {len(found) or 'no'} files {pattern} at {hub.name.revision}; it was changed")
        yield hub, found[0]


def _origin(hub: HubSource, file: SourceFile) -> dict[str, Any]:
    """Where the bytes come from, for the result."""
    commit = re.search(r"/resolve/([0-9a-f]{40})/", file.location)
    return {
        "repo": hub.name.repo,
        "commit": commit[1] if commit else hub.name.revision,
        "file": file.name,
        "identity": file.identity,
    }


def documents_in_order(
    reader: Any, manifest: Manifest, tokenizer: Tokenizer, data: DataConfig, threads: int, clock: Clock | None = None
) -> Iterator[np.ndarray]:
    """Tokenized documents of all blocks, in order. A text with a hole is another text: UserError for damaged blocks."""

    def work(_: int, documents: list[Any]) -> list[np.ndarray]:
        return tokenizer.encode_batch([x for x in documents if isinstance(x, str) and x and not x.isspace()])

    blocks = scan(reader, manifest, range(len(manifest)), data, threads=threads, work=work, clock=clock)
    for block, found in blocks:
        if isinstance(found, Unreadable):
            raise UserError(f"{manifest.describe(block)} cannot be read ({found.reason}); fetch or make it again")
        yield from found


def hub_stream(
    protocol: HubProtocol,
    tokenizer: Tokenizer,
    cache_dir: Path,
    progress: Progress | None = None,
    *,
    client: HubClient | None = None,
    clock: Clock | None = None,
) -> TokenStream:
    """The text of a protocol from the hub. UserError when the file holds less than the protocol asks for."""
    with hub_file(protocol.repo, protocol.file, cache_dir, client=client, clock=clock) as (hub, file):
        origin = _origin(hub, file)
        if protocol.end_of_text == "in file":
            tokens, starts = _published(hub, file, protocol, tokenizer, progress)
        else:
            wanted = protocol.documents or (protocol.targets or 0) + 1
            manifest = hub.one_file(file)
            reader = HubParquetReader(manifest, hub.client, hub.footers)
            documents = documents_in_order(reader, manifest, tokenizer, hub.data, READ_AHEAD, clock)
            tokens, starts = joined(
                documents, tokenizer, before=protocol.end_of_text == "before",
                most_documents=protocol.documents, most_targets=protocol.targets,
                progress=(lambda done: progress(min(done, wanted), wanted)) if progress else None,
            )  # fmt: skip
    for what, wanted_size, found in (
        ("documents", protocol.documents, len(starts)),
        ("targets", protocol.targets, len(tokens) - 1),
    ):
        if wanted_size is not None and found != wanted_size:
            raise UserError(
                f"{protocol.name} is {wanted_size:,} {what} and {protocol.file} of {protocol.repo} holds {found:,}; "
                "the dataset was changed, the protocol cannot be followed"
            )
    return make_stream(tokens, starts, tokenizer, origin)


def _published(
    hub: HubSource, file: SourceFile, protocol: HubProtocol, tokenizer: Tokenizer, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens as published, and where their documents begin."""
    head = hub.part(file, 0, min(TOKENS_HEADER, file.size))
    name = f"{protocol.file} of {protocol.repo}"
    try:
        found = published(head, file.size)
    except Damaged as error:
        raise UserError(f"{name}: {error}; fetch the file again, or give another one") from error
    if found is None:
        begin = int.from_bytes(head[:4], "little", signed=True)
        raise UserError(f"{name} begins with {begin}, not with the magic {TOKENS_MAGIC}; give another file")
    there, _ = found
    stop = TOKENS_HEADER + 2 * min(there, (protocol.targets or there - 1) + 1)
    parts = []
    for start in range(TOKENS_HEADER, stop, CHUNK):
        parts.append(hub.part(file, start, min(start + CHUNK, stop)))
        if progress:
            progress(min(start + CHUNK, stop), stop)
    tokens = np.frombuffer(b"".join(parts), "<u2")
    return tokens, split_at(tokens, tokenizer.eot_id)


def download(repo: str, pattern: str, path: Path, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The whole file, kept at `path` once its content has the identity the hub lists. Asked for once."""
    if path.is_file():
        return path
    with hub_file(repo, pattern, cache_dir) as (hub, file):
        done = 0

        def more(size: int) -> None:
            nonlocal done
            done += size
            if progress:
                progress(done, file.size)

        return fetch_file(file, path, hub, more)
