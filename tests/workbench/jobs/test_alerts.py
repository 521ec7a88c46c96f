"""The log of alerts: each once, numbered in the order in which it was written down, whatever lies in the file."""

import json

import pytest

from mygpt2.run_dir import RunDir, RunWriter
from mygpt2.run_dir.moves import rename
from workbench.jobs import Jobs
from workbench.jobs.alerts import AlertLog, folder_of, new_alert


def alert(at, when, run="a"):
    return new_alert("warning", "spike", run, f"spike {at}", at=at, when=when)


def numbers(log):
    return {found.key.rpartition("/")[2]: found.number for found in log.all()}


def test_an_alert_that_tells_of_an_earlier_time_has_a_later_number(tmp_path):
    log = AlertLog(tmp_path / "alerts.jsonl")
    assert log.add(alert("late", 2000.0)) and log.add(alert("early", 1000.0)) and not log.add(alert("late", 2000.0))
    assert numbers(log) == {"late": 1, "early": 2}


def test_every_server_numbers_the_alerts_of_a_folder_alike(tmp_path):
    one, two = (AlertLog(tmp_path / "alerts.jsonl") for _ in range(2))
    one.add(alert("first", 5.0))
    two.add(alert("second", 4.0))
    one.add(alert("third", 3.0))
    assert numbers(one) == numbers(two) == numbers(AlertLog(tmp_path / "alerts.jsonl"))
    assert numbers(one) == {"first": 1, "second": 2, "third": 3}


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 10**400, "yesterday", None, True])
def test_a_damaged_alert_hides_no_other(tmp_path, time):
    path = tmp_path / "alerts.jsonl"
    path.write_text(json.dumps({**alert("bad", 1.0).to_json(), "time": time}) + "\n")
    log = AlertLog(path)
    log.add(alert("good", 1.0))
    assert numbers(log) == {"good": 1}


def test_a_damaged_step_is_left_out_of_an_alert(tmp_path):
    path = tmp_path / "alerts.jsonl"
    path.write_text("".join(json.dumps({**alert(str(n), 1.0).to_json(), "step": step}) + "\n"
                            for n, step in enumerate([10**400, -1, True, 1.5, 7])))  # fmt: skip
    assert [found.step for found in sorted(AlertLog(path).all(), key=lambda found: found.number)] == [
        None, None, None, None, 7,
    ]  # fmt: skip


def test_alerts_follow_a_run_to_its_new_name_and_are_told_once(tmp_path):
    runs = tmp_path / "runs"
    jobs = Jobs(runs, slots=["cpu"])
    run = RunDir.create(runs, "old")
    with RunWriter(run, 1) as writer:
        writer.command(["train"])
        writer.finish("finished", 0, "finished")
    folder = folder_of(run)
    jobs.store.prepare()
    jobs._alerts.add(new_alert("error", "spike", "old", "a spike", at="7", step=7, folder=folder))
    rename(runs, "old", "new")
    assert [alert.run for alert in jobs.alerts("new")] == ["new"] and jobs.alerts("old") == []
    jobs._alerts.add(new_alert("error", "spike", "new", "a spike", at="7", step=7, folder=folder))
    assert [(alert.run, alert.text) for alert in jobs.alerts()] == [("new", "a spike")]
