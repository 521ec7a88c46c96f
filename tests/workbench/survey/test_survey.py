"""The look into a source: the figures that `data inspect` has, bounded work, kept as long as the files are the same."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data.scan import Stopped
from mygpt2.errors import UserError
from mygpt2.tokenizer import load_tokenizer
from tests.data.corpus import write_tokens
from tests.workbench.tabs.data.data_runs import document, parquet_folder
from workbench.survey import sample, surveys
from workbench.survey.sample import Survey, survey
from workbench.survey.surveys import Look, Surveys

TOKENIZER = "gpt2:300"


def looked(path: Path, tmp_path: Path, tokenizer: str = TOKENIZER, **settings: Any) -> Survey:
    data = DataConfig(source=str(path), tokenizer=tokenizer, **settings)
    return survey(data, load_tokenizer(tokenizer), tmp_path / "cache", lambda: False)


def jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def test_a_source_that_is_read_whole_is_counted_exactly(tmp_path: Path) -> None:
    source = parquet_folder(tmp_path / "d", files=1, groups=3, rows=40)
    found = looked(source, tmp_path)
    ids = load_tokenizer(TOKENIZER).encode_batch([document(n) for n in range(120)])
    assert (found.kind, found.files, found.documents, found.counted, found.looked) == ("parquet", 1, 120, True, 120)
    assert found.held_out and not found.left_out and not found.notes[1:]
    assert found.tokens == pytest.approx(sum(len(each) + 1 for each in ids), rel=0.02)
    assert [text[:11] for text in found.beginnings[1:]] == ["Document 1:", "Document 2:"]


def test_of_a_large_source_a_few_parts_are_read_and_the_rest_is_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "ENCODED", 2000)
    path = jsonl(tmp_path / "a.jsonl", [{"text": document(n)} for n in range(9000)])
    found = looked(path, tmp_path)
    assert found.looked < 9000 and not found.counted
    assert found.documents == pytest.approx(9000, rel=0.15)
    assert found.encodings == {"UTF-8": 1}


def test_what_would_be_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    records = [{"text": document(n)} for n in range(60)] + [{"text": ""}, {"text": "  "}, {"text": "x" * 900}, {"n": 1}]
    found = looked(jsonl(tmp_path / "a.jsonl", records), tmp_path, max_document_chars=500)
    assert found.left_out == {"empty": 2, "too_long": 1, "not_text": 1}


def test_encodings_and_damage_are_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for number in range(4):
        (tmp_path / "d" / f"{number}.txt").write_text("Grüße aus der Küche. " * 20, encoding="utf-8")
    (tmp_path / "d" / "wide.txt").write_text("Grüße aus der Küche. " * 20, encoding="utf-16")
    found = looked(tmp_path / "d", tmp_path)
    assert found.encodings == {"UTF-8": 4, "UTF-16": 1}


def test_ids_are_looked_at_as_well(tmp_path: Path) -> None:
    found = looked(write_tokens(tmp_path / "d"), tmp_path, "gpt2:257")
    assert found.kind == "tokens" and found.tokens > 0 and found.beginnings and not found.encodings


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.jsonl", '{"words": "x"}\n', "data.text_column=text is not a key"),
    ("a.txt", "too little", "too little to train on"), ("a.parquet", "no parquet", "parquet"),
    ("b.docx", "x", "has no known format"),
])  # fmt: skip
def test_what_cannot_be_trained_on_is_one_sentence(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        looked(tmp_path / name, tmp_path)


def test_a_look_that_nobody_wants_ends(tmp_path: Path) -> None:
    source = parquet_folder(tmp_path / "d")
    with pytest.raises(Stopped):
        survey(DataConfig(source=str(source)), load_tokenizer(TOKENIZER), tmp_path / "cache", lambda: True)


# The keeper


def waited(keeper: Surveys, data: DataConfig) -> Look:
    ends = time.monotonic() + 60
    while True:
        found = keeper.ask(data)
        assert found is not None and time.monotonic() < ends
        if not found.going:
            return found
        time.sleep(0.01)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were really looked into."""
    seen: list[str] = []
    inner = surveys.survey

    def count(data: DataConfig, *rest: Any) -> Survey:
        seen.append(data.source)
        return inner(data, *rest)

    monkeypatch.setattr(surveys, "survey", count)
    return seen


def test_a_look_is_kept_until_the_files_change(
    tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "FRESH_SECONDS", -1.0)
    keeper, path = Surveys(tmp_path / "cache"), jsonl(tmp_path / "a.jsonl", [{"text": document(n)} for n in range(50)])
    data = DataConfig(source=str(path), tokenizer=TOKENIZER)
    first = waited(keeper, data).survey
    for _ in range(5):
        keeper.ask(data)
    _quiet(keeper)
    assert counted == [str(path)] and first is not None and first.documents == 50
    jsonl(path, [{"text": document(n)} for n in range(80)])
    keeper.ask(data)
    _quiet(keeper)
    found = keeper.ask(data, begin=False)
    assert found is not None and found.survey is not None and found.survey.documents == 80 and len(counted) == 2


def _quiet(keeper: Surveys) -> None:
    """All looks have come to an end."""
    for thread in threading.enumerate():
        if thread.name == "look into a source":
            thread.join(60)


def test_a_problem_is_kept_and_known_to_whoever_would_start(tmp_path: Path, counted: list[str]) -> None:
    keeper, path = Surveys(tmp_path / "cache"), jsonl(tmp_path / "a.jsonl", [{"words": 1}])
    data = DataConfig(source=str(path), tokenizer=TOKENIZER)
    assert keeper.problem(data) == ""
    assert "text_column" in waited(keeper, data).problem and "text_column" in keeper.problem(data)
    assert keeper.problem(data.model_copy(update={"text_column": "words"})) == ""


def test_nothing_begins_unasked_and_another_source_ends_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, began, ended = Surveys(tmp_path / "cache"), threading.Event(), threading.Event()

    def slow(data: DataConfig, tokenizer: Any, cache: Path, stop: Any) -> Survey:
        began.set()
        while not stop():
            time.sleep(0.005)
        ended.set()
        raise Stopped

    monkeypatch.setattr(surveys, "survey", slow)
    monkeypatch.setattr(surveys, "FORGOTTEN_SECONDS", 0.2)
    data = DataConfig(source="pydocs", tokenizer=TOKENIZER)
    assert keeper.ask(data, begin=False) is None
    assert keeper.ask(data).going
    assert began.wait(30) and ended.wait(30), "without a further question it ends"
    _quiet(keeper)
    assert keeper.ask(data, begin=False) is None, "and is as if it had never begun"


def test_a_look_that_somebody_stops_stays_stopped_until_it_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, inner = Surveys(tmp_path / "cache"), surveys.survey

    def slow(data: DataConfig, tokenizer: Any, cache: Path, stop: Any) -> Survey:
        while not stop():
            time.sleep(0.005)
        raise Stopped

    monkeypatch.setattr(surveys, "survey", slow)
    data = DataConfig(source=str(parquet_folder(tmp_path / "d")), tokenizer=TOKENIZER)
    assert keeper.ask(data).going
    keeper.stop(data)
    assert waited(keeper, data).state == "stopped" and keeper.ask(data).state == "stopped"
    _quiet(keeper)
    monkeypatch.setattr(surveys, "survey", inner)
    keeper.again(data)
    assert waited(keeper, data).survey is not None


def test_a_defect_is_told_and_does_not_leave_the_page_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Survey:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(surveys, "survey", broken)
    keeper = Surveys(tmp_path / "cache")
    found = waited(keeper, DataConfig(source=str(parquet_folder(tmp_path / "d")), tokenizer=TOKENIZER))
    assert "failed (by zero)" in found.problem
