"""An experiment as the page knows it: its runs, what was asked, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mygpt2.records import number, whole
from workbench.jobs import Task

PACE_STEPS = 5  # of the run at work, before its pace says how long the whole will take


@dataclass(frozen=True)
class Member:
    """A run of an experiment. `state` is a run's or `missing`; `steps` are those it is to make, None where unknown."""

    run: str
    arm: str
    replicate: int | None
    state: str = "missing"
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    reason: str = ""
    diverged: bool = False

    @property
    def at_work(self) -> bool:
        return self.state in ("queued", "starting", "running", "saving")

    @property
    def over(self) -> bool:
        return self.state == "finished" or self.diverged


@dataclass(frozen=True)
class Asked:
    """What this page was asked for last: the command, the runs it needs with their steps, and its cost as told."""

    argv: tuple[str, ...] = ()
    pieces: Mapping[str, int] = field(default_factory=dict)
    seconds: float | None = None
    told: str = ""
    time: float = 0.0


@dataclass(frozen=True)
class Experiment:
    """One experiment as it is now. `problems` are sentences on files that are damaged; `lost` lines of its ledger;
    `arms` says what each arm is."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    looks: Sequence[Mapping[str, Any]]
    ledger: Sequence[Mapping[str, Any]]
    lost: int
    members: Sequence[Member]
    asked: Asked
    task: Task | None
    problems: Sequence[str]
    arms: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    changed: float = 0.0

    @property
    def left_out(self) -> int:
        """Older looks that verdict.json does not hold any more."""
        return whole(self.record.get("left_out")) or 0

    @property
    def lost_arms(self) -> set[str]:
        """Arms that a look has stopped."""
        found = [look.get("arms") for look in self.looks]
        arms = [item for each in found if isinstance(each, dict) for item in each.items()]
        return {str(name) for name, arm in arms if isinstance(arm, dict) and arm.get("stopped") is True}

    @property
    def runs(self) -> list[str]:
        return [member.run for member in self.members if member.state != "missing"]

    @property
    def argv(self) -> tuple[str, ...]:
        """The command it goes on with: what this page was asked for, else what another program was, whose own place for
        the answer is left out."""
        words = self.task.argv if self.task else ()
        if self.asked.argv or words[1:3] != ("-m", "mygpt2"):
            return self.asked.argv
        at = words.index("--json") if "--json" in words else len(words)
        return (*words[:at], *words[at + 2 :])

    @property
    def at_work(self) -> bool:
        return bool(self.task and self.task.running) or any(member.at_work for member in self.members)

    @property
    def standing(self) -> str:
        """In a word: running, stopped, failed, finished, or damaged where nothing can be told."""
        if self.at_work:
            return "running"
        task = self.task
        if task and task.state in ("stopped", "failed", "lost") and (task.ended or task.created) >= self._last_look:
            return task.state
        if self.kind == "sweep" and self.looks and self.record.get("state") != "finished":
            return "stopped"
        if self.looks or self.ledger:
            return "finished"
        return "damaged" if self.problems else "stopped"

    @property
    def _last_look(self) -> float:
        return max((number(look.get("time")) or 0.0 for look in self.looks), default=0.0)

    @property
    def share(self) -> float | None:
        """How much of the training is done, from 0 to 1; None where its length is not known."""
        known = self._lengths()
        if not known or not self.at_work:
            return None
        return min(1.0, sum(done for done, _ in known) / (sum(of for _, of in known) or 1))

    def _lengths(self) -> list[tuple[int, int]]:
        """(steps done, steps to do in all) of each run that was planned; of one whose arm lost no more are to do."""
        lost = self.lost_arms
        planned = [m for m in self.members if m.steps and (m.run in self.asked.pieces or not self.asked.pieces)]
        return [
            (min(m.step, m.steps or 0), m.step if m.arm in lost or m.diverged else m.steps or 0) for m in planned
        ]  # fmt: skip

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the run at work; None where nothing tells it, or too few steps: the first ones are slow."""
        progress = self.task.progress if self.task and self.task.running else None
        left = sum(of - done for done, of in self._lengths())
        if progress is None or not progress.rate or progress.unit != "steps" or progress.done < PACE_STEPS:
            return None
        return left / progress.rate
