"""Small sources train with the defaults: something is held out, something is left; larger ones stay as they were."""

from __future__ import annotations

import errno
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.data.heldout import cut, reason_against
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.resolve import open_reader, open_settled, resolve
from mygpt2.data.validation import validation_set
from mygpt2.errors import TryAgain, UserError
from tests.data.corpus import EOT, WRITERS, Bytes, Ranks, config, sha256

WORDS = ["river", "stone", "lamp", "window", "garden", "orange", "train", "signal", "market", "letter", "wind", "tin"]
STORY = ". ".join(f"The {WORDS[i % 12]} number {i} was {WORDS[i * 7 % 12]}" for i in range(500))  # 17 kB, one line
STORIES = [STORY[i * 100 : i * 100 + 90] for i in range(60)]


class Decoding(Bytes):
    def decode_bytes(self, ids):
        return bytes(i for i in ids if i < 256)


def write(folder, name):
    """A small source by name; returns what to give as data.source."""
    folder.mkdir()
    if name == "a story":
        (folder / "a.txt").write_text(STORY)
    elif name == "paragraphs":
        (folder / "a.txt").write_text(STORY.replace(". ", "\n\n"))
    elif name == "stories":
        for i, text in enumerate(STORIES):
            (folder / f"{i:02d}.txt").write_text(text)
    elif name == "copies":
        for i in range(60):
            (folder / f"{i:02d}.txt").write_text(STORY)
    elif name == "blank beside":
        (folder / "a.txt").write_text(" \n")
        (folder / "b.txt").write_text(STORY)
    elif name == "packed":
        (folder / "a.txt.gz").write_bytes(gzip.compress(STORY.encode()))
    elif name == "a line":
        (folder / "a.jsonl").write_text(json.dumps({"text": STORY}) + '\n{"text": ""}\n{"other": 1}\n')
    elif name == "a long line":
        (folder / "a.jsonl").write_text(json.dumps({"text": STORY * 20}))
    elif name == "a row":
        pq.write_table(pa.table({"text": [None, STORY, None]}), folder / "a.parquet")
    elif name == "two rows":
        pq.write_table(pa.table({"text": STORIES[:2]}), folder / "a.parquet")
    elif name == "ids":
        (folder / "a.bin").write_bytes(np.frombuffer(STORY.encode(), np.uint8).astype("<u2").tobytes())
    return folder


SMALL = ["a story", "paragraphs", "stories", "copies", "blank beside", "packed", "a line", "a long line", "a row",
         "two rows", "ids"]  # fmt: skip


def opened(source, cache, **settings):
    data = config(source, **settings)
    return data, *open_settled(resolve(str(source), data, cache_dir=cache), data, cache_dir=cache, eot_id=EOT)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("fraction", [0.01, 0.5])
def test_a_small_source_is_divided_between_training_and_validation(name, fraction, tmp_path):
    source = write(tmp_path / "s", name)
    data, manifest, reader = opened(source, tmp_path / "c", validation_fraction=fraction)
    held = validation_set(manifest, reader, Decoding(), data, tmp_path / "c")
    inside = {bytes(d[:-1].astype(np.uint8)) for d in np.split(held.tokens, held.doc_starts[1:])}
    documents = [x for block in range(len(manifest)) for x in reader.read(block)]
    everything = {x.encode() if isinstance(x, str) else bytes(x.tolist()) for x in documents if x is not None}
    trained = everything - inside - {b"", b" \n"}
    assert inside and inside <= everything and trained
    assert fraction == 0.5 or sum(map(len, inside)) <= sum(map(len, trained))
    settings = {"block_size": 16, "batch_sequences": 1}
    with Ranks(data, tmp_path / "c", manifest=manifest, reader=reader, **settings) as run:
        rows = run.steps(len(STORY) // 16)
    stream = b"".join(row[0, :-1].astype("<u2").tobytes() for row in rows)
    assert not any(np.frombuffer(x, np.uint8).astype("<u2").tobytes() in stream for x in inside)
    again = opened(source, tmp_path / "other", validation_fraction=fraction)
    assert (again[1], again[1].fingerprint) == (manifest, manifest.fingerprint)
    assert validation_set(again[1], again[2], Decoding(), data, tmp_path / "other").sha256 == held.sha256
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


def test_the_pieces_are_the_document_and_are_cut_between_words():
    pieces = cut(STORY, 9)
    assert len(pieces) == 9 and "".join(pieces) == STORY
    assert all(piece[-1].isspace() for piece in pieces[:-1]) and max(map(len, pieces)) < 1.5 * len(STORY) / 9
    assert "".join(cut("x" * 100, 7)) == "x" * 100
    assert np.array_equal(np.concatenate(cut(np.arange(50), 7)), np.arange(50))


def test_prepared_tokens_of_a_small_source_are_its_whole_documents(tmp_path):
    source = write(tmp_path / "s", "a story")
    manifest = resolve(str(source), config(source), cache_dir=tmp_path / "c")
    reader = open_reader(manifest, cache_dir=tmp_path / "c", eot_id=EOT)
    assert [reader.read(block) for block in range(len(manifest))] == [[STORY]]


@pytest.mark.parametrize("text", ["x", "", "\n\n"])
def test_what_cannot_be_divided_is_said(text, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    with pytest.raises(UserError, match=r"too little to train on; give at least 100|holds no text to learn from"):
        data, manifest, reader = opened(tmp_path / "a.jsonl", tmp_path / "c")
        validation_set(manifest, reader, Decoding(), data, tmp_path / "c")


# Order and validation set of the sources of `corpus`, as they were before small sources were looked at.
BEFORE = {
    "parquet": ("36e7eece803df548", "fd34a9b3bd896462"),
    "jsonl": ("8f1b374c708d2778", "9a07136b64d314ca"),
    "txt": ("3782216847bce141", "107fb9fe2b3db9fb"),
    "tokens": ("4707a0682e688af5", "e4f8e79fff90c612"),
    "jsonl.gz": ("35e3f9d60833873e", "2d8cc3e2c63f4e4e"),
}
FINGERPRINTS = {"jsonl": "7d7b1e72a464a9bc", "txt": "80155346d0e560c9", "tokens": "e038794b984f46c1"}


@pytest.mark.parametrize("kind", list(BEFORE))
def test_larger_sources_keep_their_order_their_fingerprint_and_their_validation_set(kind, tmp_path):
    source = WRITERS[kind](tmp_path / "s")
    data, manifest, reader = opened(source, tmp_path / "c", validation_fraction=0.05)
    assert manifest.share is None and manifest.pieces == 0
    assert kind not in FINGERPRINTS or manifest.fingerprint.startswith(FINGERPRINTS[kind])
    held = validation_set(manifest, reader, Decoding(), data, tmp_path / "c")
    with Ranks(data, tmp_path / "c", manifest=manifest, reader=reader) as run:
        assert (sha256(run.steps(20))[:16], held.sha256[:16]) == BEFORE[kind]


class Refusing:
    """A reader whose first readings of a block fail as the system makes them fail."""

    def __init__(self, reader, block, times):
        self.reader, self.block, self.times = reader, block, times

    def read(self, block):
        if block == self.block and self.times:
            self.times -= 1
            raise Unreadable(block, "Input/output error") from OSError(errno.EIO, "Input/output error")
        return self.reader.read(block)

    def close(self):
        self.reader.close()


def test_one_failed_open_gives_no_other_validation_set(tmp_path):
    source = WRITERS["jsonl"](tmp_path / "s")
    data, manifest, reader = opened(source, tmp_path / "c", validation_fraction=0.05)
    right = validation_set(manifest, reader, Decoding(), data, tmp_path / "right").sha256
    for block in range(len(manifest)):
        once = Refusing(reader, block, 1)
        assert validation_set(manifest, once, Decoding(), data, tmp_path / f"{block}").sha256 == right


def test_a_block_that_the_system_refuses_is_no_reason_to_choose_others(tmp_path):
    source = WRITERS["jsonl"](tmp_path / "s")
    data, manifest, reader = opened(source, tmp_path / "c", validation_fraction=0.05)
    right = validation_set(manifest, reader, Decoding(), data, tmp_path / "right").sha256
    with pytest.raises(TryAgain, match=r"part 0 of .* cannot be read \(Input/output error\).*start the same command"):
        validation_set(manifest, Refusing(reader, 0, 10**9), Decoding(), data, tmp_path / "v")
    assert not list((tmp_path / "v").rglob("*.safetensors"))
    assert validation_set(manifest, reader, Decoding(), data, tmp_path / "v").sha256 == right


def test_a_file_that_is_touched_while_the_set_is_made_is_tried_again(tmp_path):
    source = WRITERS["parquet"](tmp_path / "s")
    data, manifest, reader = opened(source, tmp_path / "c", validation_fraction=0.05)
    (source / "part-1.parquet").touch()
    with pytest.raises(TryAgain, match="was changed since the run began"):
        validation_set(manifest, reader, Decoding(), data, tmp_path / "v")


def test_the_rule_for_leaving_out_is_one(tmp_path):
    data = config(validation_fraction=0.0, max_document_chars=100)
    given = ["good", "", " \n", None, 7, "x" * 101, "\ud800", np.array([], np.uint16), np.array([1])]
    assert [reason_against(x, data) for x in given] == [
        None, "empty", "empty", "not_text", "not_text", "too_long", "not_text", "empty", None,
    ]  # fmt: skip
