"""The queue in Train, and the runs that can be resumed: what is told of them, and what their buttons do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
from tests.experiments.made import looked
from tests.workbench.conftest import make_run
from tests.workbench.tabs.train.test_train_tab import draft, make_context
from workbench import draft as drafts
from workbench.context import Context
from workbench.tabs.train import fill, queue, show


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path)


def test_the_queue_can_be_ordered_cancelled_and_copied(context: Context) -> None:
    jobs = {name: drafts.launch(context, draft(name, train__steps="9"), at_once=False) for name in "abc"}
    queue.act(context, "up", jobs["c"].id)
    assert [job.run for job in context.jobs.queue()] == ["a", "c", "b"]
    queue.act(context, "down", jobs["a"].id)
    assert [job.run for job in context.jobs.queue()] == ["c", "a", "b"]
    queue.act(context, "cancel", jobs["a"].id)
    assert [job.run for job in context.jobs.queue()] == ["c", "b"] and not (context.runs / "a").exists()
    words = queue.queue(context)
    assert f'data-id="{jobs["c"].id}"' in words and "Move b up" in words and "Move c up" not in words
    assert "cancelled" in words and "train.steps 9" in words
    loaded, name = fill.from_request(context, {"from_job": jobs["b"].id}, {}, "tiny") or (None, "")
    assert loaded and (loaded.preset, loaded.values["train.steps"], name) == ("tiny", "9", "b")
    for action, id in (("explode", jobs["b"].id), ("up", "no-such-job"), ("cancel", jobs["a"].id)):
        with pytest.raises(UserError):
            queue.act(context, action, id)


def test_a_paused_queue_says_so(context: Context) -> None:
    assert "paused" not in queue.queue(context)
    context.jobs.pause()
    assert "paused: nothing waiting is started" in queue.queue(context)
    context.jobs.resume()
    assert "paused" not in queue.queue(context)


def test_a_run_that_would_have_to_wait_is_told_for_whom(context: Context) -> None:
    job = drafts.launch(context, draft("a"), at_once=True)
    assert drafts.busy(context, draft("b")) == []
    with context.jobs.store.locked():
        context.jobs.store.change(job.id, ("queued",), state="running")
    assert drafts.busy(context, draft("b")) == ["run a"]
    assert "cpu is busy with run a" in show.busy(["cpu"], ["run a"]) and not show.busy(["cpu"], [])


def test_a_stopped_run_can_be_resumed_on_another_number_of_processes(context: Context) -> None:
    for name, state in (("done", "finished"), ("held", "stopped"), ("broken", "failed")):
        make_run(context.runs, name, 3, state=state)
    assert {run.name for run, _ in queue.resumable(context)[0]} == {"held", "broken"}
    assert "Resume held" in queue.resume_list(context) and "Resume done" not in queue.resume_list(context)
    refused = [("held", "3", "not a multiple of 3 ranks"), ("held", "x", "expected a whole number"),
               ("done", "", "finished"), ("none", "", "no run"), ("../x", "", "not allowed")]  # fmt: skip
    for name, processes, words in refused:
        with pytest.raises(UserError, match=words):
            queue.resume(context, name, processes)
    assert not context.jobs.queue()
    job = queue.resume(context, "held", "4")
    assert job.spec.nproc == 4 and job.run == "held" and "--nproc" in job.spec.argv
    assert "Resume held" not in queue.resume_list(context), "it waits in the queue already"


def test_arms_that_their_sweep_stopped_are_counted_and_not_offered(context: Context) -> None:
    looked(context.runs, "rates", {"lr1": "worse than lr2 by 0.1 nats"}, ["lr2"])
    make_run(context.runs, "rates.lr1.1", 3, state="stopped")
    assert queue.resume_list(context) == "", "then there is nothing to resume"
    for name in ("rates.lr2.1", "held"):
        make_run(context.runs, name, 3, state="stopped")
    shown = queue.resume_list(context)
    assert "Resume held" in shown and "Resume rates.lr2.1" in shown and "Resume rates.lr1.1" not in shown
    assert "Not listed: 1 run that its sweep stopped." in shown


def test_text_of_runs_and_jobs_is_escaped(context: Context) -> None:
    make_run(context.runs, "held", 3, state="stopped")
    run = RunDir(context.runs / "held")
    record = json.loads(run.exit_file.read_text())
    run.exit_file.write_text(json.dumps({**record, "reason": "<img src=x onerror=alert(1)>"}))
    assert "&lt;img" in queue.resume_list(context) and "<img" not in queue.resume_list(context)
    drafts.launch(context, draft("a", data__text_column="<img src=x onerror=alert(1)>"), at_once=False)
    assert "&lt;img" in queue.queue(context) and "<img" not in queue.queue(context)


def test_a_finished_run_that_diverged_is_not_simply_finished_in_the_queue(context: Context) -> None:
    job = drafts.launch(context, draft("a"), at_once=True)
    run = RunDir(context.runs / "a")
    rows = [{"attempt": 1, "step": n, "loss": 8.3 if n == 1 else 1186.0} for n in range(1, 12)]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with context.jobs.store.locked():
        context.jobs.store.change(job.id, ("queued",), state="finished")
    assert "diverged: its loss at the end, 1186 as the median of its last 10 steps, is no result" in queue.queue(
        context
    )
