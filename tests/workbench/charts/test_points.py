"""The chart's data: every row once, in the folder's own order, from a cursor that any server understands."""

import base64
import csv
import io
import json

import numpy as np
import pytest

from mygpt2.run_dir import read_metrics
from mygpt2.run_dir.lines import Cursor, news
from mygpt2.run_dir.metrics import _parse_each, _parse_many, parse_rows
from tests.workbench.charts.made_up import Alert, Folder, loss_at, new_run, write_event, write_steps
from workbench.charts.points import COLUMNS, MANY, packed, points, progression, table
from workbench.charts.table import points_csv, table_csv


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "runs")


@pytest.fixture
def run(folder):
    return new_run(folder.runs, "r")


def ask(folder, cursor=None, columns=COLUMNS, run="r", **more):
    (reply,) = points(folder, {"wants": [{"run": run, "cursor": cursor, **more}], "columns": list(columns)})
    return json.loads(json.dumps(reply))  # as the browser gets it


def unfolded(coded, n):
    if isinstance(coded, str):
        return np.frombuffer(base64.b64decode(coded), "<f8")
    values = np.concatenate([[first + i * rise for i in range(int(count))] for first, count, rise in coded])
    assert len(values) == n
    return values


def floats(text, n):
    return np.full(n, np.nan) if text is None else np.frombuffer(base64.b64decode(text), "<f4")


def test_a_value_that_many_rows_share_travels_once() -> None:
    for rows, told in ((MANY, 0.25), (MANY - 1, None)):
        found = packed(np.full(rows, 0.25))
        assert found == told if told else floats(found, rows).tolist() == [0.25] * rows
    for odd in (0.5, np.nan, np.inf):
        values = np.full(MANY, 0.25)
        values[-1] = odd
        np.testing.assert_array_equal(floats(packed(values), MANY), values.astype("<f4"))
    assert isinstance(packed(np.full(MANY, 1e300)), str)  # no number that JSON has


def test_everything_comes_once_and_then_only_what_is_new(folder, run):
    write_steps(run, 1, 500)
    first = ask(folder)
    assert (first["rows"], first["steps"], first["resets"], first["attempts"]) == (500, [[1, 500, 1]], [], [[0, 1]])
    np.testing.assert_allclose(floats(first["columns"]["loss"], 500), loss_at(np.arange(1, 501)), rtol=1e-6)
    assert ask(folder, first["cursor"])["rows"] == 0
    write_steps(run, 501, 520)
    second = ask(folder, first["cursor"])
    assert (second["rows"], second["steps"], second["attempts"]) == (20, [[501, 20, 1]], [])


def test_the_rows_a_resume_overwrote_are_those_of_the_run_folder(folder, run):
    cursor, steps, cuts = None, [], []
    for first, last, attempt in ((1, 100, 1), (81, 150, 2), (61, 90, 3), (91, 200, 3)):
        write_steps(run, first, last, attempt=attempt, seed=attempt)
        reply = ask(folder, cursor)
        cuts += [[row + len(steps), step] for row, step in reply["resets"]]
        steps += unfolded(reply["steps"], reply["rows"]).tolist()
        cursor = reply["cursor"]
    whole, metrics = ask(folder), read_metrics(run)
    assert cuts == whole["resets"] == [[100, 81], [170, 61]]
    kept: list[float] = []
    for row, step in enumerate(steps):
        kept = [old for old in kept if old < dict(map(tuple, cuts)).get(row, np.inf)] + [step]
    assert kept == metrics["step"].tolist()


def test_the_answer_says_from_which_step_on_rows_are_overwritten(folder, run):
    write_steps(run, 1, 100)
    cursor = ask(folder)["cursor"]
    write_steps(run, 81, 90, attempt=2)
    reply = ask(folder, cursor)
    assert (reply["resets"], reply["attempts"], reply["replaced"]) == ([[0, 81]], [[0, 2]], False)


def test_a_replaced_file_is_read_anew_and_the_answer_says_so(folder, run):
    write_steps(run, 1, 100)
    cursor = ask(folder)["cursor"]
    run.metrics_file.unlink()
    write_steps(run, 1, 200, seed=9)
    reply = ask(folder, cursor)
    assert (reply["replaced"], reply["rows"]) == (True, 200)
    run.metrics_file.unlink()
    gone = ask(folder, reply["cursor"])
    assert (gone["replaced"], gone["rows"]) == (True, 0)
    assert not ask(folder, gone["cursor"])["replaced"]


def test_a_line_in_the_making_waits_until_it_is_whole(folder, run):
    write_steps(run, 1, 3)
    cursor = ask(folder)["cursor"]
    with open(run.metrics_file, "a") as file:
        file.write('{"schema":1,"attempt":1,"step":4,')
        file.flush()
        assert ask(folder, cursor)["rows"] == 0
        file.write('"tokens":4,"loss":2.5}\n')
    reply = ask(folder, cursor)
    assert reply["rows"] == 1 and floats(reply["columns"]["loss"], 1).tolist() == [2.5]


def test_columns_can_be_fetched_later_up_to_the_same_place(folder, run):
    write_steps(run, 1, 300)
    reply = ask(folder, columns=["loss"])
    write_steps(run, 301, 310)
    later = ask(folder, None, ["grad_norm"], until=reply["cursor"]["metrics"]["at"])
    assert (later["rows"], list(later["columns"])) == (300, ["grad_norm"])
    assert later["cursor"]["metrics"] == reply["cursor"]["metrics"] and "marks" not in later


def test_a_long_file_comes_in_several_answers(run):
    write_steps(run, 1, 1000)
    place, lines = None, []
    for _ in range(1000):
        found = news(run.metrics_file, place, limit=10_000)
        assert sum(map(len, found.lines)) <= 10_000
        lines, place = lines + found.lines, found.cursor
        if not found.more:
            break
    assert lines == run.metrics_file.read_bytes().splitlines()


def test_both_parsers_read_the_same_and_nulls_are_gaps(run):
    write_steps(run, 1, 3000, nulls=range(10, 20))
    data = run.metrics_file.read_bytes().splitlines()
    many, each = _parse_many(data, COLUMNS), _parse_each(data, COLUMNS)
    assert many is not None
    np.testing.assert_array_equal(many.step, each.step)
    for name in COLUMNS:
        np.testing.assert_array_equal(many.values[name], each.values[name])
    assert np.isnan(many.values["loss"][9:19]).all() and not np.isnan(many.values["loss"][20:]).any()


@pytest.mark.parametrize(
    "odd", [b"garbage\n", b"[1]\n", b'{"step": "7", "attempt": 1}\n', b'{"step": 5}\n', b'{"step": -1, "attempt": 1}\n']
)
def test_lines_that_are_no_metrics_are_passed_over(run, odd):
    write_steps(run, 1, 2000)
    data = (run.metrics_file.read_bytes() + odd).splitlines()
    assert parse_rows(data, ["loss"]).step.tolist() == list(range(1, 2001))


def test_numbers_travel_short():
    assert progression(np.arange(1, 70_001)) == [[1, 70_000, 1]]
    two = np.concatenate([np.arange(1, 101), np.arange(81, 151)])
    assert unfolded(progression(two), len(two)).tolist() == two.tolist()
    random = np.random.default_rng(0).integers(0, 1000, 500)
    assert unfolded(progression(random), 500).tolist() == random.tolist()
    assert progression(np.array([])) == [] and progression(np.array([7])) == [[7, 1, 0]]
    assert packed(np.full(3, np.nan)) is None


def test_a_poll_of_four_runs_with_twenty_new_points_is_below_5_kilobytes(folder):
    cursors = {}
    for name in "abcd":
        run = new_run(folder.runs, name)
        write_steps(run, 1, 1000)
        cursors[name] = ask(folder, run=name)["cursor"]
        write_steps(run, 1001, 1005)
    wants = [{"run": name, "cursor": cursor} for name, cursor in cursors.items()]
    replies = points(folder, {"wants": wants, "columns": list(COLUMNS)})
    assert [reply["rows"] for reply in replies] == [5] * 4
    assert len(json.dumps(replies)) < 5000
    twenty = points(folder, {"wants": [{"run": "a", "cursor": ask(folder, run="b")["cursor"]}], "columns": ["loss"]})
    assert len(json.dumps(twenty)) < 5000


def test_what_happened_becomes_marks(folder, run):
    yardstick = {"of": "gpt2", "revision": "r", "loss": 3.5, "stderr": 0.01}
    write_event(run, "eval", step=10, loss=4.0, yardstick=yardstick, token_sha256="a" * 64)
    write_event(run, "eval", step=20, loss=3.4, yardstick=None)
    write_event(run, "eval", step=30, loss=None)
    write_event(run, "passed", step=20, loss=3.4, yardstick=yardstick)
    write_event(run, "save", step=20, path="step-00000020")
    write_event(run, "alert", level="error", message="<b>non-finite</b>")
    write_event(run, "save_failed", step=25, reason="no space")
    write_event(run, "sample", step=25)
    reply = ask(folder)
    kinds = [(mark["kind"], mark["step"]) for mark in reply["marks"]]
    assert kinds == [("eval", 10), ("eval", 20), ("passed", 20), ("save", 20), ("alert", None), ("alert", 25)]
    assert reply["marks"][0]["yardstick"] == {"of": "gpt2", "loss": 3.5} and "yardstick" not in reply["marks"][1]
    assert reply["marks"][4]["text"] == "<b>non-finite</b>" and "no space" in reply["marks"][5]["text"]
    write_event(run, "save", step=30)
    assert [mark["step"] for mark in ask(folder, reply["cursor"])["marks"]] == [30]


def test_alerts_of_the_job_runner_come_once(folder, run):
    folder.jobs.known.append(Alert(5, 100.0, "loss spike", number=1))
    reply = ask(folder)
    assert [(mark["kind"], mark["step"], mark["text"]) for mark in reply["marks"]] == [("alert", 5, "loss spike")]
    folder.jobs.known.append(Alert(7, 99.0, "raised later, of an earlier moment", number=2))
    reply = ask(folder, reply["cursor"])
    assert [mark["step"] for mark in reply["marks"]] == [7]
    assert "marks" not in ask(folder, reply["cursor"])


@pytest.mark.parametrize("file", ["metrics_file", "events_file"])
def test_a_link_out_of_the_run_is_a_problem_in_words_and_shows_nothing(folder, run, tmp_path, file):
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text('{"step": 1, "attempt": 1, "loss": 4.0, "kind": "save"}\n')
    getattr(run, file).symlink_to(elsewhere)
    (reply,) = points(folder, {"wants": [{"run": "r"}], "columns": ["loss"]})
    assert set(reply) == {"run", "problem"} and "link out of the run's folder" in reply["problem"]


@pytest.mark.parametrize("name", ["", "nobody", "../r", "/etc", "a;touch x", "<img onerror=1>", None, 7, {}])
def test_a_run_that_is_none_is_a_problem_in_words(folder, run, name):
    (reply,) = points(folder, {"wants": [{"run": name}], "columns": ["loss"]})
    assert set(reply) == {"run", "problem"} and reply["problem"]
    assert set(table(folder, {"runs": [name]})) == set(table(folder, {"runs": name})) == {"problem"}


@pytest.mark.parametrize(
    "request_", [None, 7, "x", [], {}, {"wants": 5}, {"wants": [1, "a"]}, {"wants": [], "columns": 3}]
)
def test_a_request_that_is_none_gets_nothing(folder, run, request_):
    assert points(folder, request_) == []


@pytest.mark.parametrize("cursor", [5, "x", [], {"metrics": 5}, {"metrics": {"head": 1, "at": -4}, "step": "a"}])
def test_a_cursor_that_is_none_begins_anew(folder, run, cursor):
    write_steps(run, 1, 30)
    assert ask(folder, cursor)["rows"] == 30
    assert Cursor.of(cursor) is None


def test_no_more_than_eight_runs_and_only_known_columns(folder, run):
    write_steps(run, 1, 2)
    wants = [{"run": "r"}] * 20
    replies = points(folder, {"wants": wants, "columns": ["loss", "__class__", "step", {}]})
    assert len(replies) == 8 and list(replies[0]["columns"]) == ["loss"]


def test_reading_changes_nothing(folder, run):
    write_steps(run, 1, 100)
    write_event(run, "save", step=50)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    ask(folder, ask(folder)["cursor"])
    table(folder, {"runs": ["r"]})
    points_csv(run)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_the_table_has_every_row_at_full_precision(folder, run):
    write_steps(run, 1, 50)
    write_steps(run, 31, 60, attempt=2, seed=4)
    lines = points_csv(run).splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    kept = [row for row in rows if row["overwritten"] == "0"]
    assert len(rows) == 80 and [int(row["step"]) for row in kept] == list(range(1, 61))
    assert [float(row["loss"]) for row in kept] == read_metrics(run)["loss"].tolist()
    assert {row["run"] for row in rows} == {"r"}
    assert all(row["tokens"].isdigit() for row in rows)


def test_the_table_has_the_validation_losses_of_their_own_attempts(folder, run):
    write_steps(run, 1, 20)
    write_event(run, "eval", step=10, loss=4.5)
    write_event(run, "eval", step=20, loss=4.25)
    write_steps(run, 15, 30, attempt=2)
    write_event(run, "eval", step=20, loss=4.125, attempt=2)
    rows = list(csv.DictReader(io.StringIO(points_csv(run))))
    found = [(int(row["step"]), row["validation_loss"], row["overwritten"]) for row in rows if row["validation_loss"]]
    assert found == [(10, "4.5", "0"), (20, "4.125", "0"), (20, "4.25", "1")]


def test_the_table_has_columns_of_others_where_their_names_are_plain(folder, run):
    odd = {"heat": 1.5, "a,b": 1, "=SUM(A1)": 1, "run": 7, "overwritten": 1}
    run.metrics_file.write_text(json.dumps({"step": 1, "attempt": 1, "loss": 4.0, **odd}) + "\n")
    (row,) = csv.DictReader(io.StringIO(points_csv(run)))
    assert (row["run"], row["heat"], row["overwritten"], row["loss"]) == ("r", "1.5", "0", "4")
    assert not {"a,b", "=SUM(A1)", "schema"} & row.keys() and None not in row


def test_the_table_has_the_loss_in_bits_per_byte_and_that_of_validation(folder, run):
    write_steps(run, 1, 20)
    assert all(not row["loss_bits_per_byte"] for row in csv.DictReader(io.StringIO(points_csv(run))))
    write_event(run, "eval", step=10, loss=4.5, bits_per_byte=2.25)
    rows = list(csv.DictReader(io.StringIO(points_csv(run))))
    assert [row["validation_bits_per_byte"] for row in rows if row["step"] == "10"] == ["2.25"]
    assert [float(row["loss_bits_per_byte"]) for row in rows] == [float(row["loss"]) / 2 for row in rows]


def test_tables_of_several_runs_are_one_with_empty_cells(folder, run):
    write_steps(run, 1, 3)
    other = new_run(folder.runs, "other")
    other.metrics_file.write_text(json.dumps({"step": 1, "attempt": 1, "loss": 4.0, "heat": 1.5}) + "\n")
    rows = list(csv.DictReader(io.StringIO(b"".join(table_csv([run, other])).decode())))
    assert [(row["run"], row["step"], row["heat"]) for row in rows] == [
        ("r", "1", ""), ("r", "2", ""), ("r", "3", ""), ("other", "1", "1.5")]  # fmt: skip
