"""The closed loop: a cycle planted in a corpus, trained on for real, found in the loss, and damped as the law says.

    python benchmarks/ripples_closed_loop.py [--only planted|built-in] [--folder DIR] [--json OUT]

Planted: seven parquet files of 2,016 documents of some 32 tokens; whether a document is of the hard or of the easy
kind is drawn by a chance that swings three times per file. The tiny preset's model with 16 rows of 64 tokens per step
is trained on it in file order, through a shuffle buffer of 214 documents, and in lanes.

Built in: the first documents of some files of the built-in corpus, as they are, read eight times over in one lane:
their kinds of text differ, so that the loss repeats with the pass over the set, or with a part of it that has the same
number of turns in each pass. More lanes would drift apart: each has documents of its own, and a pass of its own length.

Marks: in file order the period, or a whole number of them, within 1 % of what the documents say; the buffer's
amplitude within 15 % of the law's 1/sqrt(1 + (2 pi B / P)^2); lanes leave nothing (p > 0.05). Only the first pass over
the planted set is looked at: at its end a buffer is drained. On two cores that have nothing else to do it takes some
half an hour.

Ctrl-C or SIGTERM saves the run at work and ends; with --folder the same command goes on there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILES, CYCLES, WORDS = 7, 3, 24
ROW_GROUP = 16  # documents
STEP_TOKENS, BLOCK = 1024, 64
SWING = 0.3  # of the chance of a hard document around one half
EASY = "the of and to in is was he"
HARD = (
    "an they which one you were her all she there would their we him been has when who will more no if out so said "
    "what up its about into than them can only other new some could time these two may then do first any my now such "
    "like our over man me even most made after also did many before must through back years where much your way well"
)


def document(rng: np.random.Generator, hard: bool) -> str:
    """Words drawn evenly from many (hard) or from few (easy): a model can learn no more than their number."""
    words = (HARD if hard else EASY).split()
    return " ".join(words[i] for i in rng.integers(0, len(words), WORDS))


def plant(folder: Path, documents: int, files: int = FILES, seed: int = 1) -> None:
    """A corpus whose share of hard documents swings CYCLES times per file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(files):
        place = (np.arange(documents) + 0.5) / documents
        hard = rng.random(documents) < 0.5 + SWING * np.sin(2 * np.pi * CYCLES * place)
        table = pa.table({"text": [document(rng, bool(h)) for h in hard]})
        pq.write_table(table, folder / f"{number:03d}.parquet", row_group_size=ROW_GROUP)


def built_in(folder: Path, cache: Path, files: int, documents: int) -> None:
    """The beginnings of some files of the built-in corpus, spread over it, with their row groups made smaller."""
    from mygpt2.data.sources.pydocs.corpus import harvest

    folder.mkdir(parents=True, exist_ok=True)
    paths = [p for p in sorted(harvest(cache).glob("*.parquet")) if pq.read_metadata(p).num_rows >= documents]
    for number in np.linspace(0, len(paths) - 1, files).round().astype(int):
        table = pq.read_table(paths[number])
        pq.write_table(table.slice(0, documents), folder / paths[number].name, row_group_size=ROW_GROUP)


def train(name: str, source: Path, runs: Path, cache: Path, steps: int, order: str, **more: Any) -> Path:
    """A run folder of the tiny preset's model with a small batch, gone on with where it was stopped."""
    from mygpt2.config import load_config
    from mygpt2.errors import EXIT_STOPPED
    from mygpt2.train import attempt

    settings = {
        "data.source": str(source), "data.order": order, "data.cache_dir": str(cache), "train.steps": steps,
        "train.batch_tokens": STEP_TOKENS, "model.block_size": BLOCK, "data.validation_tokens": 1024,
        "eval.interval": 0, "eval.yardstick": "off", "sample.interval": 0, "sample.max_new_tokens": 1,
        "log.plot_interval": 0, "checkpoint.interval": 10**6, "schedule.name": "constant", **more,
    }  # fmt: skip
    config = load_config("tiny", None, settings)
    with contextlib.redirect_stdout(sys.stderr):
        code = attempt.main(config, name, runs, "auto", ["train"])
    if code == EXIT_STOPPED:
        print(f"stopped in {name}, which is saved; with --folder the same command goes on", file=sys.stderr)
        raise SystemExit(code)
    if code:
        raise SystemExit(f"training {name} ended with {code}")
    return runs / name


@dataclass(frozen=True)
class Kind:
    """A corpus of `files` x `documents`, and how it is trained on: steps, those looked at, lanes, buffer."""

    documents: int
    files: int
    steps: int
    last: float | None
    lanes: int  # of file order and of the buffer
    buffer: int  # documents
    turns: int  # how often the cycle may turn within the period that the layout names


KINDS = {
    "planted": Kind(2016, 7, 420, 340, lanes=4, buffer=214, turns=1),
    "built-in": Kind(40, 4, 1000, None, lanes=1, buffer=20, turns=4),
}


def study(args: argparse.Namespace, name: str, kind: Kind) -> tuple[Path, dict[str, Path]]:
    """The corpus and the run folders under the three orders; what is there already is not made again."""
    from mygpt2.files import read_json
    from mygpt2.machine import cache_folder

    corpus = args.folder / f"{name}-{kind.files}x{kind.documents}"
    if not corpus.exists():
        scratch = corpus.with_suffix(".part")
        shutil.rmtree(scratch, ignore_errors=True)
        if name == "planted":
            plant(scratch, kind.documents, kind.files)
        else:
            built_in(scratch, cache_folder(None), kind.files, kind.documents)
        scratch.rename(corpus)
    runs = {}
    for order in ("sequential", "buffer", "lanes"):
        lanes = {} if order == "lanes" else {"data.lanes": kind.lanes, "data.buffer_documents": kind.buffer}
        run = f"{corpus.name}-{order}-{kind.steps}"
        runs[order] = args.folder / "runs" / run
        if (read_json(runs[order] / "exit.json") or {}).get("code") != 0:
            train(run, corpus, args.folder / "runs", args.folder / "cache", kind.steps, order, **lanes)
    return corpus, runs


def training_tokens(corpus: Path, run: Path) -> tuple[int, int]:
    """(tokens, documents) of a pass, as the run's tokenizer and its held-out share have them."""
    from mygpt2.config import load_config
    from mygpt2.data.heldout import held_out
    from mygpt2.tokenizer import load_tokenizer

    data = load_config(None, run / "config.toml").data
    texts = [t for p in sorted(corpus.glob("*.parquet")) for t in pq.read_table(p, columns=["text"])[0].to_pylist()]
    kept = [text for text in texts if not held_out(text, data.validation_fraction)]
    return sum(len(ids) + 1 for ids in load_tokenizer(data.tokenizer).encode_batch(kept)), len(kept)


def judged(name: str, kind: Kind, corpus: Path, runs: dict[str, Path]) -> Iterator[tuple[str, float, bool]]:
    """What the three runs' reports say against the layout and the law."""
    from mygpt2.ripples import analyse, read_log
    from mygpt2.ripples.forecast import buffer_factor

    reports = {o: analyse(read_log(path), last=kind.last, attribution=False) for o, path in runs.items()}
    tokens, documents = training_tokens(corpus, runs["sequential"])
    layout = tokens / kind.files / CYCLES if name == "planted" else tokens
    found = reports["sequential"]
    turns = max(1, min(kind.turns, round(layout / found.period_tokens)))
    true = layout / turns
    off = abs(found.period_tokens / true - 1)
    yield f"{name}: file order, p", found.p_value, found.significant
    yield f"{name}: file order, semi-amplitude in nats", found.amplitude, found.significant
    yield f"{name}: turns of it in a {'cycle' if name == 'planted' else 'pass'}", turns, True
    yield f"{name}: error of the period", off, off <= 0.01
    left = amplitude_at(runs["buffer"], true, kind.last) / amplitude_at(runs["sequential"], true, kind.last)
    law = float(buffer_factor(kind.buffer, true / tokens * documents))
    yield f"{name}: what the law says the buffer leaves", law, True
    yield f"{name}: what it leaves, as a share of the law's", left / law, abs(left / law - 1) <= 0.15
    p = reports["lanes"].p_value
    yield f"{name}: lanes, p", p, p > 0.05
    share = amplitude_at(runs["lanes"], true, kind.last) / amplitude_at(runs["sequential"], true, kind.last)
    yield f"{name}: lanes at the same period, share of file order's", share, share < 0.1


def amplitude_at(run: Path, period_tokens: float, last: float | None) -> float:
    """Semi-amplitude of a run's loss at a known period, in nats."""
    from mygpt2.ripples import read_log
    from mygpt2.ripples.spectrum import fit_line
    from mygpt2.ripples.study import study as statistics

    done = statistics(read_log(run).between(None, last))
    if isinstance(done, str):
        raise SystemExit(f"{run.name}: {done}")
    return fit_line(done.y, done.grid.weight, done.grid.spacing / period_tokens).amplitude


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(KINDS))
    parser.add_argument("--folder", type=Path, help="where corpora and runs are kept; what is there is used again")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        args.folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, kind in KINDS.items():
            if args.only not in (None, name):
                continue
            for what, value, good in judged(name, kind, *study(args, name, kind)):
                print(f"{'pass' if good else 'FAIL'}  {what:<60} {value:.4g}", flush=True)
                results.append({"name": what, "value": value, "pass": good})
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return 0 if all(result["pass"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
