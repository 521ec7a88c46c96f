"""Every run has one colour, the same for every page and server, whatever comes and goes."""

import json
import os
import time
from pathlib import Path

import pytest

from workbench.colours import COLOURS, RunColours


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, began in (("third", 3), ("first", 1), ("second", 2)):
        run(tmp_path, name, began)
    return tmp_path


def run(runs: Path, name: str, began: float) -> None:
    (runs / name).mkdir()
    (runs / name / "config.toml").write_text("")
    os.utime(runs / name / "config.toml", (began, began))


def test_runs_that_began_one_after_the_other_differ_whoever_asks_first(runs):
    assert RunColours(runs).of(["third"]) == {"third": 1}
    assert RunColours(runs).of(["second", "first", "third"]) == {"third": 1, "first": 2, "second": 3}
    assert RunColours(runs).of(["first"]) == {"first": 2}


def test_a_run_keeps_its_colour_while_others_come_and_go_and_when_it_is_renamed(runs):
    colours, other = RunColours(runs), RunColours(runs)
    before = colours.of(["first", "second", "third"])
    (runs / "first" / "config.toml").unlink()
    (runs / "first").rmdir()
    (runs / "second").rename(runs / "better")
    run(runs, "fourth", time.time() + 10)  # in the place of the first, whose inode it may have
    assert other.of(["better", "third", "fourth"]) == {
        "better": before["second"],
        "third": before["third"],
        "fourth": 4,
    }
    assert colours.of(["better", "fourth"]) == {"better": before["second"], "fourth": 4}


def test_more_runs_than_colours_go_round(tmp_path):
    names = [f"run-{i:02}" for i in range(COLOURS + 2)]
    for i, name in enumerate(names):
        run(tmp_path, name, i)
    found = RunColours(tmp_path).of(names)
    assert [found[name] for name in names] == [*range(1, COLOURS + 1), 1, 2]


def test_a_read_only_server_writes_nothing_and_takes_what_another_wrote(runs):
    quiet = RunColours(runs)
    assert quiet.of(["first"], read_only=True) == {"first": 1}
    assert not (runs / ".workbench").exists()
    RunColours(runs).of(["third", "second"])
    assert quiet.of(["third", "second"], read_only=True) == {"second": 1, "third": 2}


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"runs": 1}', '{"runs": {"first": [99, 1, 1], "second": ["x", null, 1]}}']
)
def test_a_damaged_file_gives_colours_anew(runs, damage):
    folder = runs / ".workbench"
    folder.mkdir()
    (folder / "colours.json").write_text(damage)
    assert RunColours(runs).of(["first", "second"]) == {"first": 1, "second": 2}
    assert set(json.loads((folder / "colours.json").read_text())["runs"]) == {"first", "second"}


def test_what_is_no_run_folder_has_no_colour(runs):
    (runs / "file").write_text("")
    assert RunColours(runs).of(["file", "nobody", "../first", "first"]) == {"first": 1}
