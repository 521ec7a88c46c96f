"""Notes, tags and stars: files of the run folder that are always whole."""

from __future__ import annotations

import pytest

from mygpt2.errors import UserError
from tests.workbench.tabs.monitor.folders import run_folder
from workbench.tabs.monitor import labels
from workbench.tabs.monitor.labels import (
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


@pytest.mark.parametrize("data", [b"x" * 150_000, b"caf\xe9 au lait", "\U0001f600".encode() * 150_000])
def test_a_note_that_the_page_has_only_a_part_of_is_never_written(tmp_path, data):
    """One of 150,000 characters was saved as the 99,990 that the page had."""
    run = run_folder(tmp_path, "a")
    run.notes_file.write_bytes(data)
    shown = labels.read_note(run)
    with pytest.raises(UserError, match="edit the file itself"):
        labels.write_note(run, shown[:99_990], labels.note_digest(shown))
    assert run.notes_file.read_bytes() == data and labels.foreign_note(run)


@pytest.mark.parametrize("text", ["", "x" * 100_000, "\U0001f600" * 100_000, "one\r\ntwo"])
def test_a_note_that_fits_is_the_pages_to_write(tmp_path, text):
    run = run_folder(tmp_path, "a")
    run.notes_file.write_bytes(text.encode())
    assert labels.foreign_note(run) == ""
    assert labels.write_note(run, "new", labels.note_digest(labels.read_note(run)))
    assert run.notes_file.read_text() == "new"
