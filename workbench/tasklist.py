"""Long work as a person sees it: which tasks go on and how far they are, which ended and how, and what can be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench import html, words
from workbench.html import Markup, escape
from workbench.jobs import Task

STATES = {"running": "running", "done": "finished", "failed": "failed", "stopped": "stopped", "lost": "lost"}
Action = tuple[str, str]  # what a button asks for, and its label
STOP, FORGET = ("stop", "Stop"), ("forget", "Remove from the list")


def actions(task: Task) -> list[Action]:
    """What can be done to any task."""
    return [STOP if task.running else FORGET]


def badge(task: Task) -> Markup:
    return html.badge(STATES.get(task.state, "lost"))


def listed(
    tasks: Sequence[Task],
    ended: int,
    *,
    said: Callable[[Task], str] = lambda task: "",
    error: Callable[[str], str] = str,
    actions: Callable[[Task], Sequence[Action]] = actions,
) -> Markup:
    """Those that go on with their progress, then the last that ended, each with a button for what can be done to it.

    said: what to tell of one that has ended; error: a failure in the words of the page.
    """
    going = [task for task in tasks if task.running]
    shown = [*going, *[task for task in tasks if not task.running][:ended]]
    rows = (_row(task, said(task), error(task.error), actions(task)) for task in shown)
    return Markup(f'<div class="wb-tasks">{html.join(rows)}</div>')


def _row(task: Task, said: str, error: str, can: Sequence[Action]) -> Markup:
    began = f"started {words.minute(task.created)}"
    told, share = progress(task) if task.running else (" · ".join(filter(None, (said, began))), None)
    buttons = html.join(html.button(act, task.id, label, f"{label}: {task.label}") for act, label in can)
    wrong = f'<p class="wb-bad">{escape(error)}</p>' if error else ""
    return Markup(
        f'<div class="wb-task" data-key="{escape(task.id)}"><span>{badge(task)} {escape(task.label)}</span>'
        f"{bar(share, f'progress of {task.label}') if task.running else ''}"
        f'<span class="wb-muted">{escape(told)}</span><span class="wb-task-can">{buttons}</span>{wrong}</div>'
    )


def bar(share: float | None, label: str) -> Markup:
    """A bar of a share from 0 to 1; None: not known."""
    now = "" if share is None else f' aria-valuenow="{100 * share:.0f}"'
    return Markup(
        f'<span class="wb-going" role="progressbar" aria-valuemin="0" aria-valuemax="100"{now} '
        f'aria-label="{escape(label)}"><i style="width:{100 * (share or 0):.1f}%"></i></span>'
    )


def progress(task: Task) -> tuple[str, float | None]:
    """Where a task is, its rate and the time left; and its share from 0 to 1, None where that is not known."""
    p = task.progress
    if p is None:
        return "starting", None
    unit = "bytes" if p.unit == "B" else p.unit
    parts = [p.title]
    if p.total:
        parts.append(f"{p.done:,.0f} of {p.total:,.0f} {unit}")
    elif p.done:
        parts.append(f"{p.done:,.0f} {unit}")
    if p.rate:
        parts.append(f"{p.rate:,.{1 if p.rate < 1000 else 0}f} {unit}/s")
    if p.seconds_left is not None:
        parts.append(f"{words.seconds(p.seconds_left)} left")
    return " · ".join(part.strip() for part in parts if part), p.share
