"""From a source to the files of a new tokenizer: the whole of `tokenizer train` but its progress bars."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from mygpt2.config.data import DataConfig
from mygpt2.data.scan import BlockReader
from mygpt2.data.sources.manifest import Manifest
from mygpt2.errors import UserError
from mygpt2.tokenizer.base import whole_characters
from mygpt2.tokenizer.fast import PROBES
from mygpt2.tokenizer.patterns import PATTERNS
from mygpt2.tokenizer.ranks import fits, tiktoken_core
from mygpt2.tokenizer.training.corpus import Budget, Read, documents
from mygpt2.tokenizer.training.learn import TIE_RULE, check_pattern, check_size, learn
from mygpt2.tokenizer.training.save import END_OF_TEXT, Place, check_specials, save, tokenizer_json

SAMPLE_BYTES = 1_000_000  # of the first text read, to say how well the result compresses


@dataclass(frozen=True)
class Recipe:
    """What a tokenizer is made by. All of it is checked before any text is read."""

    vocab_size: int
    pattern: str = "gpt4"
    specials: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)
    seed: int = 1337

    def __post_init__(self) -> None:
        check_specials(self.specials)
        check_size(self.vocab_size, len(self.specials))
        check_pattern(self.pattern)
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed {self.seed} is outside 0 .. {2**31 - 1}; choose a number between")


Progress = Callable[[str, int, int, str], None]
"""Told (stage, done, all, unit): of `split`, text read and cut, then of `merge`. An exception raised in it ends it."""


def create(
    manifest: Manifest,
    reader: BlockReader,
    data: DataConfig,
    recipe: Recipe,
    place: Place,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Learn a tokenizer and write its files; returns the report. Recipe and data decide tokenizer.json."""
    began, read = time.perf_counter(), Read()
    sample: list[str] = []
    texts = documents(manifest, reader, data, recipe.budget, recipe.seed, read, partial(progress, "split"))
    merges = check_size(recipe.vocab_size, len(recipe.specials))

    def merging(done: int, all: int) -> None:
        progress("merge", done, all, "merges")

    learnt = learn(_sampled(texts, sample), recipe.pattern, merges, merging)
    content = tokenizer_json(learnt.merges, recipe.pattern, recipe.specials)
    sample_bytes, tokens = _measured(content, sample)
    report = {
        "schema": 1,
        "library": learnt.library,
        "library_version": learnt.library_version,
        "pattern": recipe.pattern,
        "split": PATTERNS[recipe.pattern],
        "tie_rule": TIE_RULE,
        "vocab_size": recipe.vocab_size,
        "merges": merges,
        "end_of_text": {"token": END_OF_TEXT, "id": content["added_tokens"][0]["id"]},
        "special_tokens": {token["content"]: token["id"] for token in content["added_tokens"]},
        "seed": recipe.seed,
        "budget": {**vars(recipe.budget), "bytes": recipe.budget.most_bytes},
        "source": manifest.source,
        "data_fingerprint": manifest.fingerprint,
        "validation_fraction": data.validation_fraction,
        "documents": read.documents,
        "bytes": read.bytes,
        "left_out": dict(sorted(read.left_out.items())),
        "unreadable_blocks": read.unreadable,
        "last_pair_count": learnt.last_count,
        "bytes_per_token": sample_bytes / tokens,
        "bytes_per_token_measured_on": sample_bytes,
        "seconds": {"read_and_split": learnt.count_s, "merge": learnt.merge_s, "all": time.perf_counter() - began},
    }
    save(place, content, report)
    return report


def _sampled(batches: Iterator[list[str]], sample: list[str]) -> Iterator[list[str]]:
    """The batches as they are; the first texts are kept in `sample`."""
    size = 0
    for texts in batches:
        for text in texts:
            if size >= SAMPLE_BYTES:
                break
            sample.append(text[:SAMPLE_BYTES])
            size += len(text.encode())
        yield texts


def _measured(content: dict[str, Any], sample: Sequence[str]) -> tuple[int, int]:
    """(bytes, tokens) of the sample; on the way the tables are proven to give the same ids in both encoders."""
    texts = [*map(whole_characters, PROBES), *(text[:4096] for text in islice(sample, 64))]
    core = tiktoken_core({**content, "added_tokens": []}, texts)
    if core is None:
        raise RuntimeError("the learnt tokenizer does not give the same ids in tiktoken and in tokenizers")
    return sum(len(t.encode()) for t in sample if fits(t)), sum(len(core.encode_ordinary(t)) for t in sample if fits(t))
