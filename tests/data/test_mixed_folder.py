"""A folder with files of several kinds: each kind of it is a source by itself."""

from __future__ import annotations

import pytest

from mygpt2.data.sources.local.find import kinds_in
from mygpt2.data.sources.local.folder import resolve_local
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.errors import UserError
from tests.data.corpus import EOT, config, texts, write_jsonl, write_parquet, write_txt


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "mixed"
    write_parquet(folder / "a")
    write_jsonl(folder / "b", documents=30)
    write_txt(folder / "a", paragraphs=20)
    (folder / "notes.md").write_text("no data")
    return folder


def test_the_kinds_of_a_folder_are_told_with_their_files(mixed):
    found = kinds_in(mixed)
    assert list(found) == ["jsonl", "parquet", "txt"]
    assert found["jsonl"] == [mixed / "b" / "part-0.jsonl", mixed / "b" / "part-1.jsonl"]
    assert sum(map(len, found.values())) == sum(path.is_file() for path in mixed.rglob("*")) - 1
    assert kinds_in(mixed / "b" / "part-0.jsonl") == {"jsonl": [mixed / "b" / "part-0.jsonl"]}


def test_each_kind_resolves_by_itself_and_together_they_hold_everything(mixed, tmp_path):
    documents, notes = [], []
    for kind in kinds_in(mixed):
        manifest = resolve(str(mixed), config(mixed), cache_dir=tmp_path, only=kind)
        assert (
            manifest.kind == kind and f"its {kind} files alone, of 2 jsonl, 3 parquet, 41 txt files" in manifest.notes
        )
        notes += manifest.notes[1:]
        reader = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT)
        documents += [text for block in range(len(manifest)) for text in reader.read(block)]
    assert {"\n\n".join(texts(20)), *texts(40, 20), *texts(360), *texts(60)} == set(documents)
    assert notes == ["not read: 1 of other formats (1 .md): notes.md"]  # once
    alone = resolve(str(mixed / "b"), config(mixed), cache_dir=tmp_path)
    assert alone.notes == () and len(alone.files) == 2


def test_a_split_left_out_is_left_out_of_every_kind(mixed):
    (mixed / "a").rename(mixed / "train")
    (mixed / "b").rename(mixed / "test")
    assert list(kinds_in(mixed)) == ["parquet", "txt"]


def test_arrays_beside_text_are_no_kind_of_their_own(mixed):
    (mixed / "weights.npy").write_bytes(bytes(100))
    assert "tokens" not in kinds_in(mixed)


def test_a_kind_that_is_not_there_is_refused_with_what_there_is(mixed, tmp_path):
    with pytest.raises(UserError, match=r"holds no tokens files, but 2 jsonl, 3 parquet, 41 txt; give a path with"):
        resolve_local("here", mixed, config(mixed), only="tokens")
    with pytest.raises(UserError, match=r"mixes formats \(2 jsonl, 3 parquet, 41 txt files\)"):
        resolve_local("here", mixed, config(mixed))
