"""`data fetch`: whole files of the hub, checked, and gone on with where it stopped."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from mygpt2.errors import UserError
from tests.data.hub_data import FILES, GROUPS, REPO, ROWS, SOURCE, document, fineweb_edu
from tests.data.test_data_verb import own_cache, run  # noqa: F401 (a fixture)
from tests.fake_hub import FakeHub, Fault


@pytest.fixture(scope="module")
def files():
    return fineweb_edu()


@pytest.fixture
def hub(files, monkeypatch):
    with FakeHub({REPO: dict(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_fetch_copies_files_and_goes_on_where_it_stopped(hub, files, tmp_path, capsys):
    out = tmp_path / "copy"
    half = out / "sample/10BT/.001_00000.parquet.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(files["sample/10BT/001_00000.parquet"][:20_000])
    code, said, _ = run(capsys, "fetch", "--source", SOURCE, "--out", out, "--files", 3)
    assert code == 0 and "3 files" in said
    for i in range(3):
        name = f"sample/10BT/{i:03d}_00000.parquet"
        assert (out / name).read_bytes() == files[name]
    assert not (out / "sample/10BT/003_00000.parquet").exists() and not half.exists()
    asked = [r.range for r in hub.requests if r.range]
    assert any(r.startswith("bytes=20000-") for r in asked)
    before = hub.count()
    assert run(capsys, "fetch", "--source", SOURCE, "--out", out, "--files", 3)[0] == 0
    assert hub.count() - before == 2  # commit and list


def test_fetched_bytes_are_checked(hub, files, tmp_path, capsys):
    out = tmp_path / "copy"
    bad = out / "sample/10BT/.000_00000.parquet.part"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"x" * 100)
    hub.faults = [Fault("flip", where="cdn")]
    assert run(capsys, "fetch", "--source", SOURCE, "--out", out, "--files", 1)[0] == 0
    assert (out / "sample/10BT/000_00000.parquet").read_bytes() == files["sample/10BT/000_00000.parquet"]
    hub.faults = [Fault("flip", where="cdn", times=99)]
    code, _, err = run(capsys, "fetch", "--source", SOURCE, "--out", tmp_path / "b", "--files", 1)
    assert code == 2 and "does not have the hub's checksum" in err
    assert not list((tmp_path / "b").rglob("*.parquet"))


def test_fetch_of_the_text_alone_gives_the_same_documents(hub, tmp_path, capsys):
    out = tmp_path / "copy"
    assert run(capsys, "fetch", "--source", SOURCE, "--out", out, "--text-only")[0] == 0
    for f in range(FILES):
        file = pq.ParquetFile(out / f"sample/10BT/{f:03d}_00000.parquet")
        assert file.schema_arrow.names == ["text"] and file.num_row_groups == GROUPS
        assert file.read()["text"].to_pylist() == [document(f, g, r) for g in range(GROUPS) for r in range(ROWS)]


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train/0.arrow", "train-0.tar", "train-0.tar.zst"])
def test_fetch_takes_formats_that_are_not_read_from_the_hub(name, tmp_path, capsys, monkeypatch):
    with FakeHub({"o/n": {name: b"compressed", "README.md": b"no card"}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert run(capsys, "fetch", "--source", "o/n", "--out", tmp_path / "copy")[0] == 0
    assert (tmp_path / "copy" / name).read_bytes() == b"compressed"


@pytest.mark.parametrize("name", ["../x.jsonl", "a/../../x.jsonl", "/x.jsonl", "a//x.jsonl", "..\\x.jsonl"])
def test_a_listed_name_cannot_lead_out_of_the_folder(name, tmp_path):
    from mygpt2.data.sources.hub.fetch import place_of
    from mygpt2.data.sources.manifest import SourceFile

    with pytest.raises(UserError, match="has no place in --out"):
        place_of(SourceFile(name, 1, "x"), tmp_path)
    assert place_of(SourceFile("a/x.jsonl", 1, "x"), tmp_path) == tmp_path / "a" / "x.jsonl"
