"""Local sources: every format gives its documents, whatever the blocks; what cannot be used is said in one line."""

from __future__ import annotations

import gzip
import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.local.textfiles import line_range, split_text
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.errors import UserError
from tests.data.corpus import (
    EOT,
    WRITERS,
    config,
    texts,
    write_jsonl,
    write_parquet,
    write_tokens,
)


def manifest_of(source, tmp_path, **settings):
    return resolve(str(source), config(source, **settings), cache_dir=tmp_path / "cache")


def documents_of(manifest, tmp_path):
    reader = open_reader(manifest, cache_dir=tmp_path / "cache", eot_id=EOT)
    return [reader.read(block) for block in range(len(manifest))]


def flat(blocks):
    return [document for block in blocks for document in block]


def test_parquet_row_groups_are_blocks(tmp_path):
    manifest = manifest_of(write_parquet(tmp_path / "p"), tmp_path)
    assert (manifest.kind, len(manifest), manifest.documents) == ("parquet", 45, 360)
    assert flat(documents_of(manifest, tmp_path)) == texts(360)
    assert manifest.notes == ()


def test_large_row_groups_are_read_in_parts(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    long = [f"{i} " + "y" * 900 for i in range(4000)]
    pq.write_table(pa.table({"text": long}), folder / "one.parquet", row_group_size=10**6, compression="zstd",
                   use_dictionary=False)  # fmt: skip
    manifest = manifest_of(folder, tmp_path)
    assert len(manifest) >= 8 and "decodes its row group" in manifest.notes[0]
    assert flat(documents_of(manifest, tmp_path)) == long


@pytest.mark.parametrize("documents", [0, 1, 3000, 9000])
def test_every_line_of_jsonl_is_in_exactly_one_block(documents, tmp_path):
    folder = write_jsonl(tmp_path / "j", 1, max(1, documents))
    if not documents:
        (folder / "part-0.jsonl").write_text('\n\n{"text": "only"}')  # no line end at its end
    manifest = manifest_of(folder, tmp_path)
    assert flat(documents_of(manifest, tmp_path)) == (texts(documents) if documents else ["only"])
    assert (len(manifest) > 1) == (documents > 1000)


def test_a_line_belongs_to_the_block_where_it_starts():
    lines = [b"%07d\n" % i for i in range(100)]
    source = io.BytesIO(b"".join(lines))
    assert line_range(source, 0, 16) == b"".join(lines[:2])  # the third begins where the block ends
    assert line_range(source, 16, 33) == b"".join(lines[2:5])
    assert line_range(source, 33, 34) == b""


def test_a_line_longer_than_blocks_belongs_to_the_block_where_it_starts(tmp_path):
    folder = tmp_path / "j"
    folder.mkdir()
    lines = [texts(1)[0], "z" * 300_000, "after", "w" * 70_000, "end"]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))
    blocks = documents_of(manifest_of(folder, tmp_path), tmp_path)
    assert len(blocks) > 4 and flat(blocks) == lines


def test_lines_that_are_no_documents_come_as_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"text": 3}\n{"other": 1}\n{torn\n[1]\n"\xff"\n')
    assert documents_of(manifest_of(path, tmp_path), tmp_path) == [["good", 3, None, None, None, None]]


def test_txt_blocks_lose_and_repeat_nothing(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    paragraphs = [t * 7 + " é€😀" for t in texts(1500)]
    content = "\n\n".join(paragraphs) + "\n"
    (folder / "long.txt").write_bytes(content.encode())
    manifest = manifest_of(folder, tmp_path)
    found = flat(documents_of(manifest, tmp_path))
    assert len(manifest) > 5 and "".join(found) == content
    assert all(8192 <= len(d.encode()) < 10_000 for d in found[:-1]) or len(found) > len(manifest)


@pytest.mark.parametrize("unit", ["no blank lines\n", "nolineendsatallé"])
def test_txt_without_blank_lines_is_still_cut_into_blocks(unit, tmp_path):
    path = tmp_path / "long.txt"
    content = unit * (400_000 // len(unit))
    path.write_bytes(content.encode())
    blocks = documents_of(manifest_of(path, tmp_path), tmp_path)
    assert len(blocks) > 4 and "".join(flat(blocks)) == content


def test_small_txt_files_are_a_document_each(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    for i, text in enumerate(texts(30)):
        (folder / f"{i:02d}.txt").write_text(text + "\n\nsecond paragraph")
    (folder / "07.txt").write_bytes(b"\xff not UTF-8")
    manifest = manifest_of(folder, tmp_path)
    found = flat(documents_of(manifest, tmp_path))
    assert manifest.documents == 30 and found[7] is None
    assert [d for d in found if d] == [t + "\n\nsecond paragraph" for i, t in enumerate(texts(30)) if i != 7]


def test_paragraphs_are_put_together_up_to_some_8_kb():
    content = b"\n\n".join(b"p" * 1000 for _ in range(50))
    found = split_text(content)
    assert "".join(d for d in found if d).encode() == content
    assert [len(d or "") // 1000 for d in found][:-1] == [9] * (len(found) - 1)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_files_are_one_block_and_the_manifest_says_so(suffix, tmp_path):
    folder = tmp_path / "z"
    folder.mkdir()
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts(500)).encode()
    content = gzip.compress(lines) if suffix == "gz" else pa.compress(lines, "zstd", asbytes=True)
    (folder / f"a.jsonl.{suffix}").write_bytes(content)
    manifest = manifest_of(folder, tmp_path)
    assert "not random-access" in manifest.notes[0]
    assert documents_of(manifest, tmp_path) == [texts(500)]


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("eot_first", [False, True])
def test_token_files_give_the_same_documents_in_both_layouts(header, eot_first, tmp_path):
    manifest = manifest_of(write_tokens(tmp_path / "b", 6000, header, eot_first), tmp_path)
    found = flat(documents_of(manifest, tmp_path))
    assert len(manifest) > 2
    assert [bytes(d.tolist()).decode() for d in found] == texts(6000)


@pytest.mark.parametrize("every", [1000, 65_536, 100_000, 150_000, 10**9])
def test_token_documents_longer_than_blocks_lose_and_repeat_nothing(every, tmp_path):
    ids = np.arange(500_000) % 251
    ids[every - 1 :: every] = EOT
    (tmp_path / "a.bin").write_bytes(ids.astype("<u2").tobytes())
    found = flat(documents_of(manifest_of(tmp_path / "a.bin", tmp_path), tmp_path))
    assert np.array_equal(np.concatenate(found), ids[ids != EOT])
    assert max(map(len, found)) <= 2 * 65_536


def test_the_fingerprint_follows_the_data_not_the_place(tmp_path):
    first = manifest_of(write_parquet(tmp_path / "here"), tmp_path)
    second = manifest_of(write_parquet(tmp_path / "there"), tmp_path)
    os.utime(tmp_path / "there" / "part-0.parquet", (1, 1))
    assert first.fingerprint == second.fingerprint == manifest_of(tmp_path / "there", tmp_path).fingerprint
    assert Manifest.from_dict(json.loads(json.dumps(first.to_dict()))).fingerprint == first.fingerprint


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_changed_file_changes_the_fingerprint(kind, tmp_path):
    folder = WRITERS[kind](tmp_path / "s")
    before = manifest_of(folder, tmp_path).fingerprint
    path = max(folder.iterdir(), key=lambda p: p.stat().st_size)
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # same size, and below the same time
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert manifest_of(folder, tmp_path).fingerprint != before


def test_a_file_that_changes_while_running_is_unreadable(tmp_path):
    folder = write_parquet(tmp_path / "p")
    manifest = manifest_of(folder, tmp_path)
    reader = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT)
    reader.read(0)
    os.utime(folder / "part-0.parquet", (5, 5))
    with pytest.raises(Unreadable, match="changed since the run began"):
        reader.read(0)
    (folder / "part-2.parquet").unlink()
    with pytest.raises(Unreadable, match="part-2"):
        reader.read(len(manifest) - 1)


def test_page_checksums_are_verified(tmp_path):
    folder = write_parquet(tmp_path / "p", files=1)
    path = folder / "part-0.parquet"
    content = bytearray(path.read_bytes())
    content[content.index(b"<00003>") + 2] ^= 1
    path.write_bytes(content)
    manifest = manifest_of(folder, tmp_path)
    reader = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT)
    with pytest.raises(Unreadable):
        reader.read(0)
    assert reader.read(1) == texts(8, 8)


def write_bad(folder, name):
    """A source that cannot be used, by name; returns what to give as data.source."""
    folder.mkdir()
    if name == "no text column":
        pq.write_table(pa.table({"body": ["a"], "n": [1]}), folder / "a.parquet")
    elif name == "column of numbers":
        pq.write_table(pa.table({"text": [1], "body": ["a"]}), folder / "a.parquet")
    elif name == "mixed":
        write_parquet(folder, files=1)
        write_jsonl(folder, files=1, documents=3)
    elif name == "torn parquet":
        path = write_parquet(folder, files=1) / "part-0.parquet"
        path.write_bytes(path.read_bytes()[:-20])
    elif name == "rubbish footer":
        (folder / "a.parquet").write_bytes(b"PAR1" + bytes(100) + (60).to_bytes(4, "little") + b"PAR1")
    elif name == "no key":
        (folder / "a.jsonl").write_text('{"body": "a", "n": 1}\n')
    elif name == "no json":
        (folder / "a.jsonl").write_text("hello\n")
    elif name == "empty files":
        (folder / "a.txt").write_text("")
    elif name == "odd bytes":
        (folder / "a.bin").write_bytes(b"123")
    elif name == "short header":
        (folder / "a.bin").write_bytes(np.array([20240520, 1, 9, *[0] * 253], "<i4").tobytes())
    elif name == "unknown format":
        (folder / "a.csv").write_text("a,b")
        return folder / "a.csv"
    elif name == "missing":
        return folder / "missing"
    elif name == "missing file":
        return "texts/missing.jsonl"
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ["does not exist", "pydocs", "check the path"]),
        ("missing file", ["texts/missing.jsonl does not exist"]),
        ("no files", ["folder without parquet, Arrow, jsonl, txt, tar"]),
        ("unknown format", ["a.csv", "allowed: parquet"]),
        ("mixed", ["mixes formats (1 jsonl, 1 parquet files)"]),
        ("no text column", ["data.text_column=text", "columns there: body, n"]),
        ("column of numbers", ["int64, not text", "columns with text: body"]),
        ("torn parquet", ["part-0.parquet is not a readable parquet file"]),
        ("rubbish footer", ["a.parquet is not a readable parquet file"]),
        ("no key", ["data.text_column=text", "keys there: body, n"]),
        ("no json", ["a.jsonl does not begin with a line of JSON"]),
        ("empty files", ["its 1 txt files are empty"]),
        ("odd bytes", ["a.bin is not a pre-tokenized file", "3 bytes"]),
        ("short header", ["a.bin is not a pre-tokenized file", "promises 9 tokens"]),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(name, words, tmp_path):
    source = write_bad(tmp_path / "bad", name)
    with pytest.raises(UserError) as error:
        manifest_of(source, tmp_path)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_token_files_of_another_vocabulary_are_refused(tmp_path):
    from tests.data.corpus import Ranks

    (tmp_path / "a.bin").write_bytes(np.arange(5000, dtype="<u2").tobytes())
    with (
        Ranks(config(tmp_path / "a.bin"), tmp_path, batch_sequences=1) as run,
        pytest.raises(UserError, match="holds the id 4999; the tokenizer gpt2 has 257 ids"),
    ):
        run.steps(200)
