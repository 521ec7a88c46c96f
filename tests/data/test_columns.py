"""A column of a whole block beside its text: of the same documents as the reader numbers, whatever the files are."""

from __future__ import annotations

import pytest

from mygpt2.data.columns import Columns
from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import HubSource
from mygpt2.data.sources.resolve import open_reader, resolve
from tests.data.corpus import EOT, WRITERS, config, write_parquet
from tests.data.hub_data import GROUPS, REPO, ROWS, SOURCE, FastClock, fineweb_edu
from tests.fake_hub import FakeHub

BESIDE = {"parquet": "id", "arrow": "id", "jsonl": "n", "jsonl.gz": None, "txt": None, "tokens": None}


@pytest.mark.parametrize("kind", BESIDE)
def test_every_document_has_the_value_of_its_own_row(tmp_path, kind):
    folder = WRITERS[kind](tmp_path / "data")
    manifest = resolve(str(folder), config(folder), cache_dir=tmp_path)
    reader, columns = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT), Columns(manifest, tmp_path)
    name = BESIDE[kind]
    assert columns.names(0) == ([name] if name else [])
    assert set(columns.values(0, "nowhere") or [None]) == {None}
    each = {"parquet": 120, "arrow": 120, "jsonl": 4000}
    for block in {0, 1, len(manifest) // 2, len(manifest) - 1} if name else ():
        documents, values = reader.read(block), columns.values(block, name)
        numbers = [int(text[1:6]) for text in documents]  # as `texts` counts them over all files
        assert values == [number % each[kind] for number in numbers]
    columns.close()


def test_of_a_row_group_that_makes_several_blocks_each_has_its_own_rows(tmp_path):
    folder = write_parquet(tmp_path / "data", files=1, documents=60_000, row_group=60_000)
    manifest = resolve(str(folder), config(folder), cache_dir=tmp_path)
    assert (manifest.blocks["stop"] >= 0).all() and len(manifest) > 1
    reader, columns = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT), Columns(manifest, tmp_path)
    for block in (0, 1, len(manifest) - 1):
        assert columns.values(block, "id") == [int(text[1:6]) for text in reader.read(block)]


def test_a_file_that_is_another_or_gone_is_unreadable(tmp_path):
    folder = WRITERS["parquet"](tmp_path / "data")
    manifest = resolve(str(folder), config(folder), cache_dir=tmp_path)
    first = folder / "part-0.parquet"
    content = first.read_bytes()
    first.write_bytes(content + b"more")
    with pytest.raises(Unreadable, match=r"part-0\.parquet is another file now"):
        Columns(manifest, tmp_path).values(0, "id")
    first.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    with pytest.raises(Unreadable, match=r"part-0\.parquet"):
        Columns(manifest, tmp_path).values(0, "id")
    first.unlink()
    with pytest.raises(Unreadable, match="No such file"):
        Columns(manifest, tmp_path).values(0, "id")


def test_of_the_hub_one_column_is_fetched_and_an_outage_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with FakeHub({REPO: fineweb_edu()}) as hub:
        client = HubClient(hub.endpoint, clock=FastClock(), budget_s=5)
        with HubSource(SOURCE, config(SOURCE), tmp_path, client) as source:
            manifest = source.manifest()
            columns = Columns(manifest, tmp_path, client)
            assert columns.names(0) == ["id", "token_count", "score"]
            before = hub.count("resolve") + hub.count("cdn")
            assert columns.values(GROUPS + 2, "id") == [f"<urn:uuid:{i}>" for i in range(ROWS)]
            assert hub.count("resolve") + hub.count("cdn") - before <= 3, "no text is fetched along"
            assert columns.values(3, "dump") is None
            hub.outage(1000)
            with pytest.raises(Outage):
                columns.values(5, "id")
