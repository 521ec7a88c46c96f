"""What the head and the details of a run are made of, read once for both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt2.records import number, whole
from mygpt2.run_dir import RunDir, RunState, parse_lines
from mygpt2.run_dir.divergence import diverged
from mygpt2.run_dir.lines import TAIL_BYTES, tail_lines
from workbench.jobs.reading import current, reached

AVERAGED = 20  # steps


@dataclass(frozen=True)
class Glance:
    """How a run is doing. `nothing`: why its loss is no result, "" where it is one."""

    run: RunDir
    state: RunState
    last: dict[str, Any]  # the last line of metrics.jsonl, of the present attempt
    mean: float | None  # training loss of the last steps of this attempt, at most AVERAGED, in nats per token
    averaged: int  # how many these are
    step: int | None
    validation: dict[str, Any]  # the last eval event
    left_out: dict[str, Any]  # the last event that counts it
    checkpoints: Sequence[int]
    nothing: str

    @property
    def steps(self) -> int | None:
        return whole(self.state.status.get("steps"))

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds since 1970, or last showed life; None for a run at work."""
        if self.state.alive or self.state.state == "queued":
            return None
        status = self.state.status
        return number((self.state.exit or {}).get("time")) or number(status.get("heartbeat"))

    @property
    def untouched(self) -> bool:
        """It failed before it had done a step: there is nothing to draw and no figure to give."""
        return self.state.state in ("failed", "lost") and not self.step and not self.validation

    @property
    def took(self) -> float | None:
        """Seconds from the start of the last attempt to its end."""
        began, ended = number(self.state.status.get("started")), self.ended
        return None if began is None or ended is None else max(0.0, ended - began)


def glance(run: RunDir, state: RunState, events: Iterable[dict[str, Any]]) -> Glance:
    from mygpt2.checkpoint.store import steps

    rows = parse_lines(tail_lines(run.metrics_file, TAIL_BYTES)[0])[0]
    last = current(state.status, rows[-1] if rows else None)
    losses = [number(row.get("loss")) for row in rows[-AVERAGED:] if last and row.get("attempt") == last.get("attempt")]
    known = [loss for loss in losses if loss is not None]
    newest = {event.get("kind"): event for event in events if isinstance(event.get("kind"), str)}
    return Glance(
        run, state, last, sum(known) / len(known) if len(known) > 1 else None, len(known),
        reached(run, state.status, rows[-1] if rows else None), newest.get("eval", {}), newest.get("left_out", {}),
        steps(run.checkpoints_dir), diverged(run, state),
    )  # fmt: skip
