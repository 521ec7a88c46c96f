"""The first part of one file of a dataset on the hub, and no more of it than is needed."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.config.schema import DataConfig
from mygpt2.data.scan import scan
from mygpt2.data.sources.faults import Clock, Unreadable
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import HubSource, hub_cache
from mygpt2.data.sources.hub.names import glob_escape
from mygpt2.data.sources.hub.parquet import Footers, HubParquetReader
from mygpt2.data.sources.local.formats import TOKENS_HEADER
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.errors import UserError
from mygpt2.evals.protocols import HubProtocol, header_tokens
from mygpt2.evals.stream import TokenStream, joined, make_stream, split_at
from mygpt2.files import replace_file
from mygpt2.tokenizer import Tokenizer

READ_AHEAD = 4  # row groups
CHUNK = 8 << 20  # bytes of a range request

Progress = Callable[[int, int], None]
"""Called with (done, all), in tokens, documents or bytes."""


class HubFile:
    """One file of a dataset at the commit that `main`, or the revision in its name, points to now."""

    def __init__(
        self, repo: str, path: str, cache_dir: Path, *, client: HubClient | None = None, clock: Clock | None = None
    ) -> None:
        self.client = client or HubClient(clock=clock)
        self._own = client is None
        self._clock, self._cache = clock, cache_dir
        self.hub = HubSource(repo, DataConfig(), cache_dir, self.client, clock)
        self.hub.name = dataclasses.replace(self.hub.name, pattern=glob_escape(path) if "*" not in path else path)
        found = self.hub.files()
        if len(found) != 1:
            raise UserError(f"{repo} has {len(found) or 'no'} files {path} at {self.hub.name.revision}; it was changed")
        self.file: SourceFile = found[0]

    def close(self) -> None:
        if self._own:
            self.client.close()

    @property
    def origin(self) -> dict[str, Any]:
        """Where the bytes come from, for the result."""
        commit = re.search(r"/resolve/([0-9a-f]{40})/", self.file.location)
        return {
            "repo": self.hub.name.repo,
            "commit": commit[1] if commit else self.hub.name.revision,
            "file": self.file.name,
            "identity": self.file.identity,
        }

    def read(self, start: int, stop: int, progress: Progress | None = None) -> bytes:
        """A stretch of the file."""
        parts = []
        for at in range(start, stop, CHUNK):
            end = min(at + CHUNK, stop)
            parts.append(self.hub.patiently(partial(self._range, at, end)))
            if progress:
                progress(end - start, stop - start)
        return b"".join(parts)

    def _range(self, start: int, stop: int) -> bytes:
        return self.client.range(self.file.location, start, stop, size=self.file.size, identity=self.file.identity)

    def documents(self, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
        """The tokenized documents of a parquet file in its order, empty ones left out."""
        footers = Footers(hub_cache(self._cache), self.client)
        metadata = self.hub.patiently(lambda: footers.get(self.file))
        rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        manifest = Manifest(
            self.hub.name.source, "parquet", "", self.hub.data.text_column, (self.file,),
            make_blocks(0, range(len(rows)), 0, -1, rows),
        )  # fmt: skip
        reader = HubParquetReader(manifest, self.client, footers)
        yield from documents_in_order(reader, manifest, tokenizer, self.hub.data, READ_AHEAD, self._clock)


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
    source = HubFile(protocol.repo, protocol.file, cache_dir, client=client, clock=clock)
    try:
        if protocol.end_of_text == "in file":
            tokens, starts = _published(source, protocol, tokenizer, progress)
        else:
            wanted = protocol.documents or (protocol.targets or 0) + 1
            tokens, starts = joined(
                source.documents(tokenizer), tokenizer, before=protocol.end_of_text == "before",
                most_documents=protocol.documents, most_targets=protocol.targets,
                progress=(lambda done: progress(min(done, wanted), wanted)) if progress else None,
            )  # fmt: skip
        origin = source.origin
    finally:
        source.close()
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
    source: HubFile, protocol: HubProtocol, tokenizer: Tokenizer, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens as published, and where their documents begin."""
    size = source.file.size
    there = header_tokens(source.read(0, min(TOKENS_HEADER, size)), size, f"{protocol.file} of {protocol.repo}")
    count = min(there, (protocol.targets or there - 1) + 1)
    tokens = np.frombuffer(source.read(TOKENS_HEADER, TOKENS_HEADER + 2 * count, progress), "<u2")
    return tokens, split_at(tokens, tokenizer.eot_id)


def download(repo: str, pattern: str, path: Path, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The whole file, kept at `path` once its content has the identity the hub lists. Asked for once."""
    if path.is_file():
        return path
    source = HubFile(repo, pattern, cache_dir)
    try:
        content = source.read(0, source.file.size, progress)
        identity = source.file.identity
    finally:
        source.close()
    own = hashlib.sha256(content) if len(identity) == 64 else hashlib.sha1(b"blob %d\0" % len(content) + content)
    if own.hexdigest() != identity:
        raise UserError(f"{source.file.name} of {repo} arrived damaged; start the same command again")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)
    return path
