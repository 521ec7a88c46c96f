"""A run that was handed to a cluster, in Monitor: queued with the engine's reason, never waited for, taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.launch.handover import submit
from mygpt2.launch.spec import LaunchSpec
from mygpt2.run_dir import RunDir, state_of
from tests.launch.programs import Put, asked, putting
from tests.workbench.conftest import Start
from tests.workbench.tabs.monitor.test_view import Page
from tests.workbench.tabs.monitor.test_view import context as context  # the fixture
from workbench.context import Context
from workbench.jobs import JobSpec
from workbench.tabs.monitor import actions
from workbench.tabs.monitor.view import Monitor

WHY = "SLURM job 17 is pending: Priority, other jobs come first"


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    return putting(tmp_path / "bin", monkeypatch)


def hand_over(context: Context, put: Put, word: str = "PENDING", reason: str = "Priority") -> None:
    put("sbatch", "echo 17")
    says(context, put, word, reason)
    put("scancel", "")
    spec = LaunchSpec("r", PurePosixPath(context.runs), ("--preset", "tiny"), PurePosixPath("/"))
    submit("slurm", spec, context.runs, to_toml(load_config("tiny")))


def says(context: Context, put: Put, word: str, reason: str) -> None:
    put("squeue", f"echo '17|{word}|{reason}|{context.runs}/_launch/r.sbatch'")


def looking(context: Context, monkeypatch: pytest.MonkeyPatch, **ask: Any) -> tuple[Page, Monitor]:
    monitor = Monitor.over(context)
    monkeypatch.setattr(Monitor, "over", classmethod(lambda cls, context: monitor))
    return Page(context, focus="r", runs=["r"], **ask), monitor


def row(parts: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in parts["list"]["rows"] if row["name"] == "r")


def test_it_waits_with_the_engines_reason_in_the_list_and_above_the_chart(
    context: Context, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(context, put)
    page, monitor = looking(context, monkeypatch)
    first = page.poll()
    assert row(first)["state"] == "queued" and "is being asked" in row(first)["reason"], "the look did not wait"
    monitor.watching.now()
    second = page.poll()
    assert (row(second)["state"], row(second)["reason"]) == ("queued", WHY)
    assert f"{WHY}." in second["trouble"] and page.busy
    assert page.ask["focus"] == "r" and ">Cancel<" in first["head"] and "Resume" not in first["head"]
    assert page.poll() == {}, "nothing is new"


def test_a_job_that_ended_before_the_run_began_says_so_with_the_end_of_its_log(
    context: Context, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(context, put, "FAILED", "NonZeroExitCode")
    (context.runs / "_launch" / "r-17.log").write_text("cd: /nowhere: No such file or directory\n")
    page, monitor = looking(context, monkeypatch)
    first = page.poll()
    monitor.watching.now()
    parts = page.poll()
    assert row(parts)["state"] == "lost"
    assert "SLURM job 17 ended before the run began: FAILED, NonZeroExitCode" in parts["trouble"]
    assert "cd: /nowhere" in parts["trouble"] and "Cancel settles that" in parts["trouble"]
    enabled = first["enabled"] | parts.get("enabled", {})
    assert enabled["wb-do-resume"] is False and enabled["wb-do-save"] is True
    assert not page.busy, "nothing is asked any more"
    details = page.poll(pane="details")["details"]
    assert "SLURM job 17" in details and "engines were asked 1 times since this server began, 0 in vain" in details


def test_an_engine_that_does_not_answer_is_told_and_counted(
    context: Context, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(context, put)
    put("squeue", "echo 'squeue: error: <b>no</b> controller' >&2; exit 1")
    page, monitor = looking(context, monkeypatch)
    page.poll()
    monitor.watching.now()
    parts = page.poll()
    assert row(parts)["state"] == "queued"
    assert (
        "Handed to SLURM, which cannot be asked: squeue failed: squeue: error: &lt;b&gt;no&lt;/b&gt; controller."
        in parts["trouble"]
    )


def test_cancel_takes_it_back_and_the_queue_here_leaves_it_alone_until_then(
    context: Context, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(context, put)
    config = RunDir(context.runs / "r").config_file
    assert config.is_file(), "its settings can be looked at"
    with pytest.raises(UserError, match="was handed to SLURM and may begin there"):
        context.jobs.submit(JobSpec("r", ("true",), ("cpu",), 1, ""))
    page, monitor = looking(context, monkeypatch)
    page.poll()
    monitor.watching.now()
    actions.stop(context, "r", "save")
    stop = context.jobs.stop_of("r")
    assert stop is not None and stop.wait(30)
    assert asked(tmp_path / "bin", "scancel") == ["17"]
    parts = page.poll()
    assert row(parts)["state"] == "stopped" and "wb-waits" not in parts["trouble"]
    assert state_of(RunDir(context.runs / "r")).status["message"] == "taken back from SLURM"


def test_a_cancel_that_the_engine_refuses_changes_nothing(context: Context, put: Put) -> None:
    hand_over(context, put)
    put("scancel", "echo scancel: error: denied >&2; exit 1")
    with pytest.raises(UserError, match="did not take SLURM job 17 back: scancel: error: denied"):
        actions.stop(context, "r", "save")
    assert state_of(RunDir(context.runs / "r")).state == "queued"


def test_from_the_menu_of_targets_to_a_run_that_waits_and_back(
    workbench_server: Start, new_page: Callable[..., Any], tmp_path: Path, put: Put
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    put("sbatch", "sleep 0.2; echo 17")
    put("squeue", f"echo '17|PENDING|Priority|{runs}/_launch/tiny-1.sbatch'")
    put("scancel", "")
    server = workbench_server(runs, "--slots", "cpu", env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"})
    page = new_page()
    page.goto(f"{server.url}?tab=train")
    page.wait_for_function("document.querySelector('#train-command pre')?.textContent.includes('mygpt2.launch')")
    page.locator("#field-target input").click()
    page.get_by_role("option", name="SLURM").click()
    nodes = page.locator("#field-launch-nodes textarea, #field-launch-nodes input").first
    nodes.fill("x")
    page.wait_for_function("document.querySelector('#note-launch-nodes')?.textContent.includes('not a whole number')")
    assert page.locator("#train-submit").is_disabled() and page.locator("#field-launch-image").is_hidden()
    nodes.fill("2")
    page.wait_for_function("document.querySelector('#train-command pre')?.textContent.includes('--nodes=2')")
    with page.expect_download() as waiting:
        page.locator("#train-download").click()
    assert waiting.value.suggested_filename == "tiny-1.sbatch"
    page.locator("#train-submit").dblclick()
    page.wait_for_function(
        "document.querySelector('#wb-monitor-trouble')?.textContent.includes('other jobs come first')"
    )
    assert len(asked(tmp_path / "bin", "sbatch")) == 1
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.wait_for_function("document.querySelector('#wb-monitor-head .wb-badge')?.textContent === 'stopped'")
    assert asked(tmp_path / "bin", "scancel") == ["17"]
    record = json.loads((runs / "_launch" / "tiny-1.json").read_text())
    assert (record["job"], record["ended"]) == ("17", "taken back from SLURM")
