"""From what a person writes as `--protocol` to a token stream: a published protocol, a run's held-out set, a path."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mygpt2.checkpoint import read_state
from mygpt2.checkpoint.format import MANIFEST
from mygpt2.config import RunConfig, load_config
from mygpt2.config.schema import DataConfig
from mygpt2.data.sources.local.formats import tokens_layout
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.resolve import open_reader, open_settled, resolve
from mygpt2.data.validation import validation_set
from mygpt2.errors import UserError
from mygpt2.evals.hub import Progress, documents_in_order, hub_stream
from mygpt2.evals.protocols import PROTOCOLS, WINDOW, Quoted
from mygpt2.evals.stream import TokenStream, cached, held_out_stream, joined, make_stream, split_at
from mygpt2.machine import home_path
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer import Tokenizer, load_tokenizer

THREADS = 4  # that read and tokenize a local source


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
    """The text of a protocol's name, of `run` (the held-out set of the run that `model` is of), `run:NAME`, or a path.

    UserError for anything else, and for a text that cannot be had; TryAgain when the hub stays out of reach.
    """
    if name in PROTOCOLS:
        return _published(name, tokenizer, cache_dir, progress)
    if name == "run" or name.startswith("run:"):
        config = run_config(name.partition(":")[2] or model, runs)
        return Text(name, held_out(config.data, tokenizer, cache_dir, progress))
    if not home_path(name).exists():
        near = difflib.get_close_matches(name, [*PROTOCOLS, "run"], n=1)
        raise UserError(
            f"--protocol {name} is no protocol and no path; allowed: {', '.join(PROTOCOLS)}, run, run:NAME, or "
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


def run_config(spec: str, runs: Path | str) -> RunConfig:
    """The configuration of a run (name or folder) or of the run a checkpoint is of. UserError if it is neither."""
    path = home_path(spec)
    if (path / MANIFEST).is_file():
        return RunConfig.model_validate(read_state(path)["config"])
    run = RunDir(path) if RunDir(path).exists() else RunDir(Path(runs) / spec) if path.name == spec else None
    if run is None or not run.config_file.is_file():
        raise UserError(
            f"--protocol run is the held-out set of a run and {spec} is none; give --protocol run:NAME "
            f"with a run of {runs}"
        )
    return load_config(file=run.config_file)


def held_out(data: DataConfig, tokenizer: Tokenizer, cache_dir: Path, progress: Progress | None = None) -> TokenStream:
    """The validation set of a run with these data settings, in this tokenizer's tokens."""
    manifest = resolve(data.source, data, cache_dir=cache_dir)
    manifest, reader = open_settled(manifest, data, cache_dir=cache_dir, eot_id=tokenizer.eot_id)
    try:
        return held_out_stream(validation_set(manifest, reader, tokenizer, data, cache_dir, progress), tokenizer)
    finally:
        reader.close()


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

        def read() -> Iterator[np.ndarray]:
            yield from documents_in_order(reader, manifest, tokenizer, data, THREADS)

        known = manifest.documents or 0
        try:
            tokens, starts = joined(
                read(), tokenizer, before=False,
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
