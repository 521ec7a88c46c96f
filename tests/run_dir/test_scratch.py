"""Scratch folders: one of a process that is no more goes with the next of its kind, and nothing else does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mygpt2.run_dir.process import signature
from mygpt2.run_dir.scratch import scratch

GONE = f"{os.getpid()}-00000000-abc_1"  # the pid was given away again since


def folder(place: Path, kind: str = "some", host: str = "", owner: str = GONE) -> Path:
    made = place / f"mygpt2-{kind}-{host or socket.gethostname()}-{owner}"
    (made / "in" / "it").mkdir(parents=True)
    (made / "in" / "file").write_text("x")
    return made


def test_a_folder_is_gone_afterwards_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch("some", tmp_path) as own:
        (own / "file").write_text("x")
        assert own.parent == tmp_path
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_those_of_dead_processes_go_and_no_others(tmp_path: Path) -> None:
    dead = folder(tmp_path)
    kept = [
        folder(tmp_path, owner=f"{os.getpid()}-{signature(os.getpid())}-abc"), folder(tmp_path, kind="other"),
        folder(tmp_path, host="elsewhere"), folder(tmp_path, owner="abcdefgh"), tmp_path / "notes",
    ]  # fmt: skip
    (tmp_path / "notes").mkdir()
    link = tmp_path / f"mygpt2-some-{socket.gethostname()}-{os.getpid()}-00000000-link"
    link.symlink_to(tmp_path / "notes")
    with scratch("some", tmp_path) as own:
        assert sorted(tmp_path.iterdir()) == sorted([*kept, link, own])
    assert not dead.exists() and (kept[0] / "in" / "file").exists()


def test_those_of_another_user_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = folder(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: theirs.stat().st_uid + 1)
    with scratch("some", tmp_path):
        assert theirs.exists()


def test_where_there_is_no_place_for_one_the_system_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), scratch("some", tmp_path / "absent"):
        pass
