"""The validation set: fixed, whole documents, disjoint from training, every token a target once."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data.heldout import held_out
from mygpt2.data.sources.faults import Clock, Outage, Unreadable
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.data.validation import check_disjoint, spread, validation_set, windows
from mygpt2.errors import TryAgain, UserError


class Bytes:
    """A tokenizer whose ids are the bytes of the text."""

    name, vocab_size, eot_id, fingerprint, dtype = "bytes", 257, 256, "f" * 64, np.uint16

    def encode_batch(self, texts):
        return [np.frombuffer(t.encode(), dtype=np.uint8).astype(self.dtype) for t in texts]

    def decode_bytes(self, ids):
        return bytes(i for i in ids if i < 256)


class Blocks:
    """A source in memory that counts what is read; `fail` may raise instead of answering."""

    def __init__(self, blocks, fail=None):
        self.blocks, self.fail, self.reads, self.lock = blocks, fail, [], threading.Lock()

    def read(self, block):
        with self.lock:
            self.reads.append(block)
        if self.fail:
            self.fail(block)
        return self.blocks[block]

    def close(self):
        pass


class Virtual(Clock):
    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def wait(self, stop, seconds):
        self.time += max(seconds, 0.01)
        return stop.is_set()


TEXTS = [[f"Document {b}.{i} says ünïcode things, at some length." for i in range(50)] for b in range(40)]
DATA = DataConfig(validation_fraction=0.1, validation_tokens=2000)


def manifest(n=40, source="memory"):
    return Manifest(source, "txt", None, "text", (SourceFile("a", 1, "x"),), make_blocks(0, range(n), 0, -1, 50))


def build(tmp_path, reader=None, data=DATA, **more):
    return validation_set(manifest(), reader or Blocks(TEXTS), Bytes(), data, tmp_path, **more)


def test_the_set_holds_whole_held_out_documents_up_to_the_size_asked_for(tmp_path):
    found = build(tmp_path)
    texts = [bytes(x[:-1].astype(np.uint8)).decode() for x in np.split(found.tokens, found.doc_starts[1:])]
    assert all(held_out(t, 0.1) for t in texts) and set(texts) <= {t for block in TEXTS for t in block}
    assert (found.tokens[np.append(found.doc_starts[1:] - 1, -1)] == 256).all()
    assert found.bytes == sum(len(t.encode()) for t in texts)
    assert 1900 < len(found.tokens) <= 2000 and found.documents == len(texts)


def test_no_block_is_read_beyond_what_is_needed_and_blocks_come_from_all_over(tmp_path):
    reader = Blocks(TEXTS)
    build(tmp_path, reader)
    assert len(reader.reads) < 25
    assert max(reader.reads) > 30 and min(reader.reads) == 0


def test_one_document_is_taken_however_long(tmp_path):
    data = DataConfig(validation_fraction=0.1, validation_tokens=1024)
    long = [[text * 60 for text in block] for block in TEXTS]
    found = build(tmp_path, Blocks(long), data)
    assert found.documents == 1 and len(found.tokens) > 1024


def test_a_second_call_reads_the_cache_and_a_damaged_cache_is_made_again(tmp_path):
    first = build(tmp_path)
    reader = Blocks(TEXTS)
    assert build(tmp_path, reader).sha256 == first.sha256 and not reader.reads
    (path,) = (tmp_path / "validation").glob("*.safetensors")
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    assert build(tmp_path, reader).sha256 == first.sha256 and reader.reads


def test_another_fraction_size_or_tokenizer_is_another_set(tmp_path):
    def sha(tokenizer=None, **settings):
        data = DataConfig(**{"validation_fraction": 0.1, "validation_tokens": 2000, **settings})
        return validation_set(manifest(), Blocks(TEXTS), tokenizer or Bytes(), data, tmp_path).sha256

    other = Bytes()
    other.fingerprint, other.eot_id = "0" * 64, 0
    assert len({sha(), sha(validation_fraction=0.2), sha(validation_tokens=1500), sha(other)}) == 4
    assert sha() == sha(lanes=8, window=4, order="buffer")


def test_an_outage_is_waited_out_and_gives_the_same_set(tmp_path):
    clock = Virtual()

    def fail(block):
        if clock.time < 60:
            raise Outage("the hub answers 503", retry_after=2)

    assert build(tmp_path / "a", Blocks(TEXTS, fail), clock=clock).sha256 == build(tmp_path / "b").sha256


def test_an_outage_beyond_the_budget_is_try_again(tmp_path):
    def fail(block):
        raise Outage("the hub answers 503")

    with pytest.raises(TryAgain, match=r"503, out of reach for \d+ s; data.outage_minutes=30 allows no more"):
        build(tmp_path, Blocks(TEXTS, fail), clock=Virtual())
    assert not list((tmp_path / "validation").glob("*.safetensors"))


def test_an_unreadable_block_is_passed_over(tmp_path):
    def fail(block):
        if block == 0:
            raise Unreadable(0, "damaged")

    texts = build(tmp_path, Blocks(TEXTS, fail)).tokens
    assert b"Document 0." not in bytes(x for x in texts.tolist() if x < 256)


def test_nothing_held_out_says_what_to_do(tmp_path):
    few = [text for text in TEXTS[0] if not held_out(text, 0.1)]
    with pytest.raises(UserError, match=r"none of the \d+ documents .*validation_fraction=0\.1; raise the fraction"):
        validation_set(manifest(1), Blocks([few]), Bytes(), DATA, tmp_path)
    with pytest.raises(UserError, match="validation_fraction=0 keeps no document"):
        build(tmp_path, data=DataConfig(validation_fraction=0))


def test_a_source_without_text_is_told_so_and_nothing_of_fractions(tmp_path):
    with pytest.raises(UserError, match=r"holds no text to learn from \(2 empty, 1 not text\)"):
        validation_set(manifest(1), Blocks([["", "\n", None]]), Bytes(), DATA, tmp_path)


def test_pre_tokenized_documents_are_chosen_by_their_ids(tmp_path):
    ids = [Bytes().encode_batch(block) for block in TEXTS]
    found = validation_set(replace(manifest(), kind="tokens"), Blocks(ids), Bytes(), DATA, tmp_path)
    assert found.bytes == len(found.tokens) - found.documents


def test_disjointness_finds_a_training_document_that_is_in_the_set(tmp_path):
    found = build(tmp_path)
    train = [x for block in TEXTS for x in block if not held_out(x, 0.1)]
    assert check_disjoint(found, iter(Bytes().encode_batch(train))) == 0
    inside = found.tokens[: found.doc_starts[1] - 1]
    assert check_disjoint(found, iter([*Bytes().encode_batch(train), inside])) == 1


@pytest.mark.parametrize("n", [2, 3, 16, 17, 18, 33, 100])
def test_windows_make_every_token_but_the_first_a_target_once(n):
    tokens = np.arange(1, n + 1, dtype=np.uint16)
    x, y = windows(tokens, 16)
    assert x.dtype == y.dtype == np.int64 and x.shape == y.shape == (-(-(n - 1) // 16), 16)
    valid = y != -100
    assert y[valid].tolist() == tokens[1:].tolist() and (x[valid] == y[valid] - 1).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100])
def test_spread_visits_every_block_once(n):
    assert sorted(spread(n)) == list(range(n))
