"""From what a person writes as `--protocol` to a token stream: a published protocol, a run's held-out set, a path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.checkpoint import read_state
from mygpt2.checkpoint.format import MANIFEST
from mygpt2.config import RunConfig, load_config
from mygpt2.config.data import DataConfig
from mygpt2.config.earlier import renewed
from mygpt2.data.scan import scan
from mygpt2.data.sources.faults import Clock, Unreadable
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import HubSource
from mygpt2.data.sources.hub.parquet import HubParquetReader
from mygpt2.data.sources.local.formats import TOKENS_HEADER, TOKENS_MAGIC, published, tokens_layout
from mygpt2.data.sources.local.unpack import Damaged
from mygpt2.data.sources.manifest import Manifest, SourceFile
from mygpt2.data.sources.resolve import open_reader, open_settled, resolve, resolve_data
from mygpt2.data.validation import ValidationSet, validation_set
from mygpt2.errors import UserError
from mygpt2.evals.protocols import PROTOCOLS, WINDOW, HubProtocol, Quoted
from mygpt2.evals.stream import TokenStream, cached, held_out_stream, joined, make_stream, several, split_at
from mygpt2.evals.union import held_out_of
from mygpt2.machine import home_path
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer import Tokenizer, load_tokenizer

SEVERAL = "runs:"  # before the names of runs, parted by commas
THREADS = 4  # that read and tokenize
CHUNK = 8 << 20  # bytes of a range request

Progress = Callable[[int, int], None]
"""Called with (done, all), in tokens, documents or bytes."""


@dataclass(frozen=True)
class Text:
    """What a loss is measured on. `window` is the protocol's own, None where the model's context is used."""

    protocol: str
    stream: TokenStream
    window: int | None = None
    quoted: tuple[Quoted, ...] = ()

    def window_for(self, block_size: int) -> int:
        """Tokens of a window for a model of this context."""
        return min(self.window or block_size, block_size)

    def quoted_beside(self, window: int, tokenizer: Tokenizer) -> tuple[Quoted, ...]:
        """The quoted figures if a result in these windows and tokens may stand beside them."""
        comparable = window == self.window and tokenizer.fingerprint == load_tokenizer("gpt2").fingerprint
        return self.quoted if comparable else ()


def open_text(
    name: str,
    tokenizer: Tokenizer,
    *,
    cache_dir: Path,
    model: str = "",
    runs: Path | str = "runs",
    text_column: str = "text",
    progress: Progress | None = None,
) -> Text:
    """The text of a protocol's name, of `run` (the held-out set of the run that `model` is of), `run:NAME`, of
    `runs:NAME,NAME` (the held-out documents of every source that one of them trains on), or a path.

    UserError for anything else, and for a text that cannot be had; TryAgain when the hub stays out of reach.
    """
    if name in PROTOCOLS:
        return _published(name, tokenizer, cache_dir, progress)
    if name == "run" or name.startswith("run:"):
        config = run_config(name.partition(":")[2] or model, runs)
        return Text(name, held_out(config.data, tokenizer, cache_dir, progress))
    if name.startswith(SEVERAL):
        data = {each: run_config(each, runs).data for each in name.removeprefix(SEVERAL).split(",")}
        return Text(name, held_out_of_several(data, tokenizer, cache_dir, progress))
    if not home_path(name).exists():
        near = difflib.get_close_matches(name, [*PROTOCOLS, "run"], n=1)
        raise UserError(
            f"--protocol {name} is neither a protocol nor a path; allowed: {', '.join(PROTOCOLS)}, run, run:NAME, or "
            f"the path of text or tokens (a folder or file){f'; did you mean {near[0]}?' if near else ''}"
        )
    try:
        return Text(f"local:{name}", _local(home_path(name), tokenizer, cache_dir, text_column, progress))
    except UserError as error:  # the data layer speaks of a run's settings
        words = str(error).replace("data.source=", "--protocol ").replace("data.text_column", "--text-column")
        raise type(error)(words) from error


def _published(name: str, tokenizer: Tokenizer, cache_dir: Path, progress: Progress | None) -> Text:
    protocol = PROTOCOLS[name]
    if protocol.end_of_text == "in file" and tokenizer.fingerprint != load_tokenizer("gpt2").fingerprint:
        raise UserError(
            f"--protocol {name} is published as GPT-2's tokens and this model's tokenizer is {tokenizer.name}; "
            "choose edu-bn or edu-seed, whose text is tokenized here, and compare bits per byte"
        )
    key = (protocol.name, protocol.repo, protocol.file, protocol.end_of_text, protocol.documents, protocol.targets)
    stream = cached(cache_dir, key, tokenizer, lambda: hub_stream(protocol, tokenizer, cache_dir, progress))
    return Text(name, stream, WINDOW, protocol.quoted)


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
    with HubSource(protocol.repo, DataConfig(), cache_dir, client, clock, protocol.file) as hub:
        file = hub.only_file()
        if protocol.end_of_text == "in file":
            tokens, starts = _published_tokens(hub, file, protocol, tokenizer, progress)
        else:
            wanted = protocol.documents or (protocol.targets or 0) + 1
            manifest = hub.one_file(file)
            reader = HubParquetReader(manifest, hub.client, hub.footers)
            documents = documents_in_order(reader, manifest, tokenizer, hub.data, clock)
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
    commit = re.search(r"/resolve/([0-9a-f]{40})/", file.location)
    origin = {
        "repo": protocol.repo,
        "commit": commit[1] if commit else hub.name.revision,
        "file": file.name,
        "identity": file.identity,
    }
    return make_stream(tokens, starts, tokenizer, origin)


def _published_tokens(
    hub: HubSource, file: SourceFile, protocol: HubProtocol, tokenizer: Tokenizer, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens as published, and where their documents begin."""
    head = hub.part(file, 0, min(TOKENS_HEADER, file.size))
    name = f"{protocol.file} of {protocol.repo}"
    try:
        found = published(head, file.size)
    except Damaged as error:
        raise UserError(f"{name}: {error}; fetch the file again, or give another one") from error
    if found is None or found[1] != "<u2":
        begin = int.from_bytes(head[:4], "little", signed=True)
        raise UserError(f"{name} begins with {begin}, not with the magic {TOKENS_MAGIC}; give another file")
    stop = TOKENS_HEADER + 2 * min(found[0], (protocol.targets or found[0] - 1) + 1)
    parts = []
    for start in range(TOKENS_HEADER, stop, CHUNK):
        parts.append(hub.part(file, start, min(start + CHUNK, stop)))
        if progress:
            progress(min(start + CHUNK, stop), stop)
    tokens = np.frombuffer(b"".join(parts), "<u2")
    return tokens, split_at(tokens, tokenizer.eot_id)


def documents_in_order(
    reader: Any, manifest: Manifest, tokenizer: Tokenizer, data: DataConfig, clock: Clock | None = None
) -> Iterator[np.ndarray]:
    """Tokenized documents of all blocks, in order. A text with a hole is another text: UserError for damaged blocks."""

    def work(_: int, documents: list[Any]) -> list[np.ndarray]:
        return tokenizer.encode_batch([x for x in documents if isinstance(x, str) and x and not x.isspace()])

    blocks = scan(reader, manifest, range(len(manifest)), data, threads=THREADS, work=work, clock=clock)
    for block, found in blocks:
        if isinstance(found, Unreadable):
            raise UserError(f"{manifest.describe(block)} cannot be read ({found.reason}); fetch or make it again")
        yield from found


def run_config(spec: str, runs: Path | str) -> RunConfig:
    """The configuration of a run (name or folder) or of the run a checkpoint is of. UserError if it is neither."""
    path = home_path(spec)
    if (path / MANIFEST).is_file():
        return RunConfig.model_validate(renewed(read_state(path)["config"]))
    run = RunDir(path) if RunDir(path).exists() else RunDir(Path(runs) / spec) if path.name == spec else None
    if run is None or not run.config_file.is_file():
        raise UserError(
            f"--protocol run is the held-out set of a run and {spec} is none; give --protocol run:NAME "
            f"with a run of {runs}"
        )
    return load_config(file=run.config_file)


def held_out(data: DataConfig, tokenizer: Tokenizer, cache_dir: Path, progress: Progress | None = None) -> TokenStream:
    """The validation set of a run with these data settings, in this tokenizer's tokens.

    How much text is in it goes by the run's own tokenizer, so that every model is measured on the same documents.
    Where that one is gone, or does not keep every letter, it goes by the given one.
    """
    try:
        own = load_tokenizer(data.tokenizer)
    except UserError:
        own = tokenizer
    manifest = resolve_data(data, cache_dir=cache_dir)

    def made(tokens_of: Tokenizer) -> ValidationSet:
        settled, reader = open_settled(manifest, data, cache_dir=cache_dir, eot_id=tokens_of.eot_id)
        try:
            return validation_set(settled, reader, tokens_of, data, cache_dir, progress)
        finally:
            reader.close()

    if own.fingerprint != tokenizer.fingerprint and (found := _in_other_tokens(made(own), own, tokenizer)) is not None:
        return found
    return held_out_stream(made(tokenizer), tokenizer)


def held_out_of_several(
    runs: Mapping[str, DataConfig], tokenizer: Tokenizer, cache_dir: Path, progress: Progress | None = None
) -> TokenStream:
    """The held-out documents of the sources of several runs; how much goes by the tokenizer of the first, as of one.

    `origin` says which runs train on each source.
    """
    own = tokenizer
    with suppress(UserError):
        own = load_tokenizer(next(iter(runs.values())).tokenizer)
    found, of = held_out_of(runs, own, cache_dir, progress)
    stream = held_out_stream(found, tokenizer) if own.fingerprint == tokenizer.fingerprint else None
    stream = stream or _in_other_tokens(found, own, tokenizer)
    if stream is None:
        stream = held_out_stream(held_out_of(runs, tokenizer, cache_dir, progress)[0], tokenizer)
    return replace(stream, origin={"sources": of})


def _in_other_tokens(found: ValidationSet, own: Tokenizer, tokenizer: Tokenizer) -> TokenStream | None:
    """The documents of a set in another tokenizer's tokens; None where its own do not say every byte."""
    if found.parts:
        parts = {name: _in_other_tokens(part, own, tokenizer) for name, part in found.parts.items()}
        known = {name: part for name, part in parts.items() if part is not None}
        return several(known, tokenizer) if len(known) == len(parts) else None
    texts = _texts(found, own)
    if texts is None:
        return None
    documents = (np.asarray(ids) for ids in tokenizer.encode_batch(texts))
    tokens, starts = joined(documents, tokenizer, before=False)
    return make_stream(tokens, starts, tokenizer)


def _texts(found: ValidationSet, own: Tokenizer) -> list[str] | None:
    """The documents of a set; None where their tokens do not say every byte."""
    ends = np.append(found.doc_starts[1:], len(found.tokens))
    texts = [own.decode_bytes(found.tokens[a : b - 1]) for a, b in zip(found.doc_starts, ends, strict=True)]
    try:
        return [text.decode() for text in texts] if sum(map(len, texts)) == found.bytes else None
    except UnicodeDecodeError:
        return None


def _local(
    path: Path, tokenizer: Tokenizer, cache_dir: Path, text_column: str, progress: Progress | None
) -> TokenStream:
    """All documents of a file or folder in order, end-of-text after each; a .bin file as it is."""
    data = DataConfig(text_column=text_column)
    manifest = resolve(str(path), data, cache_dir=cache_dir)
    origin = {"files": len(manifest.files), "fingerprint": manifest.fingerprint}
    if manifest.kind == "tokens":
        tokens = _tokens(manifest)
        return make_stream(tokens, split_at(tokens, tokenizer.eot_id), tokenizer, origin)

    def make() -> TokenStream:
        reader = open_reader(manifest, cache_dir=cache_dir, eot_id=tokenizer.eot_id)

        documents = documents_in_order(reader, manifest, tokenizer, data)
        known = manifest.documents or 0
        try:
            tokens, starts = joined(
                documents, tokenizer, before=False,
                progress=(lambda done: progress(done, max(done, known))) if progress else None,
            )  # fmt: skip
        finally:
            reader.close()
        return make_stream(tokens, starts, tokenizer, origin)

    return cached(cache_dir, ("local", manifest.fingerprint), tokenizer, make)


def _tokens(manifest: Manifest) -> np.ndarray:
    """The tokens of pre-tokenized files, one after the other; their headers were checked when they were resolved."""
    layouts = [tokens_layout(file.location) for file in manifest.files]
    return np.concatenate([layout.read(0, layout.count) for layout in layouts])
