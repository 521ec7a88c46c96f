"""Where an experiment lies: `runs/_experiments/<name>/`, beside the runs that are its arms.

experiment.toml is what was asked and never changes; arms.json says what its arms are; ledger.jsonl has a line for every
verdict and only grows; verdict.json holds the looks. All of it can be made again from the run folders, except how often
was asked.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.errors import UserError
from mygpt2.files import cannot_write, read_json, replace_file, replace_json
from mygpt2.inside import read_inside
from mygpt2.records import number, tame, whole
from mygpt2.run_dir.holding import held
from mygpt2.run_dir.lines import Follower, append_durably, parse_lines

FOLDER = "_experiments"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
SCHEMA = 1
MOST_TOLD = 5  # settings that are told one by one
MOST_LOOKS = 500  # in verdict.json; the ledger has a line for every one


@dataclass(frozen=True)
class Lines:
    """The sound lines of a ledger, and how many were damaged: those were verdicts too."""

    records: list[dict[str, Any]]
    damaged: int

    def __len__(self) -> int:
        return len(self.records) + self.damaged


@dataclass(frozen=True)
class ExperimentDir:
    """Paths of one experiment, and the ways in which its files change."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def runs(self) -> Path:
        """The folder in which its arms are ordinary runs."""
        return self.path.parent.parent

    @property
    def settings_file(self) -> Path:
        return self.path / "experiment.toml"

    @property
    def ledger_file(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def verdict_file(self) -> Path:
        return self.path / "verdict.json"

    @property
    def arms_file(self) -> Path:
        return self.path / "arms.json"

    @classmethod
    def begin(cls, runs: Path | str, name: str, settings: bytes, *, fixed: Sequence[str] = ()) -> ExperimentDir:
        """The experiment of these settings, made now or begun before. UserError where the name has other settings, of
        those that `fixed` names if it does: what else follows from the name may be written otherwise by a later
        version."""
        found = cls(Path(runs) / FOLDER / check_experiment(name))
        from_toml(settings)  # a ValueError here is a defect of the caller
        try:
            found.path.mkdir(parents=True, exist_ok=True)
            with found.held():
                if found.settings_file.exists():
                    found._same(settings, fixed)
                else:
                    replace_file(found.settings_file, settings, durable=True)
        except OSError as error:
            raise cannot_write(found.path, error) from None
        return found

    @classmethod
    def open(cls, runs: Path | str, name: str) -> ExperimentDir:
        """An experiment there is; UserError with the nearest names otherwise."""
        found = cls(Path(runs) / FOLDER / check_experiment(name))
        if not found.settings_file.is_file():
            known = [other.name for other in list_experiments(runs)]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[-3:]
            hint = f"nearest: {', '.join(near)}" if near else "there is none yet"
            raise UserError(f"no experiment {name!r} in {runs}; {hint}")
        return found

    def _same(self, settings: bytes, fixed: Sequence[str]) -> None:
        theirs, ours = self.settings(), from_toml(settings)
        keys = fixed or [*theirs, *(key for key in ours if key not in theirs)]
        if other := [key for key in keys if theirs.get(key) != ours.get(key)]:
            values = ", ".join(
                f"{key} = {theirs[key]}" if isinstance(theirs.get(key), int | float | str) else key
                for key in other[:MOST_TOLD]
            )
            raise UserError(
                f"experiment {self.name!r} was begun with other settings: {values} ({self.settings_file}); go on with "
                "those, choose another name where the command takes one, or move that folder away"
            )

    def settings(self) -> dict[str, Any]:
        """What was asked. UserError for a file that cannot be read."""
        try:
            return from_toml(read_inside(self.settings_file, self.path, most=MAX_BYTES))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{self.settings_file} cannot be read: {reason}; repair it, or delete the folder") from None

    def held(self) -> AbstractContextManager[None]:
        """Nobody else writes in the folder meanwhile. Not to be taken twice by one thread."""
        return held(self.path)

    def ledger(self) -> Lines:
        """Every verdict so far, oldest first."""
        follower = Follower(self.ledger_file, root=self.path)
        lines = follower.read()
        if follower.problem:
            raise UserError(
                f"{self.ledger_file} cannot be read: {follower.problem}; repair it: it counts what was asked"
            )
        records, damaged = parse_lines(lines)
        return Lines([tame(record) for record in records], damaged + self._torn(follower))

    def _torn(self, follower: Follower) -> int:
        """1 where the last line has no end: somebody was killed as it was written."""
        return int(follower.size > follower.offset)

    def append(self, record: Mapping[str, Any]) -> None:
        """A line more in the ledger, on the disk when this returns. Hold the folder. UserError if it cannot be."""
        try:
            append_durably(self.ledger_file, {"schema": SCHEMA, "time": time.time(), **record})
        except OSError as error:
            raise cannot_write(self.ledger_file, error) from None

    def lost(self) -> list[dict[str, Any]]:
        """Looks of verdict.json that the ledger has no line for, not even a damaged one, oldest first.

        UserError where verdict.json has dropped older ones too, so that nobody knows how many there were.
        """
        known, looks = self.ledger(), self.looks()
        times = {None, *(number(record.get("time")) for record in known.records)}
        found = [look for look in looks if number(look.get("time")) not in times]
        if len(found) <= known.damaged:  # each may be one of those
            return []
        if left_out := whole((read_json(self.verdict_file, self.path) or {}).get("left_out")):
            raise UserError(
                f"{self.ledger_file} has lost questions, and {self.verdict_file} holds the latest {len(looks):,} of "
                f"{len(looks) + left_out:,} only, so that what is left of the chance of a false verdict is not known; "
                "bring the ledger back, or move that folder away and begin anew"
            )
        return found

    def arms(self) -> dict[str, dict[str, Any]]:
        """What is known of the arms by their names, also of those whose runs are still under way."""
        found = (read_json(self.arms_file, self.path) or {}).get("arms")
        return {name: arm for name, arm in found.items() if isinstance(arm, dict)} if isinstance(found, dict) else {}

    def note_arms(self, arms: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes down arms before their runs begin, those that are known already as they are now. UserError where it
        cannot."""
        try:
            with self.held():
                known = self.arms()
                if any(known.get(name) != dict(arm) for name, arm in arms.items()):
                    replace_json(self.arms_file, {"schema": SCHEMA, "arms": {**known, **arms}})
        except OSError as error:
            raise cannot_write(self.arms_file, error) from None

    def looks(self) -> list[dict[str, Any]]:
        """The looks that verdict.json holds, oldest first; none where there is no sound file."""
        found = (read_json(self.verdict_file, self.path) or {}).get("looks")
        return [look for look in found if isinstance(look, dict)] if isinstance(found, list) else []

    def add_look(self, look: Mapping[str, Any], **head: Any) -> None:
        """A look more in verdict.json, replaced as a whole; `head` are fields beside `looks`. Hold the folder.

        The oldest give way after MOST_LOOKS; `left_out` counts them.
        """
        known = read_json(self.verdict_file, self.path) or {}
        looks = [*self.looks(), dict(look)]
        before = known.get("left_out")
        gone = (before if type(before) is int else 0) + max(0, len(looks) - MOST_LOOKS)
        record = {"schema": SCHEMA, **head, "looks": looks[-MOST_LOOKS:], "left_out": gone}
        try:
            replace_json(self.verdict_file, record, durable=True)
        except OSError as error:
            raise cannot_write(self.verdict_file, error) from None


def check_experiment(name: str) -> str:
    """The name, or UserError: it begins the names of its runs, in which dots part it from the arm."""
    if NAME.fullmatch(name):
        return name
    near = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:40]
    hint = f", for example {near!r}" if NAME.fullmatch(near) else ""
    raise UserError(
        f"experiment {name!r} is not allowed; use 1 to 40 of A-Z a-z 0-9 _ -, beginning with one of A-Z a-z 0-9{hint}"
    )


def list_experiments(runs: Path | str) -> list[ExperimentDir]:
    """All experiments over a folder of runs, by name."""
    folder = Path(runs) / FOLDER
    try:
        names = sorted(name for name in os.listdir(folder) if NAME.fullmatch(name))
    except OSError:
        return []
    return [found for name in names if (found := ExperimentDir(folder / name)).settings_file.is_file()]
