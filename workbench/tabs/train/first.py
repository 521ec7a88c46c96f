"""The newcomer's card: a run that starts with one click, how far it is, and what to do once it is done."""

from __future__ import annotations

from mygpt2.errors import UserError
from mygpt2.format import short
from mygpt2.planning import Plan
from mygpt2.records import whole
from mygpt2.run_dir import RunDir, list_runs, state_of
from mygpt2.run_dir.divergence import came_to_nothing
from mygpt2.run_dir.mentions import waits_elsewhere
from workbench import draft as drafts
from workbench.context import Context
from workbench.draft import FIRST_PRESET, Draft
from workbench.html import Markup, button, escape, join
from workbench.tabs.train import fill
from workbench.tabs.train.outlook import takes

STARTED = ("queued", "starting", "running", "saving")
NEXT = (("sample", "Sample it", "see what it writes"),
        ("compare", "Compare it with GPT-2", "the loss of both on the same text"),
        ("rate", "Find a better rate", "copies its settings into the form: change the rate, start, compare"),
        )  # fmt: skip


def first_draft(context: Context) -> Draft:
    """The newcomer's run: the smallest preset as it is, under a free name, on what this machine has."""
    devices = drafts.first_devices(context)
    processes = str(drafts.first_processes(FIRST_PRESET, devices))
    name = drafts.free_name(context, FIRST_PRESET)
    return Draft(FIRST_PRESET, fill.from_preset(FIRST_PRESET).values, name, devices, processes)


def card(context: Context) -> Markup:
    """Start here, while there is no run; then how the one run does and what comes next. Nothing from the second on."""
    if context.read_only:
        return Markup("")
    runs, jobs = list_runs(context.runs), context.jobs.queue()
    if not runs and not jobs:
        return _start(context)
    names = {run.name for run in runs} | {job.run for job in jobs}
    if len(names) > 1:
        return Markup("")
    return _going(context, names.pop())


def _start(context: Context) -> Markup:
    draft = first_draft(context)
    try:
        plan = drafts.estimate(context, drafts.check(context, draft))
    except UserError:
        return Markup("")
    if not isinstance(plan, Plan):
        return Markup("")
    time = takes(plan)
    size = f"{short(round(plan['parameters.total'].value or 0, -5))}-parameter"
    here = f"{time.text} on this machine" + (f" ({time.known})" if time.known else "")
    name = escape(draft.run)
    return _framed(
        "Start here",
        f"Trains a {escape(size)} model on built-in text: {escape(here)}. The run is called {name} and goes on by "
        "itself: this page and its server may be closed.",
        f'<button type="button" class="wb-primary" id="train-welcome-start" data-act="first" data-id="">'
        f"Start {name}</button>",
    )


def _going(context: Context, name: str) -> Markup:
    run = RunDir(context.runs / name)
    state = state_of(run)
    job = context.jobs.job_of(name)
    if state.state == "finished":
        diverged = bool(came_to_nothing(run))
        acts = join(_next(name, *each) for each in NEXT if each[0] == "rate" or not diverged)
        return _framed(f"{name} {'diverged' if diverged else 'is done'}. What next?", "", acts)
    if state.state not in STARTED and not (job and any(job.id == each.id for each in context.jobs.queue())):
        return Markup("")
    if state.state == "queued" and waits_elsewhere(context.runs, name):
        watch = button("watch", name, "Watch it", f"Watch {name}")
        return _framed(f"{name} is handed over", "Monitor says what it waits for on its cluster.", watch)
    step, steps = (whole(state.status.get(key)) for key in ("step", "steps"))
    where = f"step {step:,} of {steps:,}" if step is not None and steps else "starting"
    return _framed(f"{name} is training", f"{escape(where)}", button("watch", name, "Watch it", f"Watch {name}"))


def _next(run: str, act: str, text: str, why: str) -> Markup:
    press = button(act, run, text, f"{text}: {run}")
    return Markup(f'<span class="wb-next">{press}<small>{escape(why)}</small></span>')


def _framed(head: str, text: str, acts: str) -> Markup:
    said = f"<p>{text}</p>" if text else ""
    return Markup(
        f'<section class="wb-card wb-first" aria-label="{escape(head)}"><div><h2>{escape(head)}</h2>{said}</div>'
        f'<div class="wb-first-acts">{acts}</div></section>'
    )
