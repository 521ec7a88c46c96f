"""Tasks as markup: how far they are, how they ended, what can be done; their words are somebody else's."""

from __future__ import annotations

from dataclasses import replace

from workbench.jobs import Task, TaskProgress
from workbench.tasklist import listed, progress

EVIL = "<img src=x onerror=alert(1)>"


def a_task(
    state: str = "running", label: str = "a on b", error: str = "", title: str = "loss", created: float = 0.0
) -> Task:
    progress = TaskProgress(title, 300, 1200, "targets", 10.0, 90.0, 0.0) if state == "running" else None
    return Task(
        "20260101-000000-00000000", "eval", label, state, ("x",), created, None, progress, (), None, None, error, 1
    )


def test_a_running_evaluation_shows_progress_rate_and_time_left() -> None:
    words, share = progress(a_task())
    assert words == "loss · 300 of 1,200 targets · 10.0 targets/s · 1 min 30 s left" and share == 0.25
    assert 'aria-valuenow="25"' in listed([a_task()], 1) and "Stop: a on b" in listed([a_task()], 1)


def test_a_slow_rate_is_not_none() -> None:
    slow = TaskProgress("one", 2, 11, "steps", 0.0245, 367.0, 0.0)
    assert progress(replace(a_task(), progress=slow))[0] == "one · 2 of 11 steps · 0.025 steps/s · 6 min 7 s left"


def test_names_and_errors_are_text() -> None:
    view = listed([a_task(label=EVIL, error=EVIL, state="failed"), a_task(label=EVIL, title=EVIL)], 6)
    assert "<img" not in view and view.count("&lt;img") >= 4


def test_those_that_go_on_come_first_and_the_last_few_others_are_folded_away() -> None:
    ended = [a_task("done", f"ended {n}") for n in range(3)] + [a_task("done", "ancient")]
    view = listed([a_task("failed", "mishap"), *ended, a_task(created=1.0)], 4, said=lambda task: "told")
    assert view.index("a on b") < view.index("<summary>3 finished, 1 failed</summary>") < view.index("ended 0")
    assert view.index("<summary>") < view.index("mishap") and "ancient" not in view
    assert "told" in view and "Remove: ended 0" in view
    assert listed([], 4) == ""


def test_a_failure_is_seen_until_something_else_was_started() -> None:
    failed = a_task("failed", "mishap", error="the disk is full", created=1.0)
    view = listed([failed, a_task("done", "before")], 4)
    assert view.index("the disk is full") < view.index("<summary>1 finished</summary>") < view.index("before")
    view = listed([a_task("done", "after", created=2.0), failed], 4)
    assert view.index("<summary>1 finished, 1 failed</summary>") < view.index("the disk is full")
