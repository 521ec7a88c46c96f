"""How much text a source is known to hold, and from where."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.config.summary import vocabulary_size
from mygpt2.planning import data
from mygpt2.planning.data import bytes_per_token, source_size
from mygpt2.planning.speed import observe_runs
from mygpt2.tokenizer import load_tokenizer
from tests.planning.conftest import config_of

EVERYTHING = {"data.validation_fraction": 0.0}


def size_of(source, cache, observed=(), vocab_size=512, **changes):
    config = config_of(**{"data.source": str(source), **EVERYTHING, **changes})
    return source_size(config, vocab_size, observed, cache)


@pytest.mark.parametrize(
    ("source", "tokens"),
    [
        ("fineweb-edu-10BT", 10e9),
        ("fineweb-edu-100BT@main", 100e9),
        ("fineweb-edu", 1.3e12),
        ("HuggingFaceFW/fineweb-edu:sample-350BT", 350e9),
    ],
)
def test_fineweb_edu_is_quoted_from_its_card(source, tokens, tmp_path):
    found = size_of(source, tmp_path, vocab_size=50257, **{"data.tokenizer": "gpt2"})
    assert found.tokens == tokens
    assert found.basis.startswith("quoted")


def test_documents_held_out_are_not_trained_on(tmp_path):
    found = size_of("fineweb-edu-10BT", tmp_path, **{"data.tokenizer": "gpt2", "data.validation_fraction": 0.25})
    assert found.tokens == 7.5e9 and "held out" in found.basis


@pytest.mark.parametrize("source", ["someone/something", "fineweb-edu:nonsense", "./nowhere", "~nobody/x", "pydocs"])
def test_what_was_never_read_is_unknown(source, tmp_path):
    found = size_of(source, tmp_path)
    assert found.tokens is None and found.basis.startswith("unknown")


def test_the_built_in_corpus_is_counted_once_it_is_made(tmp_path):
    made = tmp_path / "pydocs" / "0123" / "made.json"
    made.parent.mkdir(parents=True)
    made.write_text(json.dumps({"characters": 1_820_000}))
    assert size_of("pydocs", tmp_path).tokens == pytest.approx(1_000_000)


def test_local_text_is_estimated_from_its_bytes(tmp_path):
    text = "The quick brown fox jumps over the lazy dog, and the dog does not care about it at all. " * 300
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "_hidden.txt").write_text(text * 9)
    exact = len(load_tokenizer("gpt2:512").encode_batch([text])[0])
    assert size_of(tmp_path, tmp_path / "cache").tokens == pytest.approx(exact, rel=0.35)


def test_parquet_is_estimated_from_the_text_column_alone(tmp_path):
    rows = [f"{i} " + "word " * 200 for i in range(100)]
    table = pa.table({"text": rows, "other": ["x" * 50_000 + str(i) for i in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    tokens = sum(map(len, rows)) / bytes_per_token(512)
    assert size_of(tmp_path / "a.parquet", tmp_path / "cache").tokens == pytest.approx(tokens, rel=0.05)


def test_tokens_are_counted_exactly(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(2000))
    assert size_of(tmp_path / "a.bin", tmp_path / "cache").tokens == 1000


def test_compressed_or_mixed_or_damaged_files_are_unknown(tmp_path):
    for number, names in enumerate((["a.jsonl.gz"], ["a.txt", "b.jsonl"], ["a.parquet"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"not what it says\n")
        assert size_of(folder, tmp_path / "cache").tokens is None, names


def test_a_huge_folder_is_not_walked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MOST_ENTRIES", 3)
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text("some text")
    assert size_of(tmp_path, tmp_path / "cache").tokens is None


def test_a_run_that_read_the_text_knows_better(tmp_path, record):
    (tmp_path / "a.txt").write_text("x" * 100_000)
    changes = {"data.source": str(tmp_path / "a.txt"), **EVERYTHING}
    run = record("reader", config_of(**changes), [1000.0] * 8, epoch=0.5)
    found = size_of(tmp_path / "a.txt", tmp_path / "cache", observe_runs(run.path.parent))
    assert found.tokens == 8 * 512 / 0.5
    assert found.basis.startswith("from run reader")


def test_bytes_per_token_grow_with_the_vocabulary():
    sizes = [300, 512, 700, 4096, 5000, 50257, 100_000]
    values = [bytes_per_token(size) for size in sizes]
    assert values == sorted(values)
    assert bytes_per_token(4096) < bytes_per_token(5000) < bytes_per_token(8192)


@pytest.mark.parametrize("spec", ["gpt2", "gpt2:257", "gpt2:4096"])
def test_the_vocabulary_is_the_tokenizers_own(spec):
    assert vocabulary_size(spec) == load_tokenizer(spec).vocab_size


@pytest.mark.parametrize(
    "spec", ["gpt2:256", "gpt2:x", "gpt2:", "nowhere.json", "gpt2:50258", "gpt2:000000004096", "~nobody/x", "a\0b"]
)
def test_a_vocabulary_that_no_tokenizer_has_is_unknown(spec):
    assert vocabulary_size(spec) is None


def test_the_vocabulary_of_a_tokenizer_json_counts_added_tokens(tmp_path):
    content = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 7, "content": "<|endoftext|>"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert vocabulary_size(str(tmp_path)) == vocabulary_size(str(tmp_path / "tokenizer.json")) == 8
