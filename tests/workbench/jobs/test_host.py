"""The machine's load is kept while a run is at work and placed at the run's steps."""

import json
import os
from pathlib import Path

import pytest

from tests.workbench.charts.made_up import Folder, new_run, write_steps
from workbench.charts.host import host_history, hosts_of
from workbench.charts.points import points
from workbench.jobs.gpus import Device
from workbench.jobs.host import HostLog

T0 = 1.79e9  # the end of step 0 of a run that is made up


class Gpus:
    def devices(self):
        return [Device(f"cuda:{i}", "made up", load, 4e9, 8e9, None, None) for i, load in enumerate((0.5, 1.0))]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / ".workbench").mkdir()
    return Folder(tmp_path)


def lines(folder: Folder, name: str = "host.jsonl") -> list[dict]:
    file = folder.runs / ".workbench" / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_line_every_ten_seconds_while_a_run_is_at_work_and_none_otherwise(folder):
    now = [T0]
    log = HostLog(folder.runs, Gpus(), clock=lambda: now[0])
    run = new_run(folder.runs, "r", "running")
    os.utime(run.status_file, (T0 - 600, T0 - 600))
    log()
    assert lines(folder) == []
    os.utime(run.status_file, (T0, T0))
    for now[0] in (T0 + 11, T0 + 15, T0 + 22, T0 + 200):
        log()
    found = lines(folder)
    assert [line["time"] - T0 for line in found] == [11, 22]
    assert all(0 <= line["cpu"] <= 1 and 0 < line["memory"] <= 1 for line in found)
    assert (found[0]["gpu"], found[0]["gpu_memory"]) == (0.75, 0.5)


def test_the_older_part_is_kept_once(folder, monkeypatch):
    monkeypatch.setattr("workbench.jobs.host.MOST_BYTES", 300)
    now = [T0]
    log = HostLog(folder.runs, Gpus(), clock=lambda: now[0])
    run = new_run(folder.runs, "r", "running")
    for now[0] in range(int(T0) + 10, int(T0) + 200, 10):
        os.utime(run.status_file, (now[0], now[0]))
        log()
    assert 0 < len(lines(folder)) < 10 and 0 < len(lines(folder, "host.1.jsonl")) < 10


def test_samples_are_placed_at_the_steps_they_fall_on_and_others_left_out(folder):
    write_steps(new_run(folder.runs, "r"), 1, 100)  # step n ends at T0 + n
    samples = [(T0 - 5, 0.9), (T0 + 9.5, 0.1), (T0 + 50, 0.2), (T0 + 99.5, 0.3), (T0 + 5000, 0.9)]
    file = folder.runs / ".workbench" / "host.jsonl"
    file.write_text(
        "".join(json.dumps({"time": t, "cpu": cpu, "gpu": None}) + "\n" for t, cpu in samples) + "damaged\n"
    )
    found = host_history(folder, {"runs": ["r", "nobody", 7]})
    assert set(found) == {"r"} and found["r"]["step"] == [10, 50, 100]
    assert found["r"]["cpu"] == [0.1, 0.2, 0.3] and found["r"]["gpu"] == [None] * 3


def test_what_is_known_of_the_machine_is_told_with_the_first_points_and_only_then(folder):
    run, other = new_run(folder.runs, "r"), new_run(folder.runs, "other")
    write_steps(run, 1, 100)
    assert hosts_of(run, folder.runs) == hosts_of(other, folder.runs) == []
    samples = [{"time": T0 + 50, "cpu": 0.2, "gpu": None}, {"time": T0 + 5000, "memory": 0.5, "gpu": 0.5}]
    (folder.runs / ".workbench" / "host.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    first = points(folder, {"wants": [{"run": "r"}, {"run": "other"}], "columns": []})
    assert [reply["hosts"] for reply in first] == [["cpu"], []]
    assert "hosts" not in points(folder, {"wants": [{"run": "r", "cursor": first[0]["cursor"]}], "columns": []})[0]


@pytest.mark.parametrize("request_", [None, {}, {"runs": 5}, {"runs": []}])
def test_a_request_that_is_none_gets_nothing(folder, request_):
    assert host_history(folder, request_) == {}
