"""Filters by score and language: who is left out is counted, nothing moves, and without filters nothing changes."""

from __future__ import annotations

import io
import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.__main__ import main
from mygpt2.config.data import DataConfig
from mygpt2.data.heldout import chosen
from mygpt2.data.sources.filters import Filtered, Filters
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import HubSource, open_hub
from mygpt2.data.sources.hub.parquet import GAP, together
from mygpt2.data.sources.local.seals import seal
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.data.sources.resolve import open_reader, open_settled, resolve
from mygpt2.data.validation import validation_set
from mygpt2.errors import UserError
from tests.data.corpus import EOT, Bytes, Ranks, config, sha256, texts, write_tokens, write_txt
from tests.data.hub_data import GROUPS, REPO, SOURCE, FastClock, document, fineweb_edu
from tests.fake_hub import FakeHub

SCORES = [None if i % 7 == 6 else i % 5 + 0.5 for i in range(240)]
LANGUAGES = [None if i % 11 == 10 else ("en", "en", "de")[i % 3] for i in range(240)]


def parquet(folder, **more):
    folder.mkdir()
    rows = {"text": texts(240), "score": SCORES, "language": LANGUAGES, "int_score": list(range(240))}
    table = pa.table({**rows, **more})
    pq.write_table(table, folder / "a.parquet", row_group_size=8, use_dictionary=False, compression="none")
    return folder


def jsonl(folder):
    folder.mkdir()
    rows = zip(texts(240), SCORES, LANGUAGES, strict=True)
    lines = [{"text": text, "score": score, "language": language} for text, score, language in rows]
    lines = [{key: value for key, value in line.items() if value is not None} for line in lines]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(autouse=True)
def no_login(monkeypatch):
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


KINDS = {"parquet": parquet, "jsonl": jsonl}


def read(data, tmp_path):
    manifest = resolve(data.source, data, cache_dir=tmp_path / "cache")
    reader = open_reader(manifest, cache_dir=tmp_path / "cache", eot_id=EOT)
    return manifest, [found for block in range(len(manifest)) for found in reader.read(block)]


def expected(min_score=None, language=None):
    found = []
    for text, score, spoken in zip(texts(240), SCORES, LANGUAGES, strict=True):
        if min_score is not None and (score is None or score < min_score):
            found.append(Filtered("no score" if score is None else f"score below {min_score:g}"))
        elif language is not None and spoken != language:
            found.append(Filtered("no language" if spoken is None else f"language not {language}"))
        else:
            found.append(text)
    return found


@pytest.mark.parametrize("asked", [{"min_score": 3.0}, {"language": "en"}, {"min_score": 2.0, "language": "de"}])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_document_that_is_not_wanted_keeps_its_number_and_is_counted_with_the_reason(kind, asked, tmp_path):
    data = config(KINDS[kind](tmp_path / "s"), validation_fraction=0.0, **asked)
    manifest, found = read(data, tmp_path)
    assert found == expected(**asked)
    numbers, left_out = chosen(found, data)
    assert [found[number] for number in numbers] == [text for text in expected(**asked) if isinstance(text, str)]
    assert sum(left_out.values()) + len(numbers) == 240
    assert set(left_out) == {why.reason for why in expected(**asked) if isinstance(why, Filtered)}
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))).filters == manifest.filters


def test_the_rows_of_a_large_row_group_are_filtered_by_their_own_scores(tmp_path):
    long = [f"{i} " + "y" * 900 for i in range(4000)]
    (tmp_path / "p").mkdir()
    table = pa.table({"text": long, "score": [float(i % 4000) for i in range(4000)]})
    pq.write_table(
        table, tmp_path / "p" / "one.parquet", row_group_size=10**6, compression="zstd", use_dictionary=False
    )
    manifest, found = read(config(tmp_path / "p", min_score=1234.0), tmp_path)
    assert len(manifest) >= 8
    assert found == [Filtered("score below 1234")] * 1234 + long[1234:]


def test_other_columns_can_be_named_and_numbers_may_be_whole(tmp_path):
    data = config(parquet(tmp_path / "s"), min_score=100, score_column="int_score")
    assert read(data, tmp_path)[1] == [Filtered("int_score below 100")] * 100 + texts(140, 100)


@pytest.mark.parametrize("value", [math.nan, True, "5", None])
def test_what_is_no_number_is_no_score(value):
    assert Filters(min_score=1.0).of_record("text", {"score": value}) == Filtered("no score")
    assert Filters(min_score=1.0).of_record("text", {"score": 1}) == "text"


def test_without_filters_fingerprints_and_identities_are_those_of_before():
    files = (SourceFile("a.parquet", 100, "id"),)
    plain = Manifest("s", "parquet", None, "text", files, make_blocks(0, [0, 1], 0, -1, 5))
    # As they were computed before there were filters.
    assert plain.fingerprint == "9edc835f020f47895a359972503e78d2a650fa74c2bcb35aa6578e4f3a764680"
    assert plain.block_identity(1) == ["parquet", "text", [[100, "id"]], 1, 0, -1]
    assert "filters" not in plain.to_dict()
    assert Filters.of(DataConfig(score_column="other", language_column="other")) is None


def test_filters_are_part_of_what_the_data_are(tmp_path):
    source = parquet(tmp_path / "s")
    asked = [{}, {"min_score": 2.0}, {"min_score": 3.0}, {"language": "en"}, {"min_score": 2.0, "language": "en"}]
    asked += [{"min_score": 2.0, "score_column": "int_score"}]
    found = [resolve(str(source), config(source, **each), cache_dir=tmp_path) for each in asked]
    assert len({manifest.fingerprint for manifest in found}) == len(asked)
    assert len({json.dumps(manifest.block_identity(0)) for manifest in found}) == len(asked)
    unused = resolve(str(source), config(source, min_score=2.0, language_column="x"), cache_dir=tmp_path)
    assert unused.fingerprint == found[1].fingerprint


@pytest.mark.parametrize("token_cache", [False, True])
def test_training_and_validation_hold_wanted_documents_only_and_another_filter_is_refused_on_resume(
    token_cache, tmp_path
):
    source = parquet(tmp_path / "s")
    wanted = {number for number, found in enumerate(expected(2.0)) if isinstance(found, str)}
    digests = set()
    for min_score in (None, 2.0, 2.0):  # the last time from the cache, where there is one
        data = config(source, min_score=min_score, token_cache=token_cache, validation_fraction=0.1)
        with Ranks(data, tmp_path / "cache", 2) as run:
            batches, trained = [], set()
            for _ in range(20):
                batches.append(run.step())
                trained |= {8 * block + number for _, _, places in run.rows() for block, number in places}
            state, counted = run.state, run.last[0].left_out + run.last[1].left_out
        digests.add(sha256(batches))
        assert (trained <= wanted) == (min_score is not None)
        assert (counted["score below 2"] > 20 and counted["no score"] > 10) == (min_score is not None)
    assert len(digests) == 2
    manifest = resolve(str(source), data, cache_dir=tmp_path / "cache")
    reader = open_reader(manifest, cache_dir=tmp_path / "cache", eot_id=EOT)
    held_out = validation_set(manifest, reader, Decoding(), data, tmp_path / "cache")
    assert held_out.documents > 3
    parts = bytes(min(i, 255) for i in held_out.tokens.tolist()).split(b"\xff")
    assert {part.decode() for part in parts if part} <= {texts(240)[number] for number in wanted - trained}
    other = config(source, min_score=3.0, token_cache=token_cache, validation_fraction=0.1)
    with pytest.raises(UserError, match="data was"), Ranks(other, tmp_path / "cache", 2, state=state):
        pass


class Decoding(Bytes):
    def decode_bytes(self, ids):
        return bytes(i for i in ids if i < 256)


def test_a_source_without_wanted_documents_says_which_settings_leave_it_empty(tmp_path):
    data = config(parquet(tmp_path / "s"), min_score=9.0, validation_fraction=0.1)
    with pytest.raises(UserError, match=r"holds no text to learn from \(206 score below 9, 34 no score\); check "
                                        r"data.min_score=9.0, data.text_column=text or the files"):  # fmt: skip
        manifest = resolve(data.source, data, cache_dir=tmp_path)
        open_settled(manifest, data, cache_dir=tmp_path, eot_id=EOT)


@pytest.mark.parametrize(
    ("kind", "asked", "words"),
    [
        ("parquet", {"min_score": 3.0, "score_column": "quality"},
         ["data.score_column=quality is not in", "a.parquet; columns there: text, score, language, int_score; ",
          "unset data.min_score"]),
        ("parquet", {"min_score": 3.0, "score_column": "language"},
         ["holds string, not numbers; columns with numbers: score, int_score"]),
        ("parquet", {"language": "en", "language_column": "score"},
         ["data.language_column=score of", "holds double, not text; columns with text: text, language"]),
        ("jsonl", {"language": "en", "language_column": "lang"},
         ["data.language_column=lang is not in the first line of", "columns there: text, score, language"]),
        ("txt", {"min_score": 3.0},
         ["data.min_score=3.0 cannot be asked of", "its txt files have no columns", "allowed: sources of parquet"]),
        ("tokens", {"language": "en"}, ["data.language=en cannot be asked of", "its tokens files have no columns"]),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there_is_said_in_one_line(kind, asked, words, tmp_path):
    source = {**KINDS, "txt": write_txt, "tokens": write_tokens}[kind](tmp_path / "s")
    with pytest.raises(UserError) as error:
        resolve(str(source), config(source, **asked), cache_dir=tmp_path)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), str(error.value)


def test_a_jsonl_file_that_begins_without_a_score_is_noted(tmp_path):
    source = jsonl(tmp_path / "s")
    (source / "b.jsonl").write_text('{"text": "no score here"}\n')
    manifest, found = read(config(source, min_score=0.0), tmp_path)
    assert "1 of 2 files begin without the key score (b.jsonl" in manifest.notes[0]
    assert found[-1] == Filtered("no score")


def test_a_score_that_changes_changes_the_seal_of_its_row_group(tmp_path):
    source = parquet(tmp_path / "s")
    data = config(source, min_score=2.0)
    before = seal(resolve(str(source), data, cache_dir=tmp_path), 0)
    other = [4.5 if i == 21 else score for i, score in enumerate(SCORES)]
    (source / "a.parquet").unlink()
    source.rmdir()
    manifest = resolve(str(parquet(source, score=other)), data, cache_dir=tmp_path)
    assert before.differences(seal(manifest, 0))[0] == "row group 2"


def test_on_the_hub_only_the_columns_that_are_needed_are_fetched(tmp_path):
    with FakeHub({REPO: fineweb_edu()}) as hub:
        client = HubClient(hub.endpoint, clock=FastClock())

        def manifest_of(**asked):
            data = DataConfig(source=SOURCE, outage_minutes=2, **asked)
            return HubSource(SOURCE, data, tmp_path, client=client, clock=FastClock()).manifest()

        plain, high, low = manifest_of(), manifest_of(min_score=4.0), manifest_of(min_score=3.0)
        assert len({plain.fingerprint, high.fingerprint, low.fingerprint}) == 3
        assert manifest_of(min_score=4.0).filters == high.filters  # from the cache
        before = len(hub.requests)
        reader = open_hub(low, tmp_path, client=client)
        assert reader.read(GROUPS) == [document(1, 0, row) for row in range(8)]
        assert len(hub.requests) - before == 1
        assert open_hub(high, tmp_path, client=client).read(0) == [Filtered("score below 4")] * 8
        with pytest.raises(UserError, match=r"data.language_column=language is not in sample/10BT/000_00000\.parquet"):
            manifest_of(language="en")


def test_what_lies_between_the_columns_on_the_hub_is_not_fetched(tmp_path):
    out = io.BytesIO()
    other = [random.Random(i).randbytes(20_000) for i in range(20)]
    table = pa.table({"before": other, "text": texts(20), "between": other, "score": [float(i) for i in range(20)]})
    pq.write_table(table, out, row_group_size=10)
    with FakeHub({"o/n": {"train.parquet": out.getvalue()}}) as hub:
        client = HubClient(hub.endpoint, clock=FastClock())
        data = DataConfig(source="o/n", min_score=15.0, outage_minutes=2)
        manifest = HubSource("o/n", data, tmp_path, client=client, clock=FastClock()).manifest()
        before = len(hub.requests)
        assert open_hub(manifest, tmp_path, client=client).read(1) == [Filtered("score below 15")] * 5 + texts(5, 15)
        ranges = [r.range.removeprefix("bytes=").split("-") for r in hub.requests[before:] if r.range]
    assert len({tuple(each) for each in ranges}) == 2
    assert sum(int(last) - int(first) for first, last in map(tuple, {tuple(each) for each in ranges})) < 5000


def test_columns_that_are_far_apart_are_requests_of_their_own():
    near, far = GAP - 1, GAP
    assert together([(300 + near, 400 + near), (0, 100), (100, 300)]) == [(0, 400 + near)]
    assert together([(0, 100), (100 + far, 200 + far)]) == [(0, 100), (100 + far, 200 + far)]
    assert together([(0, 1000), (10, 20)]) == [(0, 1000)]


def test_a_copy_of_the_text_alone_is_refused_where_a_filter_needs_another_column(capsys):
    assert main(["data", "fetch", "--source", SOURCE, "--text-only", "--data.min_score", "3"]) == 2
    assert "--text-only leaves out the columns that data.min_score=3.0 looks at" in capsys.readouterr().err
