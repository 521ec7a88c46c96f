"""The loader with three sources against the loader with one, on the same files, in alternating rounds.

    python benchmarks/mixtures.py [--rounds 7] [--threads 2] [--kinds reference cold warm] [--json OUT]

Twelve parquet files of the built-in corpus, once as one folder and once as three of four files with equal weights, each
of so many row groups (256) that none is cut into parts and a lane's windows are whole, as those of large sources are.
Read and tokenized without a token cache, with the reference encoder and with the fast one (cold). Warm: from the token
cache, which leaves the loader's own work, the order of the sources among it. Rows of 1024 tokens, 16 to a batch; a unit
of work is a pass over the files, which is what lies ready at once, before a turn and after it.

Mark: three sources at 0.95 of the speed of one or better, by the clock, in all three.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus import make_corpus
from paired import Timed, serve

from mygpt2.config.data import DataConfig
from mygpt2.config.mix import MixSource
from mygpt2.data.batch import CURSOR
from mygpt2.data.loader import Loader
from mygpt2.tokenizer import load_tokenizer
from mygpt2.tokenizer.fast import fast_encoder

T, BATCH, SEED, MARK = 1024, 16, 1, 0.95
KINDS = ("reference", "cold", "warm")


def settings(args: argparse.Namespace) -> DataConfig:
    common: dict[str, Any] = {
        "threads": args.threads, "token_cache": args.child.startswith("warm"), "encoder": "tiktoken"
    }  # fmt: skip
    if args.child.endswith("three"):
        parts = sorted(path for path in args.folder.iterdir() if path.is_dir())
        return DataConfig(mix=[MixSource(name=part.name, source=str(part)) for part in parts], **common)
    return DataConfig(source=str(args.folder), **common)


class Gate:
    """A tokenizer that only works while it is open, so that a loader cannot run ahead during the other's turn."""

    def __init__(self, tokenizer: Any, fast: bool) -> None:
        found = fast_encoder(tokenizer, ["a text to begin with"]) if fast else None
        self.inner, self.open = found or tokenizer, threading.Event()
        self.vocab_size, self.eot_id = tokenizer.vocab_size, tokenizer.eot_id
        self.fingerprint, self.dtype = tokenizer.fingerprint, tokenizer.dtype

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        self.open.wait()
        return self.inner.encode_batch(texts)


def work(args: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """The batches of a pass over the files, with the processor seconds of all threads; the loader stays open."""
    gate = Gate(load_tokenizer("gpt2"), fast=not args.child.startswith("reference"))
    loader = Loader(
        settings(args), tokenizer=gate, block_size=T, batch_sequences=BATCH, seed=SEED, cache_dir=args.cache
    )
    reached = 1.0

    def run() -> dict[str, float]:
        nonlocal reached
        gate.open.set()
        began, rows = time.process_time(), 0
        while True:
            batch = loader.poll(600.0)
            if batch is None:
                raise SystemExit(f"no batch for 10 minutes: {loader.waiting}")
            rows += len(batch.tokens)
            if batch.cursor[:, 0::CURSOR].min() >= reached:
                break
        reached += 1.0
        gate.open.clear()
        return {"tokens": rows * T, "cpu": time.process_time() - began}

    return run


def compare(args: argparse.Namespace, kind: str) -> dict[str, Timed]:
    """Both loaders with their million tokens per second, by round."""
    mine = [sys.executable, __file__, "--folder", str(args.folder), "--threads", str(args.threads)]
    mine += ["--cache", str(args.cache)]
    engines = [Timed(name, [*mine, "--child", f"{kind}-{name}"]) for name in ("one", "three")]
    for engine in engines:
        engine.start()
    for number in range(args.rounds):
        for engine in engines if number % 2 == 0 else engines[::-1]:
            engine.go()
        told = ", ".join(f"{engine.name} {engine.by_clock[-1]:.2f}" for engine in engines)
        print(f"{kind}, round {number + 1}/{args.rounds}, Mtok/s: {told}", flush=True)
    for engine in engines:
        engine.end()
    return {engine.name: engine for engine in engines}


def ratio(engines: dict[str, Timed], by: str) -> float:
    """Three sources over one, the median of the rounds."""
    pairs = zip(getattr(engines["three"], by), getattr(engines["one"], by), strict=True)
    return statistics.median(three / one for three, one in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return serve(work(args), warm_up=1)
    with tempfile.TemporaryDirectory() as scratch:
        args.folder, args.cache = Path(scratch) / "corpus", Path(scratch) / "cache"
        args.folder.mkdir()
        make_corpus(args.folder, files=12, groups=64, rows=80)
        for number, path in enumerate(sorted(args.folder.glob("*.parquet"))):
            part = args.folder / f"part-{number % 3}"
            part.mkdir(exist_ok=True)
            path.rename(part / path.name)
        found = {kind: compare(args, kind) for kind in args.kinds}
    told = {}
    for kind, engines in found.items():
        told[kind] = {by: ratio(engines, f"by_{by}") for by in ("clock", "cpu")}
        other = statistics.median(share for engine in engines.values() for share in engine.other)
        clock, cpu = told[kind]["clock"], told[kind]["cpu"]
        print(f"{kind}: three sources / one {clock:.3f} by the clock, {cpu:.3f} by processor time; others {other:.0%}")
        print(f"{'pass' if clock >= MARK else 'FAIL'}  {kind}: {clock:.3f} (mark >= {MARK})")
    if args.json:
        args.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
