"""The end of a log: complete lines by an offset, the way a terminal would show them, bounded."""

from __future__ import annotations

import pytest

from tests.workbench.tabs.monitor.folders import run_folder
from workbench.tabs.monitor import logs
from workbench.tabs.monitor.logs import choose, clean, log_files, read_log


@pytest.fixture
def log(tmp_path):
    return tmp_path / "rank-0.log"


def test_only_new_lines_come_and_the_unfinished_one_apart(log):
    log.write_bytes(b"one\ntwo\nthr")
    first = read_log(log)
    assert (first["lines"], first["open"], first["fresh"]) == (["one", "two"], "thr", True)
    with log.open("ab") as file:
        file.write(b"ee\nfour\n")
    second = read_log(log, first["offset"])
    assert (second["lines"], second["open"], second["fresh"]) == (["three", "four"], "", False)
    assert read_log(log, second["offset"])["lines"] == []


def test_reading_piece_by_piece_is_reading_at_once(log):
    text = "".join(f"line {n} ü🙂 {'x' * (n % 50)}\n" for n in range(300)).encode()
    lines, offset = [], None
    for end in range(0, len(text) + 37, 37):
        log.write_bytes(text[:end])
        news = read_log(log, offset)
        lines += news["lines"]
        offset = news["offset"]
    assert lines == text.decode().splitlines()


def test_a_log_that_was_replaced_by_a_shorter_one_is_read_anew(log):
    log.write_bytes(b"x" * 100 + b"\n")
    offset = read_log(log)["offset"]
    log.write_bytes(b"new\n")
    again = read_log(log, offset)
    assert again["fresh"] and again["lines"] == ["new"]


def test_of_a_long_log_the_end_comes_and_what_was_left_out_is_told(log):
    lines = [f"line {number}" for number in range(60_000)]
    log.write_text("\n".join(lines) + "\n")
    found = read_log(log)
    assert 0 < len(found["lines"]) < len(lines) and found["lines"] == lines[-len(found["lines"]) :]
    assert found["skipped"] + sum(len(line) + 1 for line in found["lines"]) == log.stat().st_size


def test_more_than_one_answer_holds_is_skipped_and_told(log):
    log.write_bytes(b"start\n")
    offset = read_log(log)["offset"]
    with log.open("ab") as file:
        file.write(b"y" * 99 + b"\n")
        file.write((b"z" * 99 + b"\n") * (logs.MAX_BYTES // 100 + 10))
    news = read_log(log, offset)
    assert news["skipped"] > 0 and not news["fresh"] and set(news["lines"]) == {"z" * 99}


def test_carriage_returns_leave_what_a_terminal_would_show(log):
    log.write_bytes(b"  1%\r 50%\r100%\ndone\r\n\r  3%\r  4%")
    found = read_log(log)
    assert (found["lines"], found["open"]) == (["100%", "done"], "  4%")


def test_a_progress_bar_that_never_ends_its_line_is_not_read_over_and_over(log):
    log.write_bytes(b"head\n" + b"".join(b"\r%7d of a million" % n for n in range(5000)))
    first = read_log(log)
    assert first["open"] == "   4999 of a million"
    assert log.stat().st_size - first["offset"] < 100
    with log.open("ab") as file:
        file.write(b"\r   5000 of a million\nnext\n")
    assert read_log(log, first["offset"])["lines"] == ["   5000 of a million", "next"]


def test_colours_control_characters_and_long_lines_are_taken_out():
    assert clean(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\x08\x00\x07") == "red plain"
    assert clean(b"\xff\xfe broken") == "�� broken"
    assert len(clean(b"x" * 100_000)) < logs.MAX_LINE + 60


def test_ranks_in_order_then_the_launcher_then_others(tmp_path):
    run = run_folder(tmp_path / "runs", "a")
    for name in ("rank-10.log", "rank-2.log", "extra.log", "rank-0.log", "notes.txt"):
        (run.logs_dir / name).write_text("x\n" if name != "rank-0.log" else "")
    launcher = tmp_path / "job.log"
    launcher.write_text("launching\n")
    (run.logs_dir / "link.log").symlink_to(launcher)
    files = log_files(run, launcher)
    assert list(files) == ["rank 0", "rank 2", "rank 10", "launcher", "extra"]
    assert choose(files, "launcher") == "launcher"
    assert choose(files, "../../etc/passwd") == "rank 2", "the first that has something in it"
    assert choose({}, "rank 0") == ""


def test_an_absent_log_is_empty(log):
    assert read_log(log, 7) == {"lines": [], "open": "", "offset": 0, "fresh": True, "skipped": 0}
