"""Learning a byte-pair tokenizer: count the pieces of the text, join the most frequent pair, again and again.

The definition: text is cut into pieces by a pattern; a piece is its UTF-8 bytes; the pair of neighbouring tokens that
is most frequent over all pieces becomes a token, in all of them from left to right, until there are enough. *Tie
rule*: of equally frequent pairs the one with the lowest first id wins, then the lowest second; ids 0 .. 255 are the
bytes in the order of GPT-2's alphabet. `tokenizers` has the same rule, so both learn the same list. minbpe and
minibperust take the pair seen first, rustbpe orders the bytes by value: other lists of the same quality.

`tokenizers` can always do it. ffbpe, where it is installed (the extra `fast`), is several times as quick: seconds for
35 MB to 32,768 on two cores: ffbpe 1.4, minibperust 2.4, rustbpe 2.7, tokenizers 7.8; memory 177, 240, 119 and 161 MB.
It is a young package, so it first learns some merges of the run's own text beside `tokenizers`, and only where they are
the same does it do the rest. Its work is done in small portions with the interpreter lock released, which gives
progress and lets a signal in within a fraction of a second (merge by merge with `step`: each call of its `train` counts
all pairs anew). gigabpe, as fast, knows only one pattern and reads files only; bpeasy is slower and takes no progress.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import trainers

from mygpt2.errors import UserError
from mygpt2.tokenizer.base import byte_level_json, printable_bytes
from mygpt2.tokenizer.patterns import PATTERNS, for_scanner, pre_tokenizer, scanner

FAST, PLAIN = "ffbpe", "tokenizers"
PROOF_CHARS, PROOF_MERGES = 200_000, 100  # of the first text read, on which the fast one shows that it is exact
TIE_RULE = "lowest first id, then lowest second id; ids 0-255 are the bytes in the order of GPT-2's alphabet"
SMALLEST, LARGEST = 257, 100_277  # every byte and end-of-text; what GPT-4's has
CHARS_AT_ONCE = 4_000_000  # counted in one call of the library: some 30 ms
NO_MORE = "No more step"  # the library's words when no pair is left
PORTION_S = 0.1  # between two reports of progress

Merges = list[tuple[str, str]]
"""Pairs in GPT-2's visible characters, in the order they were learnt."""

Progress = Callable[[int, int], None]
"""Called with (merges learnt, merges wanted)."""


@dataclass(frozen=True)
class Learnt:
    """Merges, the count of the last pair, seconds of counting (with reading) and of merging, and who learnt them.

    The count is 0 without merges, and None from `tokenizers`, which does not tell it.
    """

    merges: Merges
    last_count: int | None
    count_s: float
    merge_s: float
    library: str

    @property
    def library_version(self) -> str:
        return metadata.version(self.library)


def check_size(vocab_size: int, specials: int) -> int:
    """The number of merges that gives `vocab_size` ids with the bytes, end-of-text and `specials` more."""
    least = SMALLEST + specials
    if not least <= vocab_size <= LARGEST:
        raise UserError(
            f"--vocab-size {vocab_size} is outside {least} (every byte and {1 + specials} special) .. {LARGEST}; "
            "choose a number between"
        )
    return vocab_size - least


def check_pattern(pattern: str) -> None:
    if pattern not in PATTERNS:
        raise UserError(f"--pattern {pattern} is not known; allowed: {', '.join(PATTERNS)}")


def learn(documents: Iterable[list[str]], pattern: str, merges: int, progress: Progress = lambda *_: None) -> Learnt:
    """Learn `merges` merges from documents that come in batches. UserError when the text has fewer.

    An exception of `documents` or `progress`, or a KeyboardInterrupt, ends it within a fraction of a second.
    """
    check_pattern(pattern)
    batches = iter(documents)
    first = next(batches, [])
    by = _by_ffbpe if fast_is_exact(first, pattern) else _by_tokenizers
    learnt = by(chain([first], batches), pattern, merges, progress)
    if len(learnt.merges) < merges:
        raise UserError(
            f"the text has only {len(learnt.merges)} pairs to join where {merges} were asked for; "
            f"make --vocab-size smaller by at least {merges - len(learnt.merges)} or give more text"
        )
    return learnt


def fast_is_exact(texts: list[str], pattern: str) -> bool:
    """Whether the fast library is there and learns from some of these texts what `tokenizers` learns."""
    if find_spec(FAST) is None:
        return False
    some = [text[:PROOF_CHARS] for text in texts[:PROOF_CHARS]]
    while len(some) > 1 and sum(map(len, some)) > PROOF_CHARS:
        some = some[: len(some) // 2]
    try:
        fast = _by_ffbpe([some], pattern, PROOF_MERGES, lambda *_: None).merges
    except (RuntimeError, ValueError, TypeError, AttributeError):  # another version with another interface
        return False
    return fast == _by_tokenizers([some], pattern, PROOF_MERGES, lambda *_: None).merges


def _by_tokenizers(documents: Iterable[list[str]], pattern: str, merges: int, progress: Progress) -> Learnt:
    """In a thread of its own, since its merging cannot be interrupted: whoever waits can go, and it ends by itself."""
    library = tokenizers.Tokenizer.from_str(json.dumps(byte_level_json([], pre_tokenizer(pattern))))
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=[*printable_bytes()], show_progress=False, special_tokens=[]
    )
    began, read, left = time.perf_counter(), [0.0], threading.Event()
    problem: list[BaseException] = []

    def texts() -> Iterator[list[str]]:
        try:
            for batch in documents:
                if left.is_set():
                    return
                yield batch
        except BaseException as caught:  # the library would wrap it in words of its own
            problem.append(caught)
        read[0] = time.perf_counter()

    thread = threading.Thread(target=library.train_from_iterator, args=(texts(), trainer), daemon=True, name="learn")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(PORTION_S)
            if read[0]:
                progress(0, merges)
    finally:
        left.set()
    if problem:
        raise problem[0]
    progress(merges, merges)
    found = [(first, second) for first, second in json.loads(library.to_str())["model"]["merges"]]
    return Learnt(found, None, read[0] - began, time.perf_counter() - read[0], PLAIN)


def _by_ffbpe(documents: Iterable[list[str]], pattern: str, merges: int, progress: Progress) -> Learnt:
    import ffbpe

    began = time.perf_counter()
    counter = ffbpe.PreTokenizer([], None, scanner(pattern)).word_counter()
    for texts in documents:
        for part in _portions(texts, pattern):
            counter.add_batch(part)
    counted = time.perf_counter()
    trainer = ffbpe.BpeTrainer([], initial_alphabet="byte_level", tie_break="smallest_pair_id")
    trainer.add_word_counter(counter)
    trainer.init_training()
    for done in _merged(trainer, merges):
        progress(done, merges)
    found = _merges_of(trainer)
    return Learnt(found, trainer.last_merge_freq or 0, counted - began, time.perf_counter() - counted, FAST)


def _portions(texts: list[str], pattern: str) -> Iterator[list[str]]:
    portion: list[str] = []
    size = 0
    for text in texts:
        for part in for_scanner(pattern, text):
            portion.append(part)
            size += len(part)
        if size >= CHARS_AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _merged(trainer: Any, merges: int) -> Iterator[int]:
    """Merge one by one, yielding every now and then how many there are; ends early when no pair is left."""
    done, told = 0, time.perf_counter()
    while done < merges:
        try:
            done = trainer.step() - 256
        except RuntimeError as end:
            if NO_MORE not in str(end):
                raise
            break
        if done % 16 == 0 and time.perf_counter() - told > PORTION_S:
            yield done
            told = time.perf_counter()
    yield done


def _merges_of(trainer: Any) -> Merges:
    """The list as the library writes it: after GPT-2's fashion, a pair and its count on each line."""
    with tempfile.TemporaryDirectory(prefix="mygpt2-merges-") as folder:
        path = Path(folder) / "merges.txt"
        trainer.validate_model().save_merges_txt(path, format="gpt2")
        lines = path.read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ")[:2] for line in lines if line and not line.startswith("#version")]
    merges = [(first, second) for first, second in pairs]
    known = set(printable_bytes())
    for first, second in merges:
        if first not in known or second not in known:
            raise RuntimeError(f"{FAST} wrote a merge of {first!r} and {second!r}, which are not both known before it")
        known.add(first + second)
    return merges
