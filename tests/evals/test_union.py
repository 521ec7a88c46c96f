"""The held-out documents of several runs' sources: each source once, and none that either run was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mygpt2.config.data import DataConfig
from mygpt2.config.mix import MixSource
from mygpt2.data.heldout import held_out
from mygpt2.data.validation import ValidationSet
from mygpt2.errors import UserError
from mygpt2.evals.union import held_out_of
from tests.data.corpus import config, write_jsonl, write_parquet, write_txt
from tests.data.test_mix import Decoding


def mixture(folder: Path, *names: str, **settings: object) -> DataConfig:
    """Sources by the names of their folders; `as` renames one."""
    mix = [
        MixSource(name=name.partition("/")[2] or name, source=str(folder / name.partition("/")[0])) for name in names
    ]
    return config(source="pydocs", mix=mix, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_parquet(folder / "a", documents=600)
    write_jsonl(folder / "b")
    write_txt(folder / "c", paragraphs=8000)
    return folder


def documents(found: ValidationSet) -> list[str]:
    ends = np.append(found.doc_starts[1:], len(found.tokens))
    return [
        bytes(found.tokens[a : b - 1].astype(np.uint8)).decode() for a, b in zip(found.doc_starts, ends, strict=True)
    ]


def test_a_source_of_both_runs_is_there_once_and_a_name_of_two_sources_twice(folder, tmp_path):
    one, two = mixture(folder, "a", "b"), mixture(folder, "b/c", "c/a")
    found, runs = held_out_of({"one": one, "two": two}, Decoding(), tmp_path)
    assert runs == {"a": ["one"], "b": ["one", "two"], "a of two": ["two"]}
    assert list(found.parts) == list(runs) and len(found.tokens) == sum(len(p.tokens) for p in found.parts.values())
    alone, _ = held_out_of({"one": one}, Decoding(), tmp_path)
    assert alone.parts["b"].sha256 == found.parts["b"].sha256 and list(alone.parts) == ["a", "b"]


def test_of_different_shares_the_smaller_is_taken_and_of_sizes_the_larger(folder, tmp_path):
    one = mixture(folder, "a", "b", validation_fraction=0.1, validation_tokens=4096)
    two = config(folder / "b", validation_fraction=0.02, validation_tokens=60_000)
    found, runs = held_out_of({"one": one, "two": two}, Decoding(), tmp_path)
    assert runs["b"] == ["one", "two"]
    texts = documents(found.parts["b"])
    assert texts and all(held_out(text, 0.02) for text in texts), "neither run was trained on one of them"
    assert len(found.parts["b"].tokens) > 4096 > len(found.parts["a"].tokens)


def test_a_run_that_holds_nothing_out_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="run 'two' holds no document out"):
        held_out_of(
            {"one": mixture(folder, "a"), "two": config(folder / "b", validation_fraction=0.0)}, Decoding(), tmp_path
        )
