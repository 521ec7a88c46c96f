"""The console is never vital: whatever becomes of it, the program goes on and ends with its own exit code."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mygpt2.run_dir import RunDir
from mygpt2.steady import Steady, open_descriptors
from mygpt2.train.logs import logged

ROOT = Path(__file__).parents[1]


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def closed_terminal():
    master, slave = os.openpty()
    os.close(master)
    return os.fdopen(slave, "w", buffering=1)


def closed_stream():
    stream = io.StringIO()
    stream.close()
    return stream


BROKEN = {
    "a pipe without a reader": closed_pipe,
    "a closed terminal": closed_terminal,
    "a full disk": lambda: os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", buffering=1),
    "a closed stream": closed_stream,
    "no stream": lambda: None,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_console_that_has_gone_costs_nothing_and_the_log_has_everything(tmp_path, monkeypatch, kind):
    stream = BROKEN[kind]()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    run = RunDir(tmp_path)
    with logged(run.log_file(0), show=True):
        for number in range(3000):  # more than any buffer holds
            print("step", number, flush=True)
        print("a warning", file=sys.stderr)
    assert sys.stdout is stream
    Steady(stream).give_up()
    if stream is not None:
        stream.close()  # as at exit: nothing is left that could fail
    assert run.log_file(0).read_text().splitlines() == [f"step {n}" for n in range(3000)] + ["a warning"]


def test_characters_that_a_console_lacks_are_written_as_escapes(tmp_path):
    raw = io.BytesIO()
    steady = Steady(io.TextIOWrapper(raw, encoding="latin-1", write_through=True))
    steady.write("naïve 日本 \ud800\n")
    assert raw.getvalue() == b"na\xefve \\u65e5\\u672c \\ud800\n"


def test_a_log_on_a_full_disk_costs_lines_and_nothing_else(tmp_path, monkeypatch, capsys):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank-0.log").symlink_to("/dev/full")
    with logged(RunDir(tmp_path).log_file(0), show=True):
        print("seen", flush=True)
    assert capsys.readouterr().out == "seen\n"


def test_closed_descriptors_are_opened_before_a_file_can_get_their_numbers():
    code = (
        "import os; from mygpt2.steady import open_descriptors; open_descriptors(); "
        "raise SystemExit(os.open(os.devnull, os.O_RDONLY))"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 3
    open_descriptors()  # where they are open it leaves nothing behind


@pytest.mark.parametrize("sink", ["closed pipe", "full disk"])
def test_the_exit_code_is_the_programs_own_though_nobody_hears_its_error(sink):
    where = closed_pipe() if sink == "closed pipe" else os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    with where:
        done = subprocess.run(
            [sys.executable, "-m", "mygpt2", "train", "--train.steps", "none"], stdout=where, stderr=where, cwd=ROOT,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2


def test_ranks_of_a_node_share_a_log_whose_lines_say_whose_they_are(tmp_path):
    """Also a stack of many lines, a line in pieces, and the last one that nobody ended."""
    file = RunDir(tmp_path).node_log_file(3)
    with logged(file, show=False, name="rank 24"):
        print("step", end=" ")
        print(1)
        print("not ended", end="")
    with logged(file, show=False, name="rank 25") as log:
        log.write("Traceback\n  a line\n")
    assert file.name == "node-3.log"
    assert file.read_text().splitlines() == [
        "rank 24: step 1", "rank 24: not ended", "rank 25: Traceback", "rank 25:   a line",
    ]  # fmt: skip
