"""Columns on disk say what the file says, whoever asks from where, and whatever happens to the file or the cache."""

import json
from pathlib import Path

import numpy as np
import pytest

from mygpt2.run_dir import RunDir
from mygpt2.run_dir.lines import Cursor, news
from mygpt2.run_dir.metrics import parse_rows, read_rows
from tests.workbench.charts.made_up import new_run, write_steps
from workbench import columns

NAMES = ["loss", "grad_norm", "mfu"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(columns, "DIRECT_BYTES", 20_000)
    monkeypatch.setattr(columns, "PIECE_BYTES", 50_000)
    run = new_run(tmp_path / "runs", "r")
    write_steps(run, 1, 1000, nulls=range(400, 410))
    return run


def followed(run: RunDir, cursor: Cursor | None = None, until: int | None = None) -> tuple[list[columns.Fresh], int]:
    """Everything behind a cursor, as a page asks for it, and the last cursor's place."""
    found, more = [], True
    while more:
        one = columns.fresh(run, cursor, NAMES, until=until)
        found.append(one)
        cursor, more = one.cursor, one.more
        assert len(found) < 100
    return found, cursor.at if cursor else 0


def same(found: list[columns.Fresh], lines: list[bytes]) -> None:
    wanted = parse_rows(lines, NAMES)
    assert np.array_equal(np.concatenate([one.rows.step for one in found]), wanted.step)
    assert np.array_equal(np.concatenate([one.rows.attempt for one in found]), wanted.attempt)
    for name in NAMES:
        values = np.concatenate([one.rows.values[name] for one in found])
        assert np.array_equal(values, wanted.values[name], equal_nan=True)


def stored(run: RunDir) -> Path:
    (meta,) = (Path(columns.cache_folder()) / "metrics").glob("*/meta.json")
    return meta


def test_a_reader_gets_every_row_once_from_the_file_and_then_from_the_columns(run):
    lines = news(run.metrics_file, None).lines
    first, at = followed(run)
    assert len(first) > 3 and at == run.metrics_file.stat().st_size
    same(first, lines)
    again, _ = followed(run)
    assert len(again) <= 2, "what is stored comes at once, the rest of the file behind it"
    same(again, lines)
    write_steps(run, 1001, 1010)
    (fresh,) = followed(run, Cursor(again[-1].cursor.head, at))[0]
    assert fresh.rows.step.tolist() == list(range(1001, 1011))


def test_a_cursor_from_anywhere_goes_on_and_until_ends(run):
    followed(run)
    data = run.metrics_file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    head = news(run.metrics_file, None).cursor.head
    for at, until in ((ends[3], None), (ends[500], ends[800]), (0, ends[777]), (ends[998], None), (ends[-1], None)):
        found, end = followed(run, Cursor(head, at), until)
        same(found, data[at : until or len(data)].split(b"\n")[:-1])
        assert end == (until or len(data))


def test_resumes_stay_in_the_order_of_the_file(run):
    write_steps(run, 701, 1500, attempt=2, seed=5)
    same(followed(run)[0], news(run.metrics_file, None).lines)
    whole, plain = columns.whole_run(run), read_rows(run)
    assert np.array_equal(whole.step, plain.step) and np.array_equal(whole.attempt, plain.attempt)
    for name, values in plain.values.items():
        found = whole.values.get(name, np.full(len(plain), np.nan))
        assert np.array_equal(found, values, equal_nan=True), name


def test_garbage_and_a_column_that_comes_later_are_as_in_the_file(run):
    with open(run.metrics_file, "a") as file:
        file.write("not json\n{}\n" + json.dumps({"step": 1001, "attempt": 1, "loss": 2.0, "heat": 7.5}) + "\n")
    write_steps(run, 1002, 1400)
    whole, plain = columns.whole_run(run), read_rows(run)
    assert len(whole) == len(plain) == 1400 and np.array_equal(
        whole.values["heat"], plain.values["heat"], equal_nan=True
    )


def test_another_file_in_its_place_is_noticed(run):
    cursor = followed(run)[0][-1].cursor
    run.metrics_file.unlink()
    write_steps(run, 1, 900, seed=9)
    found, _ = followed(run, cursor)
    assert found[0].replaced
    same(found, news(run.metrics_file, None).lines)


def test_a_file_with_the_same_beginning_is_not_taken_for_the_old_one(run):
    followed(run)
    lines = run.metrics_file.read_bytes().splitlines(keepends=True)
    run.metrics_file.write_bytes(b"".join([lines[0], *(line.replace(b'"loss":3', b'"loss":4') for line in lines[1:])]))
    same(followed(run)[0], news(run.metrics_file, None).lines)


@pytest.mark.parametrize("damage", ["meta", "column", "gone", "shorter"])
def test_a_damaged_cache_is_made_anew(run, damage):
    followed(run)
    meta = stored(run)
    if damage == "meta":
        meta.write_text('{"schema": 1, "at": "x"}')
    elif damage == "column":
        (meta.parent / "loss.bin").write_bytes(b"1234")
    elif damage == "gone":
        (meta.parent / "loss.bin").unlink()
    else:
        meta.write_text(meta.read_text().replace('"rows": ', '"rows": 9'))
    same(followed(run)[0], news(run.metrics_file, None).lines)
    assert json.loads(stored(run).read_text())["rows"] > 100


def test_without_a_cache_everything_is_read_from_the_file(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "file"))
    same(followed(run)[0], news(run.metrics_file, None).lines)
    assert len(columns.whole_run(run)) == 1000


def test_the_least_recently_used_make_room(run, monkeypatch, tmp_path):
    followed(run)
    old = stored(run).parent
    monkeypatch.setattr(columns, "MOST_BYTES", 1000)
    other = new_run(tmp_path / "runs", "other")
    write_steps(other, 1, 500)
    followed(other)
    assert not old.exists()
    same(followed(run)[0], news(run.metrics_file, None).lines)


def test_what_has_grown_is_looked_after_before_anybody_asks(run, monkeypatch):
    monkeypatch.setattr(columns, "AHEAD_BYTES", 30_000)
    keeper = columns.Keeper(run.path.parent)
    for _ in range(20):
        keeper()
    size = run.metrics_file.stat().st_size
    assert size - json.loads(stored(run).read_text())["at"] < 30_000
    before = stored(run).stat().st_mtime_ns
    keeper()
    assert stored(run).stat().st_mtime_ns == before


def test_a_long_file_without_one_row_is_read_as_such(run):
    run.metrics_file.write_bytes(b"no row at all\n" * 5000)
    for _ in range(2):
        assert len(columns.whole_run(run)) == 0
        found, at = followed(run)
        assert at == run.metrics_file.stat().st_size and not sum(len(one.rows) for one in found)
