"""Tasks as markup: how far they are, how they ended, what can be done; their words are somebody else's."""

from __future__ import annotations

from workbench.jobs import Task, TaskProgress
from workbench.tasklist import listed, progress

EVIL = "<img src=x onerror=alert(1)>"


def a_task(state: str = "running", label: str = "a on b", error: str = "", title: str = "loss") -> Task:
    progress = TaskProgress(title, 300, 1200, "targets", 10.0, 90.0, 0.0) if state == "running" else None
    return Task("20260101-000000-00000000", "eval", label, state, ("x",), 0.0, None, progress, (), None, None, error, 1)


def test_a_running_evaluation_shows_progress_rate_and_time_left() -> None:
    words, share = progress(a_task())
    assert words == "loss · 300 of 1,200 targets · 10.0 targets/s · 1 min 30 s left" and share == 0.25
    assert 'aria-valuenow="25"' in listed([a_task()], 1) and "Stop: a on b" in listed([a_task()], 1)


def test_names_and_errors_are_text() -> None:
    view = listed([a_task(label=EVIL, error=EVIL, state="failed"), a_task(label=EVIL, title=EVIL)], 6)
    assert "<img" not in view and view.count("&lt;img") >= 4


def test_those_that_go_on_come_first_and_of_the_others_the_last_few() -> None:
    ended = [a_task("done", f"ended {n}") for n in range(4)]
    view = listed([*ended, a_task()], 2, said=lambda task: "told")
    assert view.index("a on b") < view.index("ended 0") < view.index("ended 1") and "ended 2" not in view
    assert "told" in view and "Remove from the list: ended 0" in view
