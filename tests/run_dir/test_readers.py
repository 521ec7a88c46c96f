"""Readers of growing files: whole lines only, nothing twice, and after a resume the later attempt's steps."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt2.run_dir import Follower, RunWriter, last_record, parse_lines, read_events, read_metrics
from mygpt2.run_dir.metrics import _parse_each, _parse_many, winners


def test_only_complete_lines_are_returned_and_each_once(tmp_path):
    path = tmp_path / "log"
    follower = Follower(path)
    assert follower.read() == []
    path.write_bytes(b"one\ntw")
    assert follower.read() == [b"one"] and follower.offset == 4
    assert follower.read() == []
    with path.open("ab") as file:
        file.write(b"o\n\nthree\n")
    assert follower.read() == [b"two", b"", b"three"]
    assert Follower(path, offset=4).read() == [b"two", b"", b"three"]  # a cursor is all a reader has to remember


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b" ")), max_size=20), st.data())
def test_any_way_of_cutting_a_file_gives_the_same_lines(tmp_path_factory, lines, data):
    whole = b"".join(line + b"\n" for line in lines)
    path = tmp_path_factory.mktemp("follow") / "log"
    path.touch()
    follower, found = Follower(path), []
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    limit = data.draw(st.sampled_from([None, 1, 7]))
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        with path.open("ab") as file:
            file.write(whole[start:end])
        while new := follower.read(limit):
            found += new
    assert found == lines


def test_a_truncated_or_replaced_file_is_read_from_its_start(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"a\nb\n")
    follower = Follower(path)
    assert follower.read() == [b"a", b"b"]
    path.write_bytes(b"c\n")
    assert follower.read() == [b"c"] and follower.restarts == 1
    (tmp_path / "new").write_bytes(b"longer than before\n")
    (tmp_path / "new").rename(path)
    assert follower.read() == [b"longer than before"] and follower.restarts == 2


def test_garbage_lines_are_counted_and_cost_no_others():
    lines = [b'{"a":1}', b"", b"{", b"[1]", b"1,2", b'{"a":2},{"a":3}', b"\xff\xfe", b'{"a":4}', b"[" * 100_000]
    assert parse_lines(lines) == ([{"a": 1}, {"a": 4}], 7)
    assert parse_lines([]) == ([], 0)


def write_steps(run, attempt, first, last, loss):
    with RunWriter(run, attempt) as writer:
        for step in range(first, last + 1):
            writer.metrics(step=step, tokens=step * 64, loss=loss + step / 1000, mfu=None)


def test_after_a_resume_the_later_attempt_wins_from_its_first_step_on(run):
    write_steps(run, 1, 1, 100, 1.0)
    write_steps(run, 2, 51, 80, 2.0)
    write_steps(run, 3, 61, 65, 3.0)
    metrics = read_metrics(run)
    assert metrics["step"].tolist() == list(range(1, 66))  # steps 81 to 100 of attempt 1 are history
    assert metrics["attempt"].tolist() == [1] * 50 + [2] * 10 + [3] * 5
    assert metrics.overwritten["step"].tolist() == [*range(51, 101), *range(61, 81)]
    assert metrics.overwritten["attempt"].tolist() == [1] * 50 + [2] * 20
    assert np.isnan(metrics["mfu"]).all() and np.isnan(metrics["no such"]).all() and len(metrics) == 65
    assert metrics["loss"][60] == pytest.approx(3.061) and metrics["step"].dtype == np.int64


def brute(rows: list[tuple[int, int]]) -> list[bool]:
    firsts = {a: min(s for b, s in rows if b == a) for a, _ in rows}
    return [
        not any(b > a and first <= s for b, first in firsts.items()) and (a, s) not in rows[i + 1 :]
        for i, (a, s) in enumerate(rows)
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8)), max_size=25))
def test_winners_agree_with_their_definition(rows):
    attempt, step = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    assert winners(attempt, step).tolist() == brute(rows)


def test_a_half_line_is_ignored_a_garbage_line_counted_and_odd_values_are_nan(run):
    write_steps(run, 1, 1, 3, 1.0)
    with run.metrics_file.open("ab") as file:
        file.write(b'\x00\x00\n{"step": "4", "attempt": 1}\n')
        file.write(json.dumps({"step": 4, "attempt": 1, "loss": "high", "lr": [1], "extra": 7}).encode() + b"\n")
        file.write(b'{"step": 5, "attempt": 1, "loss": 2')
    metrics = read_metrics(run)
    assert metrics["step"].tolist() == [1, 2, 3, 4] and metrics.garbage == 2
    assert np.isnan(metrics["loss"]).tolist() == [False, False, False, True]
    assert np.isnan(metrics["lr"][3]) and metrics["extra"].tolist()[3] == 7 and np.isnan(metrics["extra"][0])


def test_seventy_thousand_steps_are_read_in_seconds_at_most(run):
    row = {"schema": 1, "attempt": 1, "tokens": 524288, "epoch": 0.1, "loss": 3.21, "lr": 6e-4, "grad_norm": 0.4,
           "tokens_per_second": 1e5, "step_ms": 1.5, "data_wait_ms": 0.1, "mfu": None, "memory_bytes": 1,
           "time": 1.0}  # fmt: skip
    with run.metrics_file.open("w") as file:
        file.writelines(json.dumps({**row, "step": step}) + "\n" for step in range(1, 70_001))
    began = time.process_time()
    assert len(read_metrics(run)) == 70_000
    assert time.process_time() - began < 3  # 0.6 s measured


def test_the_last_record_is_found_without_reading_the_file(tmp_path):
    path = tmp_path / "log"
    assert last_record(path) is None
    path.write_text("".join(json.dumps({"step": i}) + "\n" for i in range(20_000)) + '{"step": 20000')
    assert last_record(path) == {"step": 19_999}
    assert last_record(path, within=40) == {"step": 19_999}
    path.write_text("nothing\n")
    assert last_record(path) is None


def test_events_of_one_kind(run):
    with RunWriter(run, 1) as writer:
        for kind in ("eval", "save", "eval"):
            writer.event(kind, step=1)
    assert [event["kind"] for event in read_events(run)] == ["eval", "save", "eval"]
    assert len(read_events(run, ["eval"])) == 2


def test_both_parsers_find_the_same_columns_whatever_somebody_wrote(run):
    odd = {"mine": 2, "note": "text", "flag": True, "list": [1], "object": {"a": 1}, "late": None}
    rows = [
        {"step": n, "attempt": 1, "loss": 1 / n, **odd, **({"late": 0.5} if n > 2000 else {})} for n in range(1, 2500)
    ]
    lines = [json.dumps(row).encode() for row in rows]
    many, each = _parse_many(lines, None), _parse_each(lines, None)
    assert many is not None and sorted(many.values) == sorted(each.values)
    for name, column in each.values.items():
        np.testing.assert_array_equal(many.values[name], column, name)
    assert each.values["late"][-1] == 0.5 and each.values["flag"][0] == 1 and np.isnan(each.values["note"]).all()
