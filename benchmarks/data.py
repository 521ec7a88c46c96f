"""The data pipeline against the bare tokenizer and against the classic recipe, on one machine in alternating rounds.

    python benchmarks/data.py [--folder PARQUET] [--rounds 5] [--threads 2] [--json OUT]

Pairs: (a) the tokenizer alone, its text in memory, on as many threads; (b) the Loader from raw parquet, no cache; (c)
the classic recipe: `datasets` streaming, shuffle buffer of 100,000, one document encoded at a time into a list that
is cut into blocks. (a) and (b) with the reference encoder and with the fast one. Rows of 1024 tokens, 16 to a batch.

Marks: (b) at least 90 % of (a) with the reference encoder; (b) with the fast encoder at least 10 times (c); first
shuffled batch in 0.6 s and 300 MB; resume in 1.5 s with nothing lost or repeated and a cursor of a few kB. With the
fast encoder (a) is printed without a mark, and so is the same with the reading of the parquet files: decoding them
costs half of what it does. Each rate is given by the clock and by the processor time of the process; on a busy
machine only the latter means much.

Without --folder the text is made of the built-in corpus: 8 files, row groups of 1,000 documents of 4.6 kB on average.
It repeats the corpus about a dozen times, which flatters encoders that remember words, (a) and (b) alike.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from corpus import make_corpus
from paired import Timed, peak_rss, serve

from mygpt2.config.data import DataConfig
from mygpt2.data.batch import loader_state
from mygpt2.data.loader import Loader
from mygpt2.tokenizer import load_tokenizer

T, BATCH, SEED = 1024, 16, 1
CLASSIC_BUFFER = 100_000
CLASSIC_TOKENS = 1_500_000  # measured per round, after the buffer was filled
RESUME_STEPS, CHECK_STEPS = 300, 200


def config(folder: Path, args: argparse.Namespace, **more: Any) -> DataConfig:
    encoder = "tiktoken" if args.encoder == "reference" else "auto"
    settings: dict[str, Any] = {"source": str(folder), "threads": args.threads, "encoder": encoder}
    return DataConfig(**{**settings, **more})


def open_loader(data: DataConfig, cache: Path, tokenizer: Any, state: dict[str, Any] | None = None) -> Loader:
    return Loader(
        data, tokenizer=tokenizer, block_size=T, batch_sequences=BATCH, seed=SEED, cache_dir=cache, state=state
    )


def next_batch(loader: Loader) -> Any:
    batch = loader.poll(600.0)
    if batch is None:
        raise SystemExit(f"no batch for 10 minutes: {loader.waiting}")
    return batch


def read_group(place: tuple[Path, int]) -> list[str]:
    path, group = place
    return pq.ParquetFile(path).read_row_group(group, columns=["text"], use_threads=False)[0].to_pylist()


def bare(args: argparse.Namespace) -> Callable[[], int]:
    """(a) encode the texts of every row group, read before (bare) or each time (read); returns tokens."""
    tokenizer = load_tokenizer("gpt2")
    paths = sorted(args.folder.glob("*.parquet"))
    places = [(path, group) for path in paths for group in range(pq.read_metadata(path).num_row_groups)]
    texts = [read_group(place) for place in places] if args.child == "bare" else []
    encoder = choose_encoder(args, tokenizer, read_group(places[0])[:20])
    pool = ThreadPoolExecutor(args.threads)

    def encode(number: int) -> int:
        documents = texts[number] if texts else read_group(places[number])
        return sum(map(len, encoder.encode_batch(documents))) + len(documents)

    return lambda: sum(pool.map(encode, range(len(places))))


class Gate:
    """A tokenizer that only works while it is open, so that a loader cannot run ahead during another engine's turn."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.inner, self.open = encoder, threading.Event()
        self.vocab_size, self.eot_id = tokenizer.vocab_size, tokenizer.eot_id
        self.fingerprint, self.dtype = tokenizer.fingerprint, tokenizer.dtype

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        self.open.wait()
        return self.inner.encode_batch(texts)


def ours(args: argparse.Namespace) -> Callable[[], int]:
    """(b) an epoch of batches, from where the last turn ended: what lies ready is the same before and after."""
    tokenizer = load_tokenizer("gpt2")
    data = config(args.folder, args, encoder="tiktoken", token_cache=False)
    sample = read_group((min(args.folder.glob("*.parquet")), 0))[:20]
    gate = Gate(tokenizer, choose_encoder(args, tokenizer, sample))
    loader = open_loader(data, args.cache, gate)
    reached = 1.0

    def epoch() -> int:
        nonlocal reached
        gate.open.set()
        rows = 0
        while True:
            batch = next_batch(loader)
            rows += len(batch.tokens)
            if batch.cursor[:, 0].min() >= reached:
                break
        reached += 1.0
        gate.open.clear()
        return rows * T

    return epoch


def choose_encoder(args: argparse.Namespace, tokenizer: Any, sample: list[str]) -> Any:
    from mygpt2.tokenizer.fast import fast_encoder

    encoder = tokenizer if args.encoder == "reference" else fast_encoder(tokenizer, sample)
    if encoder is None:
        raise SystemExit("the fast encoder is not installed, or differs from the reference")
    return encoder


def classic_blocks(folder: Path) -> Iterator[list[int]]:
    """(c) the recipe found in many training scripts."""
    import datasets

    tokenizer = load_tokenizer("gpt2")
    files = sorted(map(str, folder.glob("*.parquet")))
    stream = datasets.load_dataset("parquet", data_files={"train": files}, split="train", streaming=True).repeat(None)
    buffer: list[int] = []
    for example in stream.shuffle(seed=SEED, buffer_size=CLASSIC_BUFFER):
        buffer.extend(tokenizer.encode(example["text"]))
        buffer.append(tokenizer.eot_id)
        while len(buffer) >= T + 1:
            yield buffer[: T + 1]
            buffer = buffer[T + 1 :]


def classic(args: argparse.Namespace) -> Callable[[], int]:
    blocks = classic_blocks(args.folder)

    def work() -> int:
        rows = 0
        while rows * T < CLASSIC_TOKENS:
            np.array([next(blocks) for _ in range(BATCH)], np.int64)
            rows += BATCH
        return rows * T

    return work


def first_batch(args: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first shuffled batch and the memory it takes, in a fresh process with an empty cache folder."""
    tokenizer = load_tokenizer("gpt2")
    if args.child == "first-classic":
        import datasets  # noqa: F401  imported before the clock starts, as the loader's packages are
    else:
        import gigatoken  # noqa: F401
    base, began = peak_rss(), time.perf_counter()
    if args.child == "first-classic":
        blocks = classic_blocks(args.folder)
        np.array([next(blocks) for _ in range(BATCH)], np.int64)
        seconds, memory = time.perf_counter() - began, peak_rss() - base
    else:
        loader = open_loader(config(args.folder, args), args.cache, tokenizer)
        next_batch(loader)
        seconds, memory = time.perf_counter() - began, peak_rss() - base
        loader.close()
    return {"s": seconds, "mb": memory / 1e6}


def resume(args: argparse.Namespace) -> dict[str, float]:
    """Stop after some steps and go on in a new loader: seconds to its first batch, and whether batches are equal."""
    tokenizer = load_tokenizer("gpt2")
    data = config(args.folder, args)
    documents: list[list[Any]] = [[], []]
    with open_loader(data, args.cache, tokenizer) as loader:
        batches = [next_batch(loader) for _ in range(RESUME_STEPS)]
        state = json.dumps(loader_state(loader.fingerprint, batches[-1].cursor, batches[-1].quarantine))
        expected = [next_batch(loader) for _ in range(CHECK_STEPS)]
    began = time.perf_counter()
    with open_loader(data, args.cache, tokenizer, json.loads(state)) as loader:
        found = [next_batch(loader)]
        seconds = time.perf_counter() - began
        found += [next_batch(loader) for _ in range(CHECK_STEPS - 1)]
    for side, some in zip(documents, (expected, found), strict=True):
        side.extend(pair for batch in some for row in batch.provenance for pair in row)
    equal = sum(np.array_equal(a.tokens, b.tokens) for a, b in zip(expected, found, strict=True))
    lost, repeated = set(documents[0]) - set(documents[1]), set(documents[1]) - set(documents[0])
    return {
        "s": seconds, "equal": equal, "lost": len(lost), "repeated": len(repeated), "cursor_bytes": len(state),
    }  # fmt: skip


def metered(work: Callable[[], int]) -> Callable[[], dict[str, float]]:
    """`work` with the processor seconds of all threads beside its tokens."""

    def run() -> dict[str, float]:
        began = time.process_time()
        tokens = work()
        return {"tokens": tokens, "cpu": time.process_time() - began}

    return run


def child(args: argparse.Namespace, name: str, encoder: str, folder: Path) -> list[str]:
    mine = [sys.executable, __file__, "--child", name, "--encoder", encoder, "--folder", str(folder)]
    return [*mine, "--threads", str(args.threads), "--cache", str(args.cache)]


def throughput(args: argparse.Namespace, small: Path) -> dict[str, Timed]:
    """Every engine with its million tokens per second, by round."""
    engines = [
        Timed("bare reference", child(args, "bare", "reference", small)),
        Timed("loader reference", child(args, "ours", "reference", small)),
        Timed("bare fast", child(args, "bare", "fast", args.folder)),
        Timed("read and bare fast", child(args, "read", "fast", args.folder)),
        Timed("loader fast", child(args, "ours", "fast", args.folder)),
        Timed("classic", child(args, "classic", "reference", args.folder)),
    ]
    for engine in engines:
        engine.start()
    for number in range(args.rounds):
        for engine in engines if number % 2 == 0 else engines[::-1]:
            engine.go()
        rates = "  ".join(f"{engine.name} {engine.by_clock[-1]:.2f}" for engine in engines)
        print(f"round {number + 1}/{args.rounds}, Mtok/s: {rates}", flush=True)
    for engine in engines:
        engine.end()
    return {engine.name: engine for engine in engines}


def fresh(args: argparse.Namespace, name: str, encoder: str) -> dict[str, float]:
    """What a child in a process of its own says, with an empty cache folder."""
    shutil.rmtree(args.cache, ignore_errors=True)
    done = subprocess.run(child(args, name, encoder, args.folder), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="parquet files with a column `text`; made where not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--encoder", default="fast", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    engines = {"bare": bare, "read": bare, "ours": ours, "classic": classic}
    if args.child in engines:
        return serve(metered(engines[args.child](args)), warm_up=1)
    if args.child:
        return print(json.dumps(resume(args) if args.child == "resume" else first_batch(args)))
    with tempfile.TemporaryDirectory() as scratch:
        report(args, Path(scratch))


def report(args: argparse.Namespace, scratch: Path) -> None:
    args.cache = scratch / "cache"
    small = scratch / "small"  # the reference encoder is slow: an epoch of 8 row groups is enough for it
    if args.folder is None:
        args.folder = scratch / "corpus"
        args.folder.mkdir()
        make_corpus(args.folder, files=8, groups=8)
    small.mkdir()
    for path in sorted(args.folder.glob("*.parquet"))[:8]:
        first = pq.ParquetFile(path).read_row_group(0, columns=["text"])
        pq.write_table(first, small / path.name, use_dictionary=False)
    starts = [
        (fresh(args, "first", "fast"), fresh(args, "first-classic", "fast"), fresh(args, "resume", "fast"))
        for _ in range(args.rounds)
    ]
    engines = throughput(args, small)

    def middle(index: int, key: str) -> float:
        return statistics.median(start[index][key] for start in starts)

    def ratio(a: str, b: str, by: str = "by_clock") -> float:
        pairs = zip(getattr(engines[a], by), getattr(engines[b], by), strict=True)
        return statistics.median(x / y for x, y in pairs)

    marks = [
        ("loader / bare tokenizer, reference encoder", ratio("loader reference", "bare reference"), ">=", 0.9),
        ("the same by processor time", ratio("loader reference", "bare reference", "by_cpu"), ">=", 0.9),
        ("loader with the fast encoder / classic recipe", ratio("loader fast", "classic"), ">=", 10.0),
        ("the same by processor time", ratio("loader fast", "classic", "by_cpu"), ">=", 10.0),
        ("first shuffled batch, s", middle(0, "s"), "<=", 0.6),
        ("first shuffled batch, MB above base", middle(0, "mb"), "<=", 300.0),
        ("resume, s", middle(2, "s"), "<=", 1.5),
        ("batches that differ after a resume", CHECK_STEPS - middle(2, "equal"), "<=", 0.0),
        ("documents lost or repeated by a resume", middle(2, "lost") + middle(2, "repeated"), "<=", 0.0),
        ("cursor, bytes", middle(2, "cursor_bytes"), "<=", 8000.0),
    ]
    print(f"\nclassic recipe: first batch {middle(1, 's'):.2f} s, {middle(1, 'mb'):.0f} MB above base")
    for name, engine in engines.items():
        clock, cpu = statistics.median(engine.by_clock), statistics.median(engine.by_cpu)
        print(f"{name}: {clock:.2f} Mtok/s; {cpu:.2f} Mtok per processor second")
    for base in ("bare fast", "read and bare fast"):
        clock, cpu = ratio("loader fast", base), ratio("loader fast", base, "by_cpu")
        print(f"loader fast / {base}: {clock:.2f}; by processor time {cpu:.2f}")
    other = statistics.median(share for engine in engines.values() for share in engine.other)
    print(f"other processes took {other:.0%} of the machine")
    for name, value, relation, mark in marks:
        passed = value >= mark if relation == ">=" else value <= mark
        print(f"{'pass' if passed else 'FAIL'}  {name}: {value:.3g} (mark {relation} {mark:g})")
    if args.json:
        args.json.write_text(
            json.dumps(
                {"rates": {n: e.by_clock for n, e in engines.items()}, "starts": starts, "marks": marks}, indent=1
            )
        )


if __name__ == "__main__":
    main()
