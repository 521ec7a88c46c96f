"""A few real steps of what the form holds, as `plan --measure` takes them: a task, its figures at the estimate."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

from mygpt2.config.words import words_of
from mygpt2.errors import UserError
from workbench import draft as drafts
from workbench.context import Context
from workbench.draft import Draft
from workbench.html import Markup, button, escape, join
from workbench.jobs import RESULT, Task
from workbench.tasklist import badge

KIND = "measure"
SHOWN = ("time.speed", "time.total", "memory.process")


def start(context: Context, draft: Draft) -> Task:
    """Measures the draft's speed and memory. UserError with what is wrong with it, or who is at work on its device."""
    context.changes()
    checked = drafts.check(context, draft)
    fields = {drafts.RUN}  # a measurement makes no run, so its name does not matter
    wrong = [line for line, named in checked.reasons if not named or set(named) - fields]
    if wrong or not (checked.config and checked.processes):
        raise UserError("\n".join(wrong) or "there is nothing to measure")
    if any(task.running for task in context.jobs.tasks.list(KIND)):
        raise UserError("a measurement is under way already; wait for it, or stop it first")
    for device in draft.devices:
        context.jobs.devices.take(device)
    words = words_of(checked.config, draft.preset)
    argv = [sys.executable, "-m", "mygpt2", "plan", "--measure", "--nproc", str(checked.processes), "--runs",
            str(context.runs), "--json", RESULT, "--preset", draft.preset, *words]  # fmt: skip
    on = f"{checked.processes} x {drafts.device_kind(draft.devices)}"
    label = f"{shlex.join([draft.preset, *words])} on {on}"
    return context.jobs.tasks.start(KIND, argv, label=label, devices=draft.devices)


def stop(context: Context) -> None:
    """Ends the measurement that is under way."""
    context.changes()
    for task in context.jobs.tasks.list(KIND):
        if task.running:
            context.jobs.tasks.stop(task.id)


def newest(context: Context) -> Task | None:
    return next(iter(context.jobs.tasks.list(KIND)), None)


def view(task: Task | None) -> Markup:
    """The newest measurement: under way, its figures, or why there are none. Nothing before the first."""
    if task is None:
        return Markup("")
    head = f"<p>{badge(task)} <b>Measured</b>: {escape(_brief(task.label))}</p>"
    if task.running:
        said = next((line for line in reversed(task.log) if line.strip()), "starting")
        stop = button("stop-measuring", task.id, "Stop measuring", "Stop measuring")
        body = f'<p class="wb-muted" role="status">{escape(said)}</p>{stop}'
    elif task.state == "done":
        body = f"<dl>{_figures(task.result)}</dl>"
    else:
        body = f'<p class="wb-bad">{escape(task.error or "stopped")}</p>'
    return Markup(f'<section class="wb-card wb-estimate">{head}{body}</section>')


def _brief(label: str) -> str:
    return label if len(label) <= 200 else f"{label[:120]} … {label[-60:]}"


def _figures(result: Any) -> Markup:
    found = result.get("figures") if isinstance(result, Mapping) else None
    figures = [found[key] for key in SHOWN if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)]
    rows = (
        f"<div><dt>{escape(figure.get('label'))}</dt><dd>{escape(figure.get('text'))}"
        f"<small>{escape(figure.get('basis'))}</small></dd></div>"
        for figure in figures
    )
    return join(map(Markup, rows)) or Markup("<div><dt>Result</dt><dd>cannot be read</dd></div>")
