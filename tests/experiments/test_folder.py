"""An experiment's folder: settings that never change, a ledger that only grows, looks that are always whole."""

import errno
import os

import pytest

from mygpt2.errors import TryAgain, UserError
from mygpt2.experiments.folder import ExperimentDir, check_experiment, list_experiments
from mygpt2.run_dir import list_runs

SETTINGS = b'kind = "judge"\n[base]\nwhat = "tiny"\n'


@pytest.fixture
def made(tmp_path):
    return ExperimentDir.begin(tmp_path, "lr", SETTINGS)


def test_beginning_again_with_the_same_settings_goes_on_and_with_others_is_refused(made, tmp_path):
    assert ExperimentDir.begin(tmp_path, "lr", b"# a comment more\n" + SETTINGS) == made
    with pytest.raises(UserError, match="begun with other settings"):
        ExperimentDir.begin(tmp_path, "lr", SETTINGS.replace(b"tiny", b"small"))
    assert made.settings() == {"kind": "judge", "base": {"what": "tiny"}}


def test_an_experiment_is_no_run_and_is_listed_beside_them(made, tmp_path):
    assert list_runs(tmp_path) == []
    assert [each.name for each in list_experiments(tmp_path)] == ["lr"]
    with pytest.raises(UserError, match="nearest: lr"):
        ExperimentDir.open(tmp_path, "lrr")
    assert ExperimentDir.open(tmp_path, "lr").runs == tmp_path


def test_a_line_that_a_killed_process_left_half_counts_as_a_verdict_and_swallows_no_later_one(made):
    made.append({"verdict": "keep"})
    with open(made.ledger_file, "ab") as file:
        file.write(b'{"verdict": "dr')
    assert (len(made.ledger().records), made.ledger().damaged, len(made.ledger())) == (1, 1, 2)
    made.append({"verdict": "undecided", "d": float("nan")})
    found = made.ledger()
    assert [record["verdict"] for record in found.records] == ["keep", "undecided"]
    assert found.damaged == 1 and found.records[1]["d"] is None


def test_a_full_disk_leaves_nothing_of_a_line_as_half_a_line_would_count_as_a_verdict(made, monkeypatch):
    made.append({"verdict": "keep"})
    before, real, room = made.ledger_file.read_bytes(), os.write, [40]

    def write(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("os.write", write)
    with pytest.raises(TryAgain, match="No space left on device; free some space"):
        made.append({"verdict": "drop", "told": "x" * 200})
    monkeypatch.setattr("os.write", real)
    assert made.ledger_file.read_bytes() == before and made.ledger().damaged == 0


def test_looks_are_appended_and_the_oldest_give_way_counted(made, monkeypatch):
    monkeypatch.setattr("mygpt2.experiments.folder.MOST_LOOKS", 2)
    for number in range(4):
        made.add_look({"number": number}, kind="judge")
    assert [look["number"] for look in made.looks()] == [2, 3]
    assert b'"left_out": 2' in made.verdict_file.read_bytes()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"looks": 3}', b'{"looks": [1, "x"]}', b"\xff"])
def test_a_damaged_verdict_file_has_no_looks(made, content):
    made.verdict_file.write_bytes(content)
    assert made.looks() == []
    made.add_look({"number": 1})
    assert made.looks() == [{"number": 1}]


def test_arms_are_noted_before_they_run_and_a_damaged_note_is_written_anew(made):
    made.note_arms({"base": {"told": "tiny"}})
    made.note_arms({"v1": {"told": "other"}})
    assert made.arms() == {"base": {"told": "tiny"}, "v1": {"told": "other"}}
    made.arms_file.write_text('{"arms": [1]}')
    assert made.arms() == {}
    made.note_arms({"v1": {"told": "other"}})
    assert list(made.arms()) == ["v1"]


def test_a_ledger_that_leads_elsewhere_is_an_error_and_not_an_empty_one(made, tmp_path):
    (tmp_path / "elsewhere").write_text("{}\n")
    made.ledger_file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="counts what was asked"):
        made.ledger()


@pytest.mark.parametrize("name", ["", "a.b", "../x", "-a", "x" * 41, "ä"])
def test_names_that_would_not_lead_back_from_a_run_are_refused(name):
    with pytest.raises(UserError, match="is not allowed; use 1 to 40"):
        check_experiment(name)
