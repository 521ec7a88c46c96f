"""What the files of a run say together of how far it is: in its present attempt, or between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mygpt2.records import number, whole
from mygpt2.run_dir import RunDir, RunState
from mygpt2.run_dir.settings import settings_of


def starting(state: RunState, launched: bool) -> RunState:
    """The state, or "starting" while a launcher is at work that has no ranks yet: at first, or between two attempts.

    A branch says "stopped" until somebody starts it, and has had no attempt then.
    """
    unbegun = state.state == "stopped" and state.status.get("attempt") == 0
    if launched and (unbegun or state.state in ("queued", "lost")):
        return replace(state, state="starting", reason="the launcher is at work")
    return state


def launching(state: RunState) -> bool:
    """Whether it starts without having said so itself: what its status says is of before."""
    return state.state == "starting" and state.status.get("state") != "starting"


def current(status: Mapping[str, Any], row: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last row of metrics, or nothing while it is of an earlier attempt than the status: that one went back."""
    attempt, of_row = whole((status or {}).get("attempt")), whole((row or {}).get("attempt"))
    return {} if attempt is not None and of_row is not None and of_row < attempt else dict(row or {})


def reached(run: RunDir, status: Mapping[str, Any], row: Mapping[str, Any] | None) -> int | None:
    """The step a run is at, by its last row and its status; as it goes on again, that of its newest checkpoint."""
    step, now = whole(current(status, row).get("step")), whole(status.get("step"))
    if step is not None:
        return step if now is None else max(step, now)
    if row and not now and status.get("phase") == "starting":  # the attempt has not said yet where it begins
        from mygpt2.checkpoint.store import steps

        return max(steps(run.checkpoints_dir), default=0)
    return now


def muon_times(run: RunDir) -> float | None:
    """How many times the logged learning rate, which is AdamW's, Muon's is; None for a run without Muon."""
    settings = settings_of(run)
    lr, muon = number(settings.get("optimizer.lr")), number(settings.get("optimizer.muon_lr"))
    return muon / lr if settings.get("optimizer.name") == "muon" and lr and muon else None
