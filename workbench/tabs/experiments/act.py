"""What a person does to an experiment that there is: stop it, go on with it, delete it, bring it back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from mygpt2.errors import UserError
from mygpt2.experiments import removal
from mygpt2.experiments.arms import parts_of
from mygpt2.run_dir import moves
from workbench.context import Context
from workbench.tabs.experiments.begin import go_on
from workbench.tabs.experiments.experiment import Experiment
from workbench.tabs.experiments.found import Experiments

WAIT_SECONDS = 30.0  # for the task to end, after which what it began meanwhile is stopped too


def stop(context: Context, experiments: Experiments, name: str) -> str:
    """Ends an experiment and the run at work for it, once that has saved. What was done is kept."""
    context.changes()
    one = experiments.get(name)
    if not one.at_work:
        raise UserError(f"{name} is not at work")
    for task in experiments.running(name):
        context.jobs.tasks.stop(task.id)
    _stop_runs(context, one)
    threading.Thread(target=_stop_late, args=(context, experiments, name), name=f"stop {name}", daemon=True).start()
    return f"{name} stops; the run at work saves first"


def _stop_late(context: Context, experiments: Experiments, name: str) -> None:
    """A run may have been put into the queue just as its experiment was asked to stop."""
    ends = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < ends:
        if not experiments.running(name):
            _stop_runs(context, experiments.get(name))
            return
        time.sleep(0.5)


def _stop_runs(context: Context, one: Experiment) -> None:
    """Its own runs alone: others that it compares belong to somebody else."""
    for member in one.members:
        if member.at_work and (parts := parts_of(member.run)) and parts[0] == one.name:
            context.jobs.stop(member.run, "save")


def delete(context: Context, experiments: Experiments, name: str, with_runs: bool) -> str:
    """To the trash; with its own runs, or without. What a run cannot be deleted for is told, and the rest is done."""
    context.changes()
    one = experiments.get(name)
    if one.at_work:
        raise UserError(f"{name} is at work; stop it first")
    gone, kept = [], []
    for run in own_runs(one) if with_runs else []:
        try:
            gone.append(moves.delete(context.runs, context.run(run).name))
        except UserError as error:
            kept.append(str(error))
    removal.remove(context.runs, name)
    runs = f" with {len(gone)} of its runs" if with_runs else "; its runs stay"
    return f"{name} is in the trash{runs}" + (f"; {'; '.join(kept[:3])}" if kept else "")


def own_runs(one: Experiment) -> list[str]:
    """Runs that were made for it: those called after it."""
    return [run for run in one.runs if (parts := parts_of(run)) and parts[0] == one.name]


def restore(context: Context, experiments: Experiments, entry: str) -> str:
    context.changes()
    return f"{removal.restore(context.runs, entry)} is back"


def empty(context: Context, experiments: Experiments, _: str) -> str:
    context.changes()
    gone = removal.empty(context.runs)
    return f"{len(gone)} deleted {'experiment' if len(gone) == 1 else 'experiments'} removed for good"


def go(context: Context, experiments: Experiments, name: str) -> str:
    go_on(context, experiments, name)
    return f"{name} goes on"


ACTS: Mapping[str, Callable[[Context, Experiments, str], str]] = {
    "stop": stop,
    "go": go,
    "restore": restore,
    "empty": empty,
    "delete-keep": lambda context, experiments, name: delete(context, experiments, name, False),
    "delete-all": lambda context, experiments, name: delete(context, experiments, name, True),
}
