"""`data inspect|fetch|prepare`: look at a source, copy it from the hub, or tokenize it once for all."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.config import RunConfig, preset_names
from mygpt2.errors import UserError, shown
from mygpt2.launch.request import read_config
from mygpt2.machine import home_path
from mygpt2.progress import Bar, progress_bar

if TYPE_CHECKING:
    from mygpt2.data.sources.manifest import Manifest

TAKES_SETTINGS = True  # --data.text_column and the like
ACTIONS = ("inspect", "fetch", "prepare")
DEFAULT_PRESET = "tiny"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} {{{','.join(ACTIONS)}}} [SOURCE] [--section.key VALUE ...] [options]"
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("--source", metavar="S", help="data source, also without this word (that of the preset)")
    parser.add_argument("--preset", metavar="NAME", help=f"settings to start from: {', '.join(preset_names())} (tiny)")
    parser.add_argument("--config", metavar="FILE.toml", type=Path, help="settings that go before the preset's")
    look = parser.add_argument_group("inspect")
    look.add_argument("--run", metavar="NAME", help="look at a run's data instead, with --step at one of its batches")
    look.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    look.add_argument("--step", metavar="N", type=int, help="show the documents of this step of --run")
    look.add_argument("--documents", metavar="N", type=int, default=8, help="first documents to show (8)")
    look.add_argument(
        "--validation", action="store_true", help="make the validation set and check what is shown against it"
    )
    look.add_argument(
        "--forecast", action="store_true", help="foretell ripples from the footers of parquet files alone"
    )
    copy = parser.add_argument_group("fetch")
    copy.add_argument("--files", metavar="N", type=int, help="only the first N files")
    copy.add_argument("--text-only", action="store_true", help="only the text column of parquet files")
    make = parser.add_argument_group("prepare")
    make.add_argument("--tokenizer", metavar="T", help="tokenizer (data.tokenizer of the preset or file)")
    make.add_argument("--shard-tokens", metavar="N", type=int, default=100_000_000, help="tokens per file (100000000)")
    both = parser.add_argument_group("fetch and prepare")
    both.add_argument("--out", metavar="DIR", type=Path, help="folder to write (fetch: ./data/NAME OF THE SOURCE)")


def run(args: argparse.Namespace) -> int:
    if args.action == "inspect" and args.step is not None:
        return _inspect_step(args)
    config = _config(args)
    if config.data.mix and (args.action != "inspect" or args.forecast):
        what = "inspect --forecast" if args.forecast else args.action
        raise UserError(
            f"data {what} works on one source, and data.mix has {len(config.data.mix)} ({config.data.text}); give one "
            f"of them: python -m mygpt2 data {what} {shlex.quote(config.data.mix[0].source)}"
        )
    return {"inspect": _inspect, "fetch": _fetch, "prepare": _prepare}[args.action](args, config)


def _config(args: argparse.Namespace) -> RunConfig:
    """The configuration that presets, files, a run and options give."""
    bare, settings = _bare_words(args.settings)
    sources = [*bare, *([] if args.source is None else [args.source])]
    if len(sources) > 1:
        raise UserError(f"{' and '.join(map(shlex.quote, sources))} are {len(sources)} sources; give one")
    for name, value in (("data.source", sources[0] if sources else None), ("data.tokenizer", args.tokenizer)):
        if value is not None:
            settings += [f"--{name}", value]
    preset, file = args.preset, args.config
    if args.run is not None:
        from mygpt2.run_dir.paths import RunDir

        file = RunDir.open(args.runs, args.run).config_file
    elif preset is None and file is None:
        preset = DEFAULT_PRESET
    return read_config(preset, file, settings)


def _bare_words(words: list[str]) -> tuple[list[str], list[str]]:
    """(words that stand alone, options with their values)."""
    bare, options = [], []
    queue = list(reversed(words))
    while queue:
        word = queue.pop()
        if not word.startswith("--"):
            bare.append(word)
            continue
        options.append(word)
        if "=" not in word and queue and not queue[-1].startswith("--"):
            options.append(queue.pop())
    return bare, options


def _inspect_step(args: argparse.Namespace) -> int:
    if args.run is None:
        raise UserError(f"--step {args.step} needs a run; give --run NAME (python -m mygpt2 runs list)")
    from mygpt2.data.inspect import step_lines
    from mygpt2.run_dir.paths import RunDir

    for line in step_lines(RunDir.open(args.runs, args.run).path, args.step):
        print(line)
    return 0


def _inspect(args: argparse.Namespace, config: RunConfig) -> int:
    if args.forecast:
        return _foretell(config)
    from mygpt2.data.inspect import describe, disjointness, first_documents, shape
    from mygpt2.data.validation import validation_set

    if args.documents < 1:
        raise UserError(f"--documents {args.documents} shows nothing; give 1 or more")
    wide = max((len(source.name) + len(": fingerprint") for source in config.data.mix), default=12)
    with _opened(config) as (manifest, reader, tokenizer, caches):
        for label, value in describe(manifest, reader, tokenizer, config):
            print(f"{label:<{wide}} {value}", flush=True)
        print(f"{'lanes':<{wide}} {shape(manifest, config)}", flush=True)
        if args.run is not None:
            for number, line in enumerate(_coverage(args, manifest)):
                print(f"{'' if number else 'read so far':<{wide}} {line}", flush=True)
        print("\nfirst documents in training order", flush=True)
        ids = []
        for line, document in first_documents(manifest, reader, tokenizer, config, caches, args.documents):
            print(f"  {line}", flush=True)
            ids.append(document)
        if args.validation:
            with progress_bar("validation set", "tokens") as advance:
                found = validation_set(manifest, reader, tokenizer, config.data, caches, advance)
            print(
                f"\nvalidation   {len(found.tokens):,} tokens in {found.documents:,} documents, {found.bytes:,} bytes"
            )
            print(f"{'':<12} sha256 {found.sha256}\n{'':<12} {disjointness(found, ids)}")
    return 0


def _coverage(args: argparse.Namespace, manifest: Manifest) -> list[str]:
    """What a run had read at its newest checkpoint; of a mixture, of each source as well."""
    from mygpt2.checkpoint.format import read_state
    from mygpt2.checkpoint.store import candidates
    from mygpt2.data.ledger import coverage
    from mygpt2.run_dir.paths import RunDir

    for path in candidates(RunDir.open(args.runs, args.run).checkpoints_dir):
        try:
            found = coverage(read_state(path)["data"], manifest)
            return [f"{found} (at {path.name})", *map(str, found.sources)]
        except (OSError, LookupError, TypeError, ValueError):  # damaged, deleted meanwhile, or of other data
            continue
    return ["no checkpoint tells"]


def _foretell(config: RunConfig) -> int:
    from mygpt2.data.sources.resolve import resolve
    from mygpt2.machine import cache_folder
    from mygpt2.ripples.footer import footer_forecast, forecast_lines, read_groups

    caches = cache_folder(config.data.cache_dir)
    with progress_bar(f"resolve {shown(config.data.source)}", "parts") as advance:
        manifest = resolve(config.data.source, config.data, cache_dir=caches, progress=advance)
    with _footers(manifest, config, caches) as footer:
        groups = read_groups(manifest, footer)
    for line in forecast_lines(footer_forecast(manifest, groups)):
        print(line)
    return 0


@contextmanager
def _footers(manifest: Manifest, config: RunConfig, caches: Path) -> Iterator[Callable[[Any], Any]]:
    """What gives the parquet footer of a file of the manifest; those on the hub are kept from when it was resolved."""
    from mygpt2.ripples.footer import local_footer

    if manifest.revision is None:
        yield local_footer
        return
    from mygpt2.data.sources.hub.dataset import HubSource

    with HubSource(config.data.source, config.data, caches) as hub:
        yield hub.footer


@contextmanager
def _opened(config: RunConfig, whole: bool = False) -> Iterator[tuple[Manifest, Any, Any, Path]]:
    """(manifest, reader, tokenizer, cache folder) of the configured source: as training has it, or every document."""
    from mygpt2.data.sources.resolve import opened
    from mygpt2.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.data.tokenizer)
    with opened(config.data, tokenizer.eot_id, whole=whole) as (manifest, reader, caches):
        yield manifest, reader, tokenizer, caches


def _fetch(args: argparse.Namespace, config: RunConfig) -> int:
    from mygpt2.data.sources.filters import Filters
    from mygpt2.data.sources.hub.dataset import HubSource
    from mygpt2.data.sources.hub.fetch import check_space, fetch_file, fetch_text, place_of
    from mygpt2.machine import cache_folder

    source = config.data.source
    if source == "pydocs" or home_path(source).exists():
        raise UserError(f"source={source} is on this machine already; fetch takes a dataset on the hub")
    if args.files is not None and args.files < 1:
        raise UserError(f"--files {args.files} fetches nothing; give 1 or more, or leave it out for all")
    if args.text_only and (filters := Filters.of(config.data)):
        raise UserError(
            f"--text-only leaves out the columns that {filters} looks at; fetch without --text-only, or without filters"
        )
    out = args.out or Path("data") / source.replace("/", "--").replace(":", "--").replace("@", "--")
    caches = cache_folder(config.data.cache_dir)
    with HubSource(source, config.data, caches) as hub:
        files = (list(hub.manifest().files) if args.text_only else hub.files())[: args.files]
        there = sum(f.size for f in files if (out / f.name).is_file())
        total = sum(f.size for f in files)
        check_space(out, total - there)
        with Bar(str(out), "B", total) as bar:
            for file in files:
                (fetch_text if args.text_only else fetch_file)(file, place_of(file, out), hub, bar.add)
    print(f"{len(files)} files in {out}; train on them with --data.source {shlex.quote(str(out))}")
    return 0


def _prepare(args: argparse.Namespace, config: RunConfig) -> int:
    from mygpt2.data.loader import default_threads
    from mygpt2.data.prepare import prepare

    if args.out is None:
        raise UserError("data prepare needs --out DIR, a new or empty folder for the tokens")
    if args.shard_tokens < 1:
        raise UserError(f"--shard-tokens {args.shard_tokens} is too small; give 1 or more")
    with _opened(config, whole=True) as (manifest, reader, tokenizer, _), _blocks_bar(len(manifest)) as advance:
        done = prepare(
            manifest, reader, tokenizer, config.data, args.out, shard_tokens=args.shard_tokens,
            threads=config.data.threads or default_threads(), progress=advance,
        )  # fmt: skip
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(done.left_out.items())) or "none"
    print(f"{done.tokens:,} tokens of {done.documents:,} documents in {len(done.shards)} files; left out: {left_out}")
    for block, reason in done.unreadable.items():
        print(f"unreadable: {manifest.describe(int(block))}: {reason}")
    for note in manifest.notes:
        print(f"note: {note}")
    out, name = shlex.quote(str(args.out)), shlex.quote(config.data.tokenizer)
    print(f"train on them with --data.source {out} --data.tokenizer {name}")
    return 0


@contextmanager
def _blocks_bar(total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (blocks done, tokens so far)."""
    from tqdm import tqdm

    with tqdm(desc="prepare", unit=" blocks", unit_scale=True, total=total, disable=None, leave=False) as bar:

        def advance(done: int, tokens: int) -> None:
            bar.set_postfix_str(f"{tokens / 1e6:.1f}M tokens", refresh=False)
            bar.update(done - bar.n)

        yield advance
