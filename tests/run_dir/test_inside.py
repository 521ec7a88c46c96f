"""Files of a run folder are read without being led out of it, and without waiting for anybody."""

import os
import socket

import pytest

from mygpt2.files import read_json
from mygpt2.run_dir import Follower, LineWriter, RunDir, last_record, open_inside, read_inside, read_records


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.json").write_text('{"secret": 1}\n')
    return folder


def test_a_file_and_a_link_that_stays_inside_are_read(run):
    (run.logs_dir / "rank-0.log").write_bytes(b"text")
    (run.path / "latest").symlink_to("logs/rank-0.log")
    (run.path / "again").symlink_to(run.logs_dir)
    for path in (run.logs_dir / "rank-0.log", run.path / "latest", run.path / "again" / "rank-0.log"):
        assert run.read(path) == b"text"
        with run.reader(path) as file:
            assert file.read() == b"text"
    assert run.names(run.path / "again") == ["rank-0.log"]


def test_a_run_folder_may_be_a_link_itself(run, tmp_path):
    run.config_file.write_text("a = 1")
    (tmp_path / "alias").symlink_to(run.path)
    assert RunDir(tmp_path / "alias").read(tmp_path / "alias" / "config.toml") == b"a = 1"


@pytest.mark.parametrize("absolute", [True, False])
def test_links_out_of_the_folder_are_refused_with_a_sentence(run, outside, absolute):
    target = outside / "secret.json" if absolute else "../../outside/secret.json"
    run.notes_file.symlink_to(target)
    run.evals_dir.rmdir()
    run.evals_dir.symlink_to(outside)
    for path in (run.notes_file, run.evals_dir / "secret.json", run.path / ".." / ".." / "outside" / "secret.json"):
        with pytest.raises(OSError, match="a link out of the run's folder"):
            run.read(path)
        assert read_json(path, run.path) is None
    assert run.names(run.evals_dir) == []
    assert read_json(run.notes_file) is None and read_records(run.notes_file) == [] and not last_record(run.notes_file)
    follower = Follower(run.notes_file)
    assert follower.read() == [] and "a link out of" in (follower.problem or "")
    with pytest.raises(OSError, match="a link out of"):
        LineWriter(run.notes_file)
    assert (outside / "secret.json").read_text() == '{"secret": 1}\n'


def test_pipes_sockets_folders_and_circles_are_refused_at_once(run, monkeypatch):
    os.mkfifo(run.status_file)
    run.notes_file.symlink_to("circle")
    (run.path / "circle").symlink_to("notes.md")
    run.exit_file.mkdir()
    bound = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(run.path)  # a socket's path holds 107 bytes at most
    bound.bind("metrics.jsonl")
    for path, word in (
        (run.status_file, "is a named pipe"), (run.notes_file, "is a link"), (run.exit_file, "is a folder"),
        (run.metrics_file, "is a socket"),
    ):  # fmt: skip
        with pytest.raises(OSError, match=word):
            open_inside(path)
        with pytest.raises(OSError, match=word):
            LineWriter(path)
        assert read_json(path) is None and last_record(path) is None and Follower(path).read() == []
    bound.close()


def test_what_is_larger_than_the_reader_wants_is_refused(run):
    with run.status_file.open("wb") as file:
        file.truncate(10 << 30)  # a hole
    with pytest.raises(OSError, match="holds 10,737,418,240 bytes, at most 100 are read"):
        read_inside(run.status_file, most=100)
    assert read_json(run.status_file) is None


def test_a_line_that_nobody_can_hold_is_passed_over_as_one_empty_line(run, monkeypatch):
    monkeypatch.setattr("mygpt2.run_dir.lines.MAX_LINE_BYTES", 100)
    monkeypatch.setattr("mygpt2.run_dir.lines.PIECE_BYTES", 64)
    path = run.events_file
    path.write_bytes(b'{"a":1}\n' + b"x" * 1000 + b'\n{"a":2}\n' + b"y" * 500)
    follower = Follower(path)
    assert follower.read() == [b'{"a":1}', b"", b'{"a":2}'] and follower.read() == []
    with path.open("ab") as file:
        file.write(b'y\n{"a":3}\n')
    assert follower.read() == [b"", b'{"a":3}'] and follower.offset == path.stat().st_size
