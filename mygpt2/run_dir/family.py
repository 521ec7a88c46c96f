"""Where a run branched off: of which run, at which step, with what changed. It outlives the run that it names.

    <run>/branch.json   {"parent", "parent_began", "step", "changes": {setting: [before, now]}, "optimizer", "batches"}

A run that is renamed, or restored under another name, is followed (`mentions`). `parent_began` tells the parent from
another run that got its name later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mygpt2.files import read_json
from mygpt2.inside import SMALL_BYTES
from mygpt2.records import checked, number, tame, whole
from mygpt2.run_dir.paths import NAME, RunDir

FILE = "branch.json"
SCHEMA = 1
KEPT, ANEW = "kept", "anew"  # the optimizer's state
EQUAL, OTHER = "equal", "other"  # the batches after the branching step, beside the parent's


@dataclass(frozen=True)
class Origin:
    """A branch's beginning. `changes` holds (before, now) of the settings that were changed on purpose."""

    parent: str
    step: int
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    optimizer: str = KEPT
    batches: str = EQUAL
    parent_began: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self), "changes": {name: list(pair) for name, pair in self.changes.items()}}

    def same(self, other: Origin) -> bool:
        """Whether the other begins as this one does."""
        return (self.step, self.optimizer, self.batches, self.parent_began) == (
            other.step, other.optimizer, other.batches, other.parent_began
        ) and {**self.changes} == {**other.changes}  # fmt: skip


def file_of(run: RunDir) -> Path:
    return run.path / FILE


def origin_of(run: RunDir) -> Origin | None:
    """Where the run branched off; None for one that began by itself, and for a record that says nothing sound."""
    record = read_json(file_of(run), run.path, most=SMALL_BYTES)
    return None if record is None else _origin(tame(checked(record)))


def _origin(record: Mapping[str, Any]) -> Origin | None:
    parent, step, changes = record.get("parent"), whole(record.get("step")), record.get("changes")
    if not (isinstance(parent, str) and NAME.fullmatch(parent) and step is not None and step >= 0):
        return None
    pairs = changes.items() if isinstance(changes, dict) else ()
    sound = {name: (pair[0], pair[1]) for name, pair in pairs if isinstance(pair, list) and len(pair) == 2}
    return Origin(
        parent, step, sound, ANEW if record.get("optimizer") == ANEW else KEPT,
        OTHER if record.get("batches") == OTHER else EQUAL, number(record.get("parent_began")),
    )  # fmt: skip


def began(run: RunDir) -> float | None:
    """When the run's first attempt began, which no other run of its name shares; None where that is not known."""
    record = read_json(run.attempt_dir(1) / "command.json", run.path, most=SMALL_BYTES) or {}
    return number(record.get("time"))


def parent_of(runs: Path, origin: Origin) -> RunDir | None:
    """The run that a branch came from, where it is still there under the name that is known."""
    run = RunDir(Path(runs) / origin.parent)
    return run if run.exists() and is_of(origin, run) else None


def is_of(origin: Origin, run: RunDir) -> bool:
    """Whether the run is the parent, and not another that has its name."""
    if origin.parent != run.name:
        return False
    when = None if origin.parent_began is None else began(run)
    return when is None or when == origin.parent_began
