"""The queue and the runs that can be resumed, as lists whose buttons name an action and what it is done to."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence

from mygpt2.config.batch import batch_problem, lanes_problem
from mygpt2.errors import UserError
from mygpt2.experiments.stopped import stopped_by
from mygpt2.records import whole
from mygpt2.run_dir import RunDir, RunState, rank_states, state_of
from mygpt2.run_dir.divergence import came_to_nothing
from mygpt2.run_dir.marks import current_runs
from workbench.context import Context
from workbench.draft import parse_processes
from workbench.html import STATES, Markup, badge, button, chip, escape, join, note
from workbench.jobs import Job
from workbench.jobs.policy import check_resumable, may_resume
from workbench.jobs.records import WAITING

ENDED_SHOWN = 5
RUNS_SHOWN = 50
WORDS = {"waiting": "queued", "claimed": "starting"}


def queue(context: Context) -> Markup:
    """What waits and runs, first first, and the last that ended, with why; and whether anything is started at all."""
    active = context.jobs.queue()
    ended = [job for job in context.jobs.history(ENDED_SHOWN) if job.run not in {a.run for a in active}]
    waiting = [job.id for job in active if job.state in WAITING]
    held = context.jobs.devices.held() if waiting else {}
    rows = join(_row(context, job, waiting, held) for job in (*active, *ended))
    body = Markup(f'<div class="wb-tasks">{rows}</div>') if rows else note("Nothing waits and nothing runs.")
    return join([_head(context), body])


def _head(context: Context) -> Markup:
    paused = context.jobs.paused
    told = chip("paused: nothing waiting is started", "warn") if paused else ""
    press = ("continue", "Continue") if paused else ("pause", "Pause")
    can = button(press[0], "", press[1], f"{press[1]} the queue") if not context.read_only else ""
    return Markup(f'<div class="wb-queue-head"><h2>Queue</h2>{told}{can}</div>')


def _row(context: Context, job: Job, waiting: Sequence[str], held: Mapping[str, str]) -> Markup:
    can = [button("open", job.id, "Open", f"Open {job.run} in Monitor")] if job.state != "cancelled" else []
    if not context.read_only:
        can.append(button("copy", job.id, "Copy", f"Copy {job.run} into the form"))
        if job.id in waiting:
            place = waiting.index(job.id)
            can += [button("up", job.id, "↑", f"Move {job.run} up")] if place else []
            can += [button("down", job.id, "↓", f"Move {job.run} down")] if place + 1 < len(waiting) else []
            can.append(button("cancel", job.id, "Cancel", f"Take {job.run} out of the queue"))
    word = WORDS.get(job.state, job.state)
    nothing = came_to_nothing(RunDir(context.runs / job.run)) if job.state == "finished" else ""
    why = f"diverged: {nothing}" if nothing else _why(job, held)
    on = f"{', '.join(job.spec.devices)} x {job.spec.nproc}"
    bad = " wb-bad" if nothing or job.state == "failed" else ""
    told = Markup(f'<span class="wb-muted{bad}">{escape(why)}</span>') if why else ""
    return _task(job.id, word, job.run, f"{on} · {_settings(job)}", told, can)


def _task(key: str, state: str, name: str, more: str, why: Markup | str, can: Sequence[Markup]) -> Markup:
    """A row in the look of all long work."""
    shown = badge(state) if state in STATES else chip(state)
    return Markup(
        f'<div class="wb-task" data-key="{escape(key)}"><span>{shown} <b>{escape(name)}</b></span>'
        f'<span class="wb-muted">{escape(more)}</span>{why}<span class="wb-task-can">{join(can)}</span></div>'
    )


def _why(job: Job, held: Mapping[str, str]) -> str:
    if job.state == "waiting":
        return f"{job.reason}; again at {time.strftime('%H:%M:%S', time.localtime(job.not_before))}"
    before = dict.fromkeys(held[device] for device in job.spec.devices if device in held)
    if job.state == "queued" and before:
        return f"waits for {', '.join(before)}"
    return job.reason


def _settings(job: Job) -> str:
    """What distinguishes the job's command: its preset and overrides."""
    words = list(job.spec.argv)
    text = shlex.join(words[words.index("--preset") + 1 :]) if "--preset" in words else "as before"
    return text if len(text) <= 200 else f"{text[:197]}..."


def act(context: Context, action: str, id: str) -> None:
    """Moves or cancels a waiting job, pauses or continues the queue. UserError for what is not possible (any more)."""
    context.changes()
    if action in ("pause", "continue"):
        (context.jobs.pause if action == "pause" else context.jobs.resume)()
        return
    if action not in ("up", "down", "cancel"):
        raise UserError(f"{action!r} cannot be done to a job; allowed: up, down, cancel")
    if action == "cancel":
        context.jobs.cancel(str(id))
    else:
        context.jobs.move(str(id), -1 if action == "up" else 1)


def resumable(context: Context) -> tuple[list[tuple[RunDir, RunState]], int]:
    """Of the latest runs those that ended before their last step and are not queued again, newest first; and how many
    more of them there are that an experiment stopped."""
    queued = {job.run for job in context.jobs.queue()}
    runs = sorted((run for run in current_runs(context.runs) if run.name not in queued), key=_changed, reverse=True)
    found = ((run, state_of(run)) for run in runs[:RUNS_SHOWN])
    could = [(run, state) for run, state in found if may_resume(state) and run.config_file.is_file()]
    ours = [(run, state) for run, state in could if stopped_by(run, state) is None]
    return ours, len(could) - len(ours)


def resume_list(context: Context) -> Markup:
    """The runs that can be resumed, each with its button; nothing for none."""
    rows = []
    found, halted = resumable(context)
    for run, state in found:
        step, steps = whole(state.status.get("step")), whole(state.status.get("steps"))
        at = "step n/a" if step is None or steps is None else f"step {step:,} of {steps:,}"
        ranks = len(rank_states(run))
        at += f" · {ranks} process{'es' if ranks > 1 else ''}" if ranks else ""
        why = state.reason or str((state.exit or {}).get("reason") or state.status.get("message") or "")
        told = Markup(f'<span class="wb-muted">{escape(why)}</span>') if why else ""
        can = [] if context.read_only else [button("resume", run.name, "Resume", f"Resume {run.name}")]
        rows.append(_task(run.name, state.state, run.name, at, told, can))
    if not rows:
        return Markup("")
    return join([Markup(f'<div class="wb-tasks">{join(rows)}</div>'), note(_not_listed(halted)) if halted else ""])


def _not_listed(count: int) -> str:
    """What became of the arms that an experiment stopped, in a sentence."""
    which, it = ("run that its sweep", "it") if count == 1 else ("runs that their sweeps", "one")
    return f"Not listed: {count:,} {which} stopped. Resume in Monitor's More goes on with {it} all the same."


def resume(context: Context, name: str, processes: str) -> Job:
    """Goes on with a run, on as many processes as asked or, with none given, as before. UserError when it cannot."""
    context.changes()
    run = context.run(name)
    state = state_of(run)
    check_resumable(run.name, state)
    count = parse_processes(processes) if str(processes or "").strip() else None
    config = context.configuration(run)
    if count:
        train, block = config.train, config.model.block_size
        problem = batch_problem(train.batch_tokens, block, train.micro_batch, count)
        problem = problem or lanes_problem(train.batch_tokens // block, config.data.lanes, count)
        if problem:
            raise UserError(problem)
    return context.jobs.resume_run(run.name, count)


def _changed(run: RunDir) -> float:
    try:
        return run.status_file.stat().st_mtime
    except OSError:
        return 0.0
