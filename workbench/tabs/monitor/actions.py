"""What a person does to a run from the monitor. Each validates again, and refuses on a read-only page."""

from __future__ import annotations

from typing import Any

from mygpt2.errors import UserError
from mygpt2.run_dir.stop import How
from workbench.context import Context
from workbench.tabs.monitor import labels


def stop(context: Context, run: str, how: How) -> str:
    """Begins to stop a run and returns at once; the report grows in the background."""
    context.changes()
    found = context.run(run)
    context.jobs.stop(found.name, how)
    words = {"save": "asked to save and end", "now": "being stopped", "kill": "being killed"}
    return f"{found.name} is {words[how]}"


def confirm_kill(context: Context, run: str, asked: str) -> str:
    """Kills the run that the question was about, and no other. UserError when the choice has changed since."""
    if not asked or asked != run:
        raise UserError(
            f"the question was about {asked or 'no run'}, and {run or 'no run'} is chosen now; press Kill again"
        )
    return stop(context, run, "kill")


def ask(context: Context, run: str, what: str) -> str:
    """Asks a running run to save or to sample at its next step."""
    context.changes()
    found = context.run(run)
    if what not in ("save", "sample"):
        raise UserError(f"request {what!r} is not known; allowed: save, sample")
    context.jobs.ask(found.name, what)  # type: ignore[arg-type]
    return f"{found.name} was asked to {what} at its next step"


def resume(context: Context, run: str) -> str:
    """Puts a run that has ended into the queue again, with its own settings."""
    context.changes()
    found = context.run(run)
    from mygpt2.checkpoint.store import steps

    context.configuration(found)
    saved = steps(found.checkpoints_dir)
    job = context.jobs.resume_run(found.name)
    how = (
        f"goes on from its checkpoint of step {saved[-1]:,}"
        if saved
        else "has no checkpoint: it starts again at step 0"
    )
    before = [
        other for other in context.jobs.queue() if other.id != job.id and {*other.spec.devices} & {*job.spec.devices}
    ]
    then = f", once {' and '.join(job.spec.devices)} is free" if before else ""
    return f"{found.name} {how}{then}"


def star(context: Context, run: str) -> str:
    context.changes()
    found = context.run(run)
    return f"{found.name} is {'starred' if labels.toggle_star(found) else 'no longer starred'}"


def save_note(context: Context, of: dict[str, Any], text: str) -> str:
    """`of` says which run's note was edited, the digest of what it was before, and what the page sent `before`, whose
    answer it may not have yet. Returns the new digest."""
    context.changes()
    found = context.run(str(of.get("run", "")))
    before = of.get("before")
    labels.write_note(found, text, str(of.get("digest", "")), before if isinstance(before, str) else None)
    return labels.note_digest(labels.read_note(found))


def save_tags(context: Context, run: str, text: str) -> tuple[str, ...]:
    """Returns the tags as they are now."""
    context.changes()
    found = context.run(run)
    labels.write_tags(found, text)
    return labels.read_labels(found).tags
