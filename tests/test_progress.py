"""Progress that another program reads: MYGPT2_PROGRESS names a file that every bar keeps up to date."""

import json

import pytest

from mygpt2.progress import Bar, ProgressFile, progress_bar


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("MYGPT2_PROGRESS", str(path))
    monkeypatch.delenv("RANK", raising=False)
    return path


def test_a_bar_writes_how_far_it_is_and_its_last_word_is_the_end(file):
    with progress_bar("tokens of it", "tokens") as advance:
        for done in range(0, 101, 10):
            advance(done, 100)
    record = json.loads(file.read_text())
    assert {key: record[key] for key in ("title", "done", "total", "unit")} == {
        "title": "tokens of it", "done": 100, "total": 100, "unit": "tokens",
    }  # fmt: skip
    assert set(record) == {"title", "done", "total", "unit", "rate", "seconds_left", "time"}


def test_without_the_variable_and_on_other_ranks_nothing_is_written(tmp_path, file, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with Bar("a", "b") as bar:
        bar.to(1, 2)
    monkeypatch.delenv("RANK")
    with Bar("a", "b", show=False) as bar:
        bar.to(1, 2)
    monkeypatch.delenv("MYGPT2_PROGRESS")
    with Bar("a", "b") as bar:
        bar.to(1, 2)
    assert list(tmp_path.iterdir()) == []


class Seconds:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_at_most_two_writes_a_second_and_the_rate_counts_only_what_was_seen(tmp_path):
    clock, path = Seconds(), tmp_path / "p.json"
    progress, times = ProgressFile(path, clock), set()
    for number in range(41):  # 4 s, ten a second; what was done before counts for no rate
        clock.now = 100.0 + number / 10
        progress.update("work", 1000 + number, 2000, "items")
        times.add(json.loads(path.read_text())["time"])
    record = json.loads(path.read_text())
    assert len(times) == 9
    assert record["rate"] == pytest.approx(10)
    assert record["seconds_left"] == pytest.approx((2000 - 1040) / 10)


def test_a_new_piece_of_work_is_told_at_once_and_has_its_own_rate(tmp_path):
    clock, path = Seconds(), tmp_path / "p.json"
    progress = ProgressFile(path, clock)
    progress.update("first", 0, 10, "x")
    clock.now += 0.1
    progress.update("second", 5, None, "y")
    record = json.loads(path.read_text())
    assert (record["title"], record["total"], record["rate"], record["seconds_left"]) == ("second", None, None, None)


def test_a_file_that_cannot_be_written_does_not_disturb_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("MYGPT2_PROGRESS", str(tmp_path / "gone" / "progress.json"))
    with progress_bar("a", "b") as advance:
        advance(1, 1)
    assert list(tmp_path.iterdir()) == []
