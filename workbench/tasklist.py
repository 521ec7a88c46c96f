"""Long work as a person sees it: which tasks go on and how far they are, which ended and how, and what can be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from workbench import html, words
from workbench.html import Markup, escape
from workbench.jobs import Task

STATES = {"running": "running", "done": "finished", "failed": "failed", "stopped": "stopped", "lost": "lost"}
Action = tuple[str, str]  # what a button asks for, and its label
STOP, FORGET = ("stop", "Stop"), ("forget", "Remove")


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
    """A line for each that goes on, with its progress; the last that ended are folded into one, which says how many.

    One that failed or was stopped is not folded while nothing was started after it. Each has buttons for what can be
    done to it.
    said: what to tell of one that has ended; error: a failure in the words of the page.
    """
    going = [task for task in tasks if task.running]
    over = [task for task in tasks if not task.running][:ended]
    newest = max(tasks, key=lambda task: task.created, default=None)
    if over and over[0] is newest and over[0].state != "done":
        going.append(over.pop(0))

    def rows(some: Sequence[Task]) -> Markup:
        return html.join(_row(task, said(task), error(task.error), actions(task)) for task in some)

    if not going and not over:
        return Markup("")
    folded = (
        f'<details class="wb-tasks-over" data-key="tasks-over"><summary>{_how_many(over)}</summary>'
        f"{rows(over)}</details>"
        if over
        else ""
    )
    return Markup(f'<div class="wb-tasks">{rows(going)}{folded}</div>')


def _how_many(over: Sequence[Task]) -> Markup:
    """2 finished, 1 failed."""
    counts = Counter(STATES.get(task.state, "lost") for task in over)
    return html.join(", ".join(f"{number} {state}" for state, number in counts.most_common()))


def _row(task: Task, said: str, error: str, can: Sequence[Action]) -> Markup:
    if task.running:
        doing, share = progress(task)
        told = html.join([bar(share, f"progress of {task.label}"), Markup("<span>"), doing, Markup("</span>")])
    else:
        told = html.join(["" if not said else f"{said} · ", html.when(task.ended or task.created)])
    buttons = html.join(html.button(act, task.id, label, f"{label}: {task.label}") for act, label in can)
    wrong = f'<p class="wb-bad">{escape(error)}</p>' if error else ""
    return Markup(
        f'<div class="wb-task" data-key="{escape(task.id)}">{badge(task)}<strong>{escape(task.label)}</strong>'
        f'<span class="wb-task-told">{told}</span><span class="wb-task-can">{buttons}</span>{wrong}</div>'
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
        slow = p.rate < 0.1  # a step of many seconds, which one digit would call none
        parts.append(f"{p.rate:.2g} {unit}/s" if slow else f"{p.rate:,.{1 if p.rate < 1000 else 0}f} {unit}/s")
    if p.seconds_left is not None:
        parts.append(f"{words.seconds(p.seconds_left)} left")
    return " · ".join(part.strip() for part in parts if part), p.share
