"""What the queue remembers of a job, as values that become JSON and come back the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mygpt2.records import number, whole
from mygpt2.run_dir import Process
from mygpt2.run_dir.paths import NAME

WAITING = ("queued", "waiting")  # `waiting`: it died and is started again when its time has come
HOLDING = ("claimed", "running")  # `claimed`: its command is about to be started, or just was
ENDED = ("finished", "stopped", "failed", "cancelled")
STATES = (*WAITING, *HOLDING, *ENDED)
ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
RESTARTS = 2


@dataclass(frozen=True)
class JobSpec:
    """What is to be run, frozen when it is queued.

    argv: the one command, as `train_command` makes it. devices: slots it takes for itself alone. restarts: how often in
    a row it may be started again without getting a step further; 0 never. folder: where the command runs, the server's
    own when empty.
    """

    run: str
    argv: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    nproc: int = 1
    config_hash: str = ""
    restarts: int = RESTARTS
    folder: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "argv", tuple(self.argv))
        object.__setattr__(self, "devices", tuple(self.devices))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"argv": list(self.argv), "devices": list(self.devices)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> JobSpec:
        """Raises KeyError, TypeError or ValueError for what is not a specification."""
        argv, devices = record["argv"], record["devices"]
        if not all(isinstance(words, list) and all(isinstance(w, str) for w in words) for words in (argv, devices)):
            raise TypeError("argv and devices are lists of text")
        return cls(
            str(record["run"]), tuple(argv), tuple(devices), int(record["nproc"]), str(record["config_hash"]),
            int(record["restarts"]), str(record["folder"]),
        )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A place in the queue and what became of it.

    order: the smallest goes first. attempt_before: the run's last attempt when this launch was claimed. failures: in a
    row, none of which got beyond best_step. asked: how a person asked it to stop. new_run: queueing made its folder.
    """

    id: str
    spec: JobSpec
    order: float
    created: float
    state: str = "queued"
    started: float | None = None
    ended: float | None = None
    launches: int = 0
    launcher: Process | None = None
    attempt_before: int = 0
    not_before: float = 0.0
    failures: int = 0
    best_step: int = 0
    asked: str = ""
    code: int | None = None
    reason: str = ""
    new_run: bool = field(default=False)

    @property
    def run(self) -> str:
        return self.spec.run

    @property
    def argv(self) -> tuple[str, ...]:
        return self.spec.argv

    @property
    def active(self) -> bool:
        return self.state not in ENDED

    def to_json(self) -> dict[str, Any]:
        launcher = self.launcher.to_json() if self.launcher else None
        return asdict(self) | {"schema": 1, "spec": self.spec.to_json(), "launcher": launcher}

    @classmethod
    def from_json(cls, record: Mapping[str, Any] | None) -> Job | None:
        """None for anything that is not a job's record."""
        try:
            known = {key: value for key, value in dict(record or {}).items() if key in cls.__dataclass_fields__}
            known |= {"spec": JobSpec.from_json(known["spec"]), "launcher": Process.from_json(known.get("launcher"))}
            job = cls(**known)
            ends = (time for time in (job.started, job.ended) if time is not None)
            times = (job.order, job.created, job.not_before, *ends)
            counts = (job.launches, job.attempt_before, job.failures, job.best_step, job.spec.nproc, job.spec.restarts)
            named = bool(ID.fullmatch(job.id) and job.state in STATES and NAME.fullmatch(job.run))
            counted = None not in [*map(number, times), *map(whole, counts)]
            sound = named and counted and all(isinstance(text, str) for text in (job.asked, job.reason))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        return job if sound else None
