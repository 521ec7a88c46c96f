"""Learning a tokenizer and encoding with it, against the libraries that do the same, on one machine in alternation.

    python benchmarks/tokenizer.py [--mb 35] [--vocab-size 32768] [--rounds 3] [--json OUT]

Learning: `learn` of this package, `tokenizers`, and where they are installed rustbpe and minibperust, all with GPT-4's
pattern on the same documents in memory, each in its own process. Marks: 1.5 times as fast as `tokenizers`, with exactly
its merges; not slower than the fastest of the others, which are exact too (their tie rules differ, see train.py).

Encoding: the learnt tokenizer and GPT-2's, on text that was not seen before, one thread: tiktoken itself, the
reference path here, the fast encoder, `tokenizers`. Marks: the reference path at tiktoken's speed (90 %); the fast
encoder 10 times tiktoken's; ids equal to those of `tokenizers` on every document.

Text: the built-in corpus, once; beyond its size it is repeated, which all of them like alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paired import Engine, compare, peak_rss, serve

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.machine import cache_folder
from mygpt2.tokenizer.patterns import GPT4, SHARED
from mygpt2.tokenizer.training.corpus import Budget, Read, documents

LEARNERS = {"mygpt2": "ffbpe", "tokenizers": "tokenizers", "rustbpe": "rustbpe", "minibperust": "MiniBpeRust"}
TURN = 64  # documents
RUST_GPT4 = next(s for s in SHARED if s.startswith("'"))  # GPT-4's pattern as those two have it


def corpus(megabytes: float) -> list[str]:
    """Documents of the built-in corpus up to a size."""
    data = DataConfig(source="pydocs")
    manifest = resolve(data.source, data, cache_dir=cache_folder(data.cache_dir))
    reader = open_reader(manifest, cache_dir=cache_folder(data.cache_dir), eot_id=0)
    once = [t for batch in documents(manifest, reader, data, Budget(share=1.0), 0, Read()) for t in batch]
    texts: list[str] = []
    size = 0.0
    while size < megabytes * 1e6:
        text = once[len(texts) % len(once)]
        texts.append(text)
        size += len(text.encode())
    return texts


def learner(name: str, texts: list[str], vocab_size: int) -> Callable[[], str]:
    """Learns once; returns a digest of the merges."""

    def ours() -> Any:
        from mygpt2.tokenizer.training.learn import learn

        return learn([texts], "gpt4", vocab_size - 256).merges

    def library() -> Any:
        import tokenizers
        from tokenizers import models, pre_tokenizers, trainers

        made = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(tokenizers.Regex(GPT4), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        )
        return [tuple(merge) for merge in json.loads(made.to_str())["model"]["merges"]]

    def rust() -> Any:
        import rustbpe

        made = rustbpe.Tokenizer()
        made.train_from_iterator(iter(texts), vocab_size, pattern=RUST_GPT4)
        return made.get_mergeable_ranks()

    def mini() -> Any:
        from MiniBpeRust import rustminibpe

        return rustminibpe.train_on_text("\n".join(texts), RUST_GPT4, vocab_size)

    work = {"mygpt2": ours, "tokenizers": library, "rustbpe": rust, "minibperust": mini}[name]
    return lambda: hashlib.sha256(repr([tuple(m) for m in work()]).encode()).hexdigest()


def encoder(name: str, file: str) -> Callable[[list[str]], list[Any]]:
    """Encodes texts; the loaded tables are not timed."""
    from mygpt2.tokenizer import load_tokenizer
    from mygpt2.tokenizer.fast import FastEncoder
    from mygpt2.tokenizer.gpt2 import GPT2Tokenizer

    ours = load_tokenizer(file)
    if name == "mygpt2":
        return ours.encode_batch
    if name == "fast":
        return FastEncoder(ours).encode_batch
    if name == "tiktoken":
        core = ours._bpe if isinstance(ours, GPT2Tokenizer) else ours._core  # type: ignore[attr-defined]
        return lambda texts: [core.encode_ordinary(text) for text in texts]
    import tokenizers

    whole = tokenizers.Tokenizer.from_str(ours.hf_json())
    return lambda texts: [whole.encode(text, add_special_tokens=False).ids for text in texts]


def child(args: argparse.Namespace) -> None:
    work = learner(args.child, corpus(args.mb), args.vocab_size)
    digest = work()
    print(json.dumps({"digest": digest, "rss_mb": peak_rss() / 1e6}), file=sys.stderr)
    serve(work, warm_up=0)


def learning(args: argparse.Namespace) -> list[tuple[str, float, str, float]]:
    names = [name for name, package in LEARNERS.items() if find_spec(package)]
    size = ["--mb", str(args.mb), "--vocab-size", str(args.vocab_size)]
    engines = [Engine(name, [sys.executable, __file__, "--child", name, *size]) for name in names]
    found = compare(engines, args.rounds)
    for name in names:
        print(f"{name}: {found[name]['median_s']:.2f} s, {found[name]['peak_rss_mb']:.0f} MB at most (text included)")
    ours = engines[0].seconds
    others = {e.name: statistics.median(b / a for a, b in zip(ours, e.seconds, strict=True)) for e in engines[1:]}
    marks = [("learning, times tokenizers", others.pop("tokenizers"), ">=", 1.5)]
    if others:
        name, ratio = min(others.items(), key=lambda item: item[1])
        marks.append((f"learning, times the fastest other ({name})", ratio, ">=", 1.0))
    texts = corpus(min(args.mb, 5))
    same = learner("mygpt2", texts, args.vocab_size)() == learner("tokenizers", texts, args.vocab_size)()
    return [*marks, ("merges equal to those of tokenizers (1: yes)", float(same), ">=", 1.0)]


def encoding(args: argparse.Namespace) -> list[tuple[str, float, str, float]]:
    from mygpt2.tokenizer.training.learn import learn
    from mygpt2.tokenizer.training.save import Place, save, tokenizer_json

    texts = corpus(20)
    seen, new = texts[::2], texts[1::2]
    share = max(1, len(new) // args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        merges = learn([seen], "gpt4", args.vocab_size - 257).merges
        save(Place.of(Path(folder) / "t"), tokenizer_json(merges, "gpt4", []), {})
        return [mark for file in (str(Path(folder) / "t"), "gpt2") for mark in _encoding(file, new, share, args.rounds)]


def _encoding(file: str, new: list[str], share: int, rounds: int) -> list[tuple[str, float, str, float]]:
    """Each round a part of the text that no encoder has seen, so that none profits from words it remembers.

    The encoders take turns at every few documents: what else the machine does meets them alike.
    """
    names = ["tiktoken", "mygpt2", "tokenizers", *(["fast"] if find_spec("gigatoken") else [])]
    what = "GPT-2" if file == "gpt2" else "own"
    rates: dict[str, list[float]] = {name: [] for name in names}
    different = 0
    for number in range(rounds):
        part = new[number * share : (number + 1) * share]
        work = {name: encoder(name, file) for name in names}
        seconds = dict.fromkeys(names, 0.0)
        for turn, at in enumerate(range(0, len(part), TURN)):
            some = part[at : at + TURN]
            ids = {}
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                began = time.perf_counter()
                found = work[name](some)
                seconds[name] += time.perf_counter() - began
                ids[name] = [list(map(int, row)) for row in found]
            different += sum(len({tuple(rows[i]) for rows in ids.values()}) > 1 for i in range(len(some)))
        size = sum(len(t.encode()) for t in part) / 1e6
        for name in names:
            rates[name].append(size / seconds[name])
    for name in names:
        print(f"encoding, {what} tokenizer, {name}: {statistics.median(rates[name]):.1f} MB/s")

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[name], rates["tiktoken"], strict=True))

    marks = [(f"{what}: reference path, times tiktoken", ratio("mygpt2"), ">=", 0.9)]
    if "fast" in rates:
        marks.append((f"{what}: fast encoder, times tiktoken", ratio("fast"), ">=", 10.0))
    return [*marks, (f"{what}: documents with other ids in any of them", float(different), "<=", 0.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=35.0)
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    marks = [*learning(args), *encoding(args)]
    for name, value, relation, mark in marks:
        passed = value >= mark if relation == ">=" else value <= mark
        print(f"{'pass' if passed else 'FAIL'}  {name}: {value:.3g} (mark {relation} {mark:g})")
    if args.json:
        args.json.write_text(json.dumps(marks, indent=1))


if __name__ == "__main__":
    main()
