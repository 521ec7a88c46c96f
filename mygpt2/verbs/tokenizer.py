"""`tokenizer train|inspect|compare`: learn a vocabulary from a source, look at one, set several beside GPT-2's."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.config import DataConfig, preset_names
from mygpt2.errors import UserError
from mygpt2.launch.request import read_config
from mygpt2.progress import Bars
from mygpt2.terminal import interruptible

if TYPE_CHECKING:
    from mygpt2.data.scan import BlockReader
    from mygpt2.data.sources.manifest import Manifest

TAKES_SETTINGS = True  # --data.text_column and the like
ACTIONS = ("train", "inspect", "compare")
DEFAULT_PRESET = "tiny"
PROSE_BYTES = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        f"{parser.prog} train [--source S] --vocab-size N --out DIR|FILE.json [--data.KEY VALUE ...] [options]\n"
        f"       {parser.prog} inspect --tokenizer T TEXT [--merges] [--json]\n"
        f"       {parser.prog} compare --tokenizer A [B ...] [--source S] [--json]"
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="inspect: the text")
    parser.add_argument("--tokenizer", nargs="+", metavar="T", help="gpt2, gpt2:N, a tokenizer.json or its folder")
    parser.add_argument("--json", action="store_true", help="inspect, compare: print JSON")
    parser.add_argument("--merges", action="store_true", help="inspect: the merges of each piece one after another")
    parser.add_argument("--source", metavar="S", help="train, compare: data source (data.source of the preset or file)")
    parser.add_argument("--preset", metavar="NAME", help=f"settings to start from: {', '.join(preset_names())} (tiny)")
    parser.add_argument("--config", metavar="FILE.toml", type=Path, help="settings that go before the preset's")
    make = parser.add_argument_group(
        "train",
        "Ids: the 256 bytes, the merges, <|endoftext|>, further special tokens; --vocab-size counts them all. "
        "Documents held out for validation are not learnt from.",
    )
    make.add_argument("--vocab-size", metavar="N", type=int, help="ids in all, 257 .. 100277")
    make.add_argument("--out", metavar="DIR|FILE.json", type=Path, help="a new folder or file for the tokenizer")
    make.add_argument(
        "--pattern", metavar="P", default="gpt4", help="how text is cut before merging: gpt4 or gpt2 (gpt4)"
    )
    make.add_argument("--documents", metavar="N", type=int, help="read N documents")
    make.add_argument("--bytes", metavar="N", type=int, help="read N bytes of text (1000000000 without another budget)")
    make.add_argument("--share", metavar="X", type=float, help="read a share of all documents, as 0.1")
    make.add_argument("--special", metavar="TOKEN", nargs="+", default=[], help="further special tokens, as <|user|>")
    make.add_argument("--seed", metavar="S", type=int, default=1337, help="which documents a budget takes (1337)")


def run(args: argparse.Namespace) -> int:
    if args.action == "inspect" and args.settings:
        raise UserError(f"{args.settings[0]!r} is not an option of inspect; see python -m mygpt2 tokenizer --help")
    if args.action != "inspect" and args.text is not None:
        raise UserError(f"{args.text!r} is a text, which only inspect takes; see python -m mygpt2 tokenizer --help")
    return {"train": _train, "inspect": _inspect, "compare": _compare}[args.action](args)


def _train(args: argparse.Namespace) -> int:
    for name, value in (("--vocab-size N", args.vocab_size), ("--out DIR", args.out)):
        if value is None:
            raise UserError(f"tokenizer train needs {name}; see python -m mygpt2 tokenizer --help")
    if args.tokenizer:
        raise UserError(f"--tokenizer {args.tokenizer[0]}: train makes a new one; give --out for its place")
    from mygpt2.tokenizer.training.corpus import Budget
    from mygpt2.tokenizer.training.create import Recipe, create
    from mygpt2.tokenizer.training.save import Place

    budget = Budget(args.documents, args.bytes, args.share)
    recipe = Recipe(args.vocab_size, args.pattern, tuple(args.special), budget, args.seed)
    place = Place.of(args.out)
    data = _data(args)
    with interruptible(), _opened(data) as (manifest, reader), closing(Bars()) as bars:
        report = create(manifest, reader, data, recipe, place, bars)
    text = report["bytes"] / 1e6
    seconds = report["seconds"]
    print(
        f"{report['merges']:,} merges from {report['documents']:,} documents, {text:,.1f} MB; {seconds['all']:.1f} s, "
        f"of them reading and splitting {seconds['read_and_split']:.1f}, merging {seconds['merge']:.1f}"
    )
    print(f"{report['bytes_per_token']:.3f} bytes per token; {', '.join(_ids(report['special_tokens']))}")
    print(f"{place.tokenizer}; train with --data.tokenizer {shlex.quote(str(args.out))}")
    return 0


def _ids(specials: dict[str, int]) -> Iterator[str]:
    return (f"{token} is id {number}" for token, number in specials.items())


def _inspect(args: argparse.Namespace) -> int:
    from mygpt2.tokenizer import load_tokenizer
    from mygpt2.tokenizer.training.replay import replay, shown

    if args.text is None and args.tokenizer and len(args.tokenizer) == 2:
        args.text = args.tokenizer.pop()  # `--tokenizer T TEXT`: the option, which compare gives several, took both
    if args.text is None or not args.tokenizer or len(args.tokenizer) != 1:
        raise UserError(
            "tokenizer inspect needs one --tokenizer T and a text, as in inspect 'Hello world' --tokenizer gpt2"
        )
    tokenizer = load_tokenizer(args.tokenizer[0])
    ids = tokenizer.encode(args.text)
    pieces = [tokenizer.continuation(id, ids[:n]) for n, id in enumerate(ids)]
    merged = list(replay(tokenizer, args.text)) if args.merges else []
    if args.json:
        found: dict[str, Any] = {"tokenizer": tokenizer.name, "ids": ids, "tokens": [shown(p) for p in pieces]}
        if args.merges:
            found["merges"] = [
                {"steps": [[shown(part) for part in step] for step in piece.steps], "ranks": piece.ranks}
                for piece in merged
            ]
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return 0
    size = sum(map(len, pieces))
    print(f"{len(ids)} tokens, {size} bytes" + (f", {size / len(ids):.2f} bytes per token" if ids else ""))
    for number, piece in zip(ids, pieces, strict=True):
        print(f"{number:>7}  {shown(piece)}")
    for whole in merged:
        print(f"\n{shown(b''.join(whole.steps[0]))}")
        for rank, step in zip(("", *whole.ranks), whole.steps, strict=True):
            print(f"{rank if rank == '' else f'merge {rank}':>13}  {' '.join(map(shown, step))}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from mygpt2.tokenizer import load_tokenizer
    from mygpt2.tokenizer.training.compare import compare, kinds

    if not args.tokenizer:
        raise UserError(
            "tokenizer compare needs --tokenizer A [B ...], each gpt2, gpt2:N, a tokenizer.json or its folder"
        )
    names = ["gpt2", *(name for name in dict.fromkeys(args.tokenizer) if name != "gpt2")]
    found = [load_tokenizer(name) for name in names]
    rows = compare(found, kinds(_prose(_data(args)), [argparse, json.decoder, threading]))
    if args.json:
        table = [
            {"kind": r.kind, "bytes": r.bytes, "tokens": dict(zip(names, r.tokens, strict=True)),
             "bytes_per_token": {n: r.bytes / t for n, t in zip(names, r.tokens, strict=True)}}
            for r in rows
        ]  # fmt: skip
        print(
            json.dumps(
                {"vocab_size": {n: t.vocab_size for n, t in zip(names, found, strict=True)}, "rows": table}, indent=1
            )
        )
        return 0
    widths = [max(18, len(name) + 1) for name in names]
    print(f"{'bytes per token':<18}{'bytes':>10}" + "".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True)))
    sizes = "".join(f"{f'{t.vocab_size:,} ids':>{w}}" for t, w in zip(found, widths, strict=True))
    print(f"{'':<28}{sizes}")
    for row in rows:
        base = row.tokens[0]
        cells = [f"{row.bytes / base:.2f}", *(f"{row.bytes / t:.2f} ({base / t - 1:+.1%})" for t in row.tokens[1:])]
        print(f"{row.kind:<18}{row.bytes:>10,}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)))
    return 0


def _prose(data: DataConfig) -> list[str]:
    """A megabyte of the source, the same each time, that no tokenizer was learnt from: held out for validation."""
    from mygpt2.tokenizer.training.corpus import Budget, Read, documents

    with _opened(data) as (manifest, reader):
        batches = documents(manifest, reader, data, Budget(bytes=PROSE_BYTES), 0, Read(), validation=True)
        return [text for batch in batches for text in batch]


def _data(args: argparse.Namespace) -> DataConfig:
    settings = list(args.settings)
    if args.source is not None:
        settings += ["--data.source", args.source]
    preset = DEFAULT_PRESET if args.preset is None and args.config is None else args.preset
    return read_config(preset, args.config, settings).data


@contextmanager
def _opened(data: DataConfig) -> Iterator[tuple[Manifest, BlockReader]]:
    from mygpt2.data.sources.resolve import opened
    from mygpt2.tokenizer.training.corpus import check_is_text

    with opened(data) as (manifest, reader, _):
        check_is_text(manifest)
        for note in manifest.notes:
            print(f"note: {note}", file=sys.stderr)
        yield manifest, reader
