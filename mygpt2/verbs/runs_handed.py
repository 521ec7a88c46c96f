"""What `runs` says of launches that were handed to a cluster, and how it takes them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.run_dir.mentions import HANDED, waits_elsewhere
from mygpt2.run_dir.paths import RunDir

if TYPE_CHECKING:
    from mygpt2.launch.handed import Told
    from mygpt2.run_dir.liveness import RunState


def told(runs: Path) -> dict[str, Told]:
    """By run, what was handed over with what its engine says; nobody is asked where nothing was handed over."""
    if not (runs / HANDED).is_dir():
        return {}
    from mygpt2.launch.watching import Watching

    return Watching(runs).now()


def state(each: RunDir, told: Told | None) -> RunState:
    """The state of a run, with what the engine says of its job."""
    from mygpt2.run_dir.liveness import state_of

    if told is None:
        return state_of(each)
    from mygpt2.launch.handed import seen

    return seen(state_of(each), told)


def lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Below the list: why a run that was handed over has not begun."""
    for row in rows:
        if row["job"] and row["state"] in ("queued", "starting", "lost") and row["reason"]:
            yield f"{row['run']}: {row['reason']}"


def take_back(each: RunDir) -> str:
    """Takes the run's job back where its engine may still begin it, or is at work on it; "" where there is none."""
    runs = each.path.parent
    if not waits_elsewhere(runs, each.name):
        return ""
    from mygpt2.launch import handover
    from mygpt2.launch.handed import is_open, read
    from mygpt2.run_dir.liveness import state_of

    record, now = read(runs, each.name), state_of(each)
    if record is None or not (now.alive or is_open(record, now)):
        return ""
    return handover.take_back(runs, each.name)
