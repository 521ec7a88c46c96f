"""How an analysis stands, as markup: under way, gone wrong, of an earlier state, or fresh."""

from __future__ import annotations

import time

from workbench import html
from workbench.html import Markup, escape
from workbench.tabs.ripples.reports import Found
from workbench.tabs.ripples.subject import Subject


def status(subject: Subject, found: Found, read_only: bool, now: float | None = None) -> Markup:
    """One line, with a bar while there is work."""
    task = found.task
    if task is not None and task.running:
        return _working(subject, found, time.time() if now is None else now)
    if task is not None and not found.fresh:
        word = {"failed": "", "stopped": "stopped", "lost": ""}.get(task.state, task.state)
        return html.problem(
            task.error or f"The analysis of {subject.name} was {word or task.state}; press Analyse for it."
        )
    if found.file is None:
        why = " This workbench is read only, so that it cannot be made." if read_only else " Press Analyse."
        return html.note(f"{subject.name} has not been analysed.{why}")
    if found.fresh:
        return html.note(f"Analysed as it is now, {subject.name}.")
    more = f"It has grown by {found.grown - 1:.0%} since" if found.grown > 1 else "It has changed since"
    return html.note(f"This is of an earlier state of {subject.name}. {more}; press Analyse for the present one.")


def _working(subject: Subject, found: Found, now: float) -> Markup:
    task = found.task
    assert task is not None
    seconds = max(0, int(now - task.created))
    share, words = None, f"{seconds} s"
    if task.progress is not None:
        share = task.progress.share
        words = f"{task.progress.title}, {seconds} s"
    value = f' value="{share:.3f}"' if share is not None else ""
    earlier = " What is below is of an earlier state." if found.file is not None else ""
    return Markup(
        f'<p class="wb-working" role="status"><progress max="1"{value} aria-label="analysis"></progress> '
        f"Analysing {escape(subject.name)}: {escape(words)}.{earlier}</p>"
    )
