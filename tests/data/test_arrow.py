"""Arrow sources: what `datasets` saves, and bare streams and files; read at random, never believed unseen."""

from __future__ import annotations

import importlib.util
import json
import os
import random

import numpy as np
import pyarrow as pa
import pytest

from mygpt2.data.heldout import chosen
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.filters import Filtered
from mygpt2.data.sources.local import arrow
from mygpt2.data.sources.local.ipc import layout_of
from mygpt2.data.sources.local.seals import label_of, seal
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.errors import UserError
from tests.data.corpus import EOT, check_ranks, config, texts

COUNT = 240
LAYOUTS = {"stream": pa.ipc.new_stream, "file": pa.ipc.new_file}


def written(path, batches, layout="stream", **options):
    with LAYOUTS[layout](str(path), batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        if layout == "file":
            writer.write_table(pa.Table.from_batches(batches))
        for batch in batches if layout == "stream" else ():
            writer.write_batch(batch)
    return path


def batches(kind=None, each=8, count=COUNT):
    kind = kind or pa.string()
    found = []
    for start in range(0, count, each):
        rows = texts(min(each, count - start), start)
        column = pa.array(rows).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(rows, kind)
        found.append(pa.record_batch({"n": pa.array(range(start, start + len(rows))), "text": column}))
    return found


def saved(folder, files=2, split="train"):
    """What `datasets` 5 saves, file by file."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
    for i, name in enumerate(names):
        share = [pa.record_batch({"text": texts(60, 120 * i + at)}) for at in (0, 60)]
        written(folder / name, share)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "1c9b", "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"text": {"dtype": "string"}}}))
    return folder


def read(source, tmp_path, **settings):
    manifest = resolve(str(source), config(source, **settings), cache_dir=tmp_path / "cache")
    reader = open_reader(manifest, cache_dir=tmp_path / "cache", eot_id=EOT)
    order = random.Random(1).sample(range(len(manifest)), len(manifest))  # at random, as training reads
    found = {block: reader.read(block) for block in order}
    return manifest, [text for block in range(len(manifest)) for text in found[block]]


KINDS = {
    "string": pa.string(), "large_string": pa.large_string(), "string_view": pa.string_view(), "binary": pa.binary(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}  # fmt: skip


@pytest.mark.parametrize("packed", [None, "lz4", "zstd"])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_row_is_read_once_in_either_layout(layout, kind, packed, tmp_path):
    options = {"compression": packed, "emit_dictionary_deltas": True, "unify_dictionaries": layout == "file"}
    path = written(tmp_path / "a.arrow", batches(KINDS[kind], each=60), layout, **options)
    manifest, found = read(path, tmp_path)
    assert (manifest.kind, manifest.documents, manifest.notes) == ("arrow", COUNT, ())
    assert found == texts(COUNT)


@pytest.mark.parametrize("deltas", [True, False])
@pytest.mark.parametrize("each", [1, 8])
def test_dictionaries_that_change_on_the_way_are_those_of_their_batch(each, deltas, tmp_path):
    long = [f"{i} " + "y" * 20_000 for i in range(60)]
    parts = [long[i : i + each] for i in range(0, 60, each)]
    if deltas:  # each dictionary begins as the one before
        columns = [pa.DictionaryArray.from_arrays(list(range(i * each, i * each + len(p))), long[: i * each + len(p)])
                   for i, p in enumerate(parts)]  # fmt: skip
    else:
        columns = [pa.array(p).dictionary_encode() for p in parts]
    path = written(tmp_path / "a.arrow", [pa.record_batch({"text": c}) for c in columns], emit_dictionary_deltas=deltas)
    assert {message.delta for message in layout_of(str(path)).dictionaries[1:]} == {deltas}
    manifest, found = read(path, tmp_path)
    assert len(manifest) > 3 and found == long


def test_small_batches_share_a_block_and_large_ones_are_read_in_parts(tmp_path, monkeypatch):
    small = written(tmp_path / "small.arrow", batches(each=1, count=4000))
    manifest, found = read(small, tmp_path)
    assert 2 <= len(manifest) < 20 and manifest.notes == () and found == texts(4000)
    long = [f"{i} " + "y" * 900 for i in range(4000)]
    monkeypatch.setattr("mygpt2.data.sources.local.cutting.BLOCK_BYTES", 500_000)
    large = written(tmp_path / "large.feather", [pa.record_batch({"text": long})], "file")
    manifest, found = read(large, tmp_path)
    assert len(manifest) >= 8 and "1 record batches have up to 3 MB" in manifest.notes[0] and found == long


def test_batches_without_rows_are_nobodys_block(tmp_path):
    empty = pa.record_batch({"text": pa.array([], pa.string())})
    some = [pa.record_batch({"text": [f"{i} " + "x" * 50_000]}) for i in range(5)]
    path = written(tmp_path / "a.arrow", [empty, some[0], empty, *some[1:4], empty, some[4], empty])
    manifest, found = read(path, tmp_path)
    assert [text.split()[0] for text in found] == list("01234") and len(manifest) < 5


def test_what_is_no_text_comes_as_none(tmp_path):
    binary = pa.record_batch({"text": pa.array([b"good", None, b"\xff\xfe", "é".encode()], pa.binary())})
    assert read(written(tmp_path / "a.arrow", [binary]), tmp_path)[1] == ["good", None, None, "é"]
    values = pa.array(["one", None, "two"])
    column = pa.DictionaryArray.from_arrays(pa.array([2, 1, None, 0], pa.int8()), values)
    path = written(tmp_path / "b.arrow", [pa.record_batch({"text": column})])
    assert read(path, tmp_path)[1] == ["two", None, None, "one"]


def test_a_saved_dataset_is_read_and_what_datasets_cached_beside_it_is_not(tmp_path):
    folder = saved(tmp_path / "set")
    written(folder / "cache-0123456789abcdef.arrow", batches())
    written(folder / "other.arrow", batches())
    manifest, found = read(folder, tmp_path)
    assert found == texts(COUNT)
    assert manifest.notes == ("not read: 2 that `datasets` keeps beside a dataset and that are none of its files: "
                              "cache-0123456789abcdef.arrow, other.arrow",)  # fmt: skip
    for name in ("state.json", "other.arrow"):
        (folder / name).unlink()
    assert read(folder, tmp_path)[1] == texts(COUNT)  # a cache is told by its name as well
    (folder / "cache-0123456789abcdef.arrow").unlink()
    assert read(folder, tmp_path)[0].notes == ()


def test_of_a_dataset_dict_the_split_train_is_read(tmp_path):
    for split in ("train", "test"):
        saved(tmp_path / "dict" / split, split=split)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    manifest, found = read(tmp_path / "dict", tmp_path)
    assert found == texts(COUNT) and all(file.name.startswith("train/") for file in manifest.files)
    assert manifest.notes[0].startswith("only the split train is read; 2 files of other splits are not: test/data-")


def test_a_part_of_a_saved_dataset_is_refused(tmp_path):
    folder = saved(tmp_path / "set", files=3)
    (folder / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(UserError, match=r"not whole: state.json names 3 files and data-00001-of-00003.arrow is not th"):
        read(folder, tmp_path)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "_indices_data_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(UserError, match="is a selection of rows of a dataset, which an old version"):
        read(folder, tmp_path)
    for content in ("[1]", "no JSON", '{"_data_files": [3]}'):  # of another program
        (folder / "state.json").write_text(content)
        assert len(read(folder, tmp_path)[0].files) == 2
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")  # which nobody opens
    assert len(read(folder, tmp_path)[0].files) == 2


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="`datasets` is not installed here")
def test_what_datasets_itself_saves_is_read(tmp_path, monkeypatch):
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"text": texts(COUNT), "score": [float(i % 5) for i in range(COUNT)]})
    whole.select(range(30, 90)).save_to_disk(tmp_path / "some", num_shards=2)  # a selection is written as rows
    assert read(tmp_path / "some", tmp_path)[1] == texts(60, 30)
    splits = datasets.DatasetDict({"train": whole, "test": whole.select(range(5))})
    splits.save_to_disk(tmp_path / "dict")
    assert read(tmp_path / "dict", tmp_path)[1] == texts(COUNT)
    kept = read(tmp_path / "dict", tmp_path, min_score=3.0)[1]
    assert [text for text in kept if isinstance(text, str)] == [t for i, t in enumerate(texts(COUNT)) if i % 5 >= 3]


def test_filters_look_at_the_columns_beside_the_text(tmp_path):
    languages = pa.array(["en", "de", None] * 4).dictionary_encode()
    batch = pa.record_batch({"text": texts(12), "score": [1, 2, 3, 4] * 3, "language": languages})
    path = written(tmp_path / "a.arrow", [batch])
    found = read(path, tmp_path, min_score=2.0, language="en")[1]
    assert [x.reason if isinstance(x, Filtered) else x for x in found[:4]] == [
        "score below 2", "language not en", "no language", texts(4)[3]
    ]  # fmt: skip
    with pytest.raises(
        UserError, match=r"data.score_column=text of .* holds string, not numbers; columns with numbers"
    ):
        read(path, tmp_path, min_score=1.0, score_column="text")


def test_training_on_arrow_gives_the_batches_of_any_rank_count_and_goes_on_where_it_stopped(tmp_path):
    path = written(tmp_path / "a.arrow", batches(each=20))
    check_ranks(path, tmp_path)


def test_how_many_batches_a_block_has_is_part_of_its_identity(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    written(folder / "a.arrow", batches(each=1, count=4000))
    alone = resolve(str(folder), config(folder), cache_dir=tmp_path)
    written(folder / "b.arrow", [pa.record_batch({"text": ["z" * 10_000]})] * 4000)
    together = resolve(str(folder), config(folder), cache_dir=tmp_path)
    rows = together.blocks["rows"][together.blocks["file"] == 0]
    assert rows[0] > alone.blocks["rows"][0]
    assert alone.block_identity(0) != together.block_identity(0)


TORN = {
    "in a batch": lambda content, ends: content[: ends[2] - 40],
    "in a head": lambda content, ends: content[: ends[2] + 20],
    "in a mark": lambda content, ends: content[: ends[2] + 3],
    "a few bytes": lambda content, ends: content[:30],
    "nothing": lambda content, ends: b"",
    "zeros": lambda content, ends: bytes(500),
    "a second stream": lambda content, ends: content + content,
    "no schema": lambda content, ends: content[ends[1] :],
    "noise": lambda content, ends: content[: ends[1]] + b"\x07" * 400,
}


@pytest.mark.parametrize("name", list(TORN))
def test_a_file_that_is_not_whole_is_refused_in_one_line(name, tmp_path):
    path = written(tmp_path / "a.arrow", batches())
    path.write_bytes(TORN[name](path.read_bytes(), layout_of(str(path)).batches[:, 1].tolist()))
    with pytest.raises(UserError, match=r"a\.arrow is not a readable Arrow file \(.+\); remove it, or write") as error:
        read(path, tmp_path)
    assert "\n" not in str(error.value)


def test_a_file_without_a_footer_and_older_layouts_are_refused_with_what_they_are(tmp_path):
    path = written(tmp_path / "a.feather", batches(), "file")
    content = path.read_bytes()
    for changed, words in ((content[:-300], "no footer at its end"), (b"FEA1" + content[4:], "Feather of version 1"),
                           (b"PK\x03\x04" + content[4:], "is a zip archive")):  # fmt: skip
        path.write_bytes(changed)
        with pytest.raises(UserError, match=words):
            read(path, tmp_path)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"is an Arrow file; let its name end in \.arrow"):
        read(tmp_path / "a.txt", tmp_path)


def test_a_stream_that_just_stops_is_noted(tmp_path):
    path = written(tmp_path / "a.arrow", batches())
    path.write_bytes(path.read_bytes()[:-8])
    manifest, found = read(path, tmp_path)
    assert found == texts(COUNT) and "1 of 1 streams do not say where they end (a.arrow)" in manifest.notes[0]


@pytest.mark.parametrize("columns, words", [
    ({"body": ["a"], "n": [1]}, "data.text_column=text is not in .*; columns there: body, n; columns with text: body"),
    ({"text": [1]}, "holds int64, not text"),
    ({"text": [["a"]]}, "not text"),
])  # fmt: skip
def test_a_text_column_that_is_not_there_is_said_as_for_parquet(columns, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read(written(tmp_path / "a.arrow", [pa.record_batch(columns)]), tmp_path)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("packed", [None, "zstd"])
@pytest.mark.parametrize("kind", ["string", "dictionary", "string_view"])
def test_any_damaged_byte_is_read_as_text_or_told_with_its_place(kind, packed, layout, tmp_path):
    path = written(tmp_path / "a.arrow", batches(KINDS[kind], 24, 96), layout, compression=packed,
                   unify_dictionaries=layout == "file")  # fmt: skip
    content, rng = path.read_bytes(), random.Random(3)
    ends = {"unreadable": 0, "refused": 0, "read": 0}
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read(path, tmp_path)[1]
            assert all(isinstance(text, str | None) for text in found)
            ends["read"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            ends["refused"] += 1
        except Unreadable as error:
            assert error.reason
            ends["unreadable"] += 1
    assert min(ends.values()) > 0


def test_a_block_that_is_damaged_later_is_unreadable_and_the_others_are_read(tmp_path):
    path = written(tmp_path / "a.arrow", [pa.record_batch({"text": [f"{i} " + "x" * 150_000]}) for i in range(8)])
    manifest = resolve(str(path), config(path), cache_dir=tmp_path)
    assert len(manifest) >= 4
    reader = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT)
    assert reader.read(0)
    stamp = path.stat().st_mtime_ns
    with open(path, "r+b") as f:
        f.seek(int(layout_of(str(path)).batches[3, 0]))
        f.write(b"\0" * 64)
    os.utime(path, ns=(stamp, stamp))
    again = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT)
    with pytest.raises(Unreadable, match="no Arrow message at byte"):
        again.read(3)
    with pytest.raises(Unreadable):
        reader.read(3)
    assert reader.read(0) and reader.read(len(manifest) - 1)


def test_a_seal_names_the_record_batch_that_changed(tmp_path):
    path = written(tmp_path / "a.arrow", batches(each=40))
    manifest = resolve(str(path), config(path), cache_dir=tmp_path)
    before = seal(manifest, 0)
    content = bytearray(path.read_bytes())
    content[content.index(texts(1, 100)[0].encode()) + 9] ^= 1
    path.write_bytes(content)
    block = next(n for n in range(len(manifest)) if label_of(manifest, n)[1] in before.differences(seal(manifest, 0)))
    first = int(manifest.blocks["rows"][:block].sum())
    assert first <= 100 < first + int(manifest.blocks["rows"][block])


@pytest.mark.parametrize("kind", ["packed", "dictionary", "views", "rows"])
def test_a_few_bytes_do_not_become_more_text_than_memory_holds(kind, tmp_path, monkeypatch):
    if kind == "packed":
        monkeypatch.setattr("mygpt2.data.sources.local.ipc.ALWAYS_ALLOWED", 1 << 10)
        path = written(tmp_path / "a.arrow", [pa.record_batch({"text": ["a" * 4_000_000]})], compression="zstd")
        reason = "unpack to more than"
    elif kind == "rows":  # nulls take no room at all
        batch = pa.record_batch({"text": pa.nulls(200)})
        monkeypatch.setattr("mygpt2.data.sources.local.cutting.MOST_ROWS", 199)
        with pytest.raises(UserError, match="a record batch promises 200 rows; allowed: at most 199"):
            read(written(tmp_path / "a.arrow", [batch]), tmp_path)
        return
    else:
        monkeypatch.setattr(arrow, "ALWAYS_ALLOWED", 1 << 10)
        long, reason = "a" * 10_000, "become more than"
        if kind == "dictionary":
            column = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int8()), [long])
        else:
            views = np.frombuffer(pa.array([long], pa.string_view()).buffers()[1], np.uint8)
            every = pa.py_buffer(np.tile(views, 5000).tobytes())
            column = pa.Array.from_buffers(pa.string_view(), 5000, [None, every, pa.py_buffer(long.encode())])
        path = written(tmp_path / "a.arrow", [pa.record_batch({"text": column})])
    with pytest.raises(Unreadable, match=reason):
        read(path, tmp_path)


def test_every_document_is_counted(tmp_path):
    column = pa.array([b"good", None, b"\xff", b"", b"  "], pa.binary())
    found = read(written(tmp_path / "a.arrow", [pa.record_batch({"text": column})]), tmp_path)[1]
    kept, left_out = chosen(found, config(validation_fraction=0.0))
    assert kept == [0] and left_out == {"not_text": 2, "empty": 2}
