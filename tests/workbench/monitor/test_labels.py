"""Notes, tags and stars: files of the run folder that are always whole."""

from __future__ import annotations

import pytest

from mygpt2.errors import UserError
from tests.workbench.monitor.folders import run_folder
from workbench.monitor.labels import (
    MAX_NOTE,
    note_digest,
    parse_tags,
    read_labels,
    read_note,
    toggle_star,
    write_note,
    write_tags,
)


@pytest.fixture
def run(tmp_path):
    return run_folder(tmp_path, "a")


def test_a_note_is_kept_as_it_was_typed(run):
    text = "first line\n\n<img src=x onerror=alert(1)> ünï 🙂\n"
    assert write_note(run, text, note_digest("")) and read_note(run) == text
    assert not write_note(run, text, "whatever"), "saying the same again writes nothing"


def test_a_note_changed_elsewhere_is_not_overwritten(run):
    write_note(run, "mine", note_digest(""))
    with pytest.raises(UserError, match="changed elsewhere"):
        write_note(run, "yours", note_digest(""))
    assert read_note(run) == "mine"


def test_a_note_too_long_is_refused_and_nothing_is_written(run):
    with pytest.raises(UserError, match="at most 100,000"):
        write_note(run, "x" * (MAX_NOTE + 1), note_digest(""))
    assert not run.notes_file.exists()


def test_tags_are_separated_by_commas_or_spaces_and_kept_once():
    assert parse_tags(" lr-sweep, v2  keep,,keep ") == ("lr-sweep", "v2", "keep")
    assert parse_tags("") == ()


@pytest.mark.parametrize("text", ["<b>", "a;b", "x" * 41, "-dash", "'quote'", " ".join(f"t{i}" for i in range(21))])
def test_what_is_no_tag_is_refused_and_nothing_is_written(run, text):
    with pytest.raises(UserError, match="tag"):
        write_tags(run, text)
    assert read_labels(run).tags == ()


def test_star_and_tags_do_not_disturb_each_other(run):
    write_tags(run, "keep")
    assert toggle_star(run) is True
    assert read_labels(run).star and read_labels(run).tags == ("keep",)
    assert toggle_star(run) is False and read_labels(run).tags == ("keep",)
