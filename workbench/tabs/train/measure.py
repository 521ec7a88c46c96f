"""A few real steps of what the form holds, as `plan --measure` takes and keeps them: a task beside the estimate."""

from __future__ import annotations

import shlex
import sys

from mygpt2.config.words import words_of
from mygpt2.errors import UserError
from workbench import draft as drafts
from workbench.context import Context
from workbench.draft import Draft
from workbench.html import Markup
from workbench.jobs import RESULT, Task
from workbench.tasklist import listed

KIND = "measure"


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
    label = _brief(f"Measuring {shlex.join([draft.preset, *words])} on {on}")
    return context.jobs.tasks.start(KIND, argv, label=label, devices=draft.devices)


def _brief(label: str) -> str:
    return label if len(label) <= 120 else f"{label[:60]} … {label[-50:]}"


def stop(context: Context) -> None:
    """Ends the measurement that is under way."""
    context.changes()
    for task in context.jobs.tasks.list(KIND):
        if task.running:
            context.jobs.tasks.stop(task.id)


def newest(context: Context) -> Task | None:
    return next(iter(context.jobs.tasks.list(KIND)), None)


def act(context: Context, action: str, id: str) -> None:
    """Ends or forgets a measurement. UserError for anything else."""
    if action == "stop-measuring":
        stop(context)
    elif action == "forget-measuring" and context.jobs.tasks.get(id).kind == KIND:
        context.changes()
        context.jobs.tasks.forget(id)
    else:
        raise UserError(f"{action!r} cannot be done to a measurement; allowed: stop-measuring, forget-measuring")


def view(task: Task | None) -> Markup:
    """The newest measurement while it is under way, or why it failed. One that is done stands in the estimate."""
    if task is None or task.state in ("done", "stopped"):
        return Markup("")
    can = [("stop-measuring", "Stop") if task.running else ("forget-measuring", "Remove from the list")]
    return listed([task], 1, actions=lambda _: can)
