"""The runs that an experiment needs, and how each of them stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mygpt2.config import RunConfig
from mygpt2.errors import EXIT_TRY_AGAIN
from mygpt2.failures import NONFINITE
from mygpt2.launch.request import DEFAULT_PRESET
from mygpt2.run_dir.liveness import state_of
from mygpt2.run_dir.paths import RunDir


@dataclass(frozen=True)
class Piece:
    """A run that an experiment needs, trained to its configuration's last step, or for now until a step before it."""

    run: str
    config: RunConfig
    preset: str = DEFAULT_PRESET
    until: int | None = None

    @property
    def steps(self) -> int:
        return min(self.config.train.steps, self.until or self.config.train.steps)

    @property
    def tokens(self) -> int:
        return self.steps * self.config.train.batch_tokens

    def done(self, found: Outcome) -> bool:
        """Whether running it again would change nothing."""
        return found.over or (found.state == "stopped" and found.step >= self.steps and not found.unsaved)


@dataclass(frozen=True)
class Outcome:
    """How a run stands: `state` as `run_dir.liveness` says it, or `missing`; `unsaved` where it ended for a disk that
    did not take its last step."""

    run: str
    state: str
    step: int = 0
    reason: str = ""
    unsaved: bool = False

    @property
    def diverged(self) -> bool:
        """Whether it stopped itself before a loss or gradient that was not finite."""
        return self.state == "failed" and self.reason.startswith(NONFINITE)

    @property
    def over(self) -> bool:
        """Whether running it again would change nothing."""
        return self.state == "finished" or self.diverged


def outcome(runs: Path, name: str) -> Outcome:
    """How a run stands now, from its folder."""
    run = RunDir(Path(runs) / name)
    if not run.exists():
        return Outcome(name, "missing")
    state = state_of(run)
    step = (state.exit or {}).get("step") or state.status.get("step") or 0
    unsaved = (state.exit or {}).get("code") == EXIT_TRY_AGAIN
    return Outcome(name, state.state, step, state.reason or str(state.status.get("message") or ""), unsaved)
