"""Runs that their experiment stopped: an arm that lost at a look of a sweep, or waits for the next one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mygpt2.experiments.arms import parts_of
from mygpt2.experiments.folder import FOLDER, ExperimentDir
from mygpt2.records import whole
from mygpt2.run_dir.control import AT_STEP
from mygpt2.run_dir.liveness import RunState
from mygpt2.run_dir.paths import RunDir


@dataclass(frozen=True)
class Stopped:
    """`look`: the one at which the arm lost, of `of`, and `why`; None for an arm that waits for the next one."""

    experiment: str
    look: int | None = None
    of: int | None = None
    why: str = ""

    @property
    def brief(self) -> str:
        """For a chip."""
        if self.look is None:
            return "waits for its sweep"
        return f"lost at look {self.look}{f' of {self.of}' if self.of else ''}"

    @property
    def words(self) -> str:
        """A sentence."""
        if self.look is None:
            return f"Sweep {self.experiment} goes on with it at its next look."
        return f"Sweep {self.experiment} stopped it at look {self.look}{f': {self.why}' if self.why else ''}."


def stopped_by(run: RunDir, state: RunState) -> Stopped | None:
    """What stopped a run that has not come to its end; None where that was a person or a fault.

    Where a person went on with an arm beyond the look at which it lost, it is that person's. Reads files of the
    experiment that the run's name begins with, each only once for as long as it is the same.
    """
    parts = parts_of(run.name)
    if parts is None or state.alive or state.state in ("queued", "finished"):
        return None
    folder = ExperimentDir(run.path.parent / FOLDER / parts[0])
    if run.name not in _runs(folder, *_stamp(folder.arms_file)).get(parts[1], ()):
        return None
    ended = state.exit or {}
    step = whole(ended.get("step")) or whole(state.status.get("step")) or 0
    lost = _lost(folder, *_stamp(folder.verdict_file)).get(parts[1])
    if lost is not None:
        return lost[1] if step <= lost[0] else None
    return Stopped(folder.name) if state.state == "stopped" and ended.get("asked") == AT_STEP else None


def _stamp(path: os.PathLike[str]) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _runs(folder: ExperimentDir, changed: int, size: int) -> dict[str, frozenset[str]]:
    """The runs of each arm."""
    found = {}
    for arm, known in folder.arms().items():
        runs = known.get("runs")
        found[arm] = frozenset(map(str, runs.values())) if isinstance(runs, dict) else frozenset()
    return found


@lru_cache(maxsize=64)
def _lost(folder: ExperimentDir, changed: int, size: int) -> dict[str, tuple[int, Stopped]]:
    """By the arm that lost: the step of the look at which it did, and how."""
    found: dict[str, tuple[int, Stopped]] = {}
    for look in folder.looks():
        arms, number, step = look.get("arms"), whole(look.get("look")), whole(look.get("step"))
        if not isinstance(arms, dict) or number is None or step is None:
            continue
        for arm, record in arms.items():
            if isinstance(record, dict) and record.get("stopped") is True:
                found[arm] = step, Stopped(folder.name, number, whole(look.get("of")), _why(record))
    return found


def _why(record: dict[str, Any]) -> str:
    why = record.get("why")
    return why[:300] if isinstance(why, str) else ""
