"""Takes an experiment away and brings it back: one rename of its folder. Its runs are runs, and go or stay as such.

runs/_trash/_experiments/<name>-<YYYYMMDD-HHMMSS>/   a deleted experiment, whole, until the trash is emptied
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mygpt2.errors import UserError
from mygpt2.experiments.folder import FOLDER, NAME, check_experiment
from mygpt2.files import cannot_write
from mygpt2.run_dir.deleted import free_place, lying
from mygpt2.run_dir.moves import TRASH

GOING = ".going-"  # before one that is being removed for good


@dataclass(frozen=True)
class Removed:
    """A deleted experiment. `entry` is its folder in the trash, `time` when it was deleted (seconds)."""

    entry: str
    name: str
    time: float
    path: Path


def remove(runs: Path, name: str) -> Removed:
    """Moves an experiment's folder to the trash; whoever asks has seen that nobody is at work on it.

    UserError where there is none, or it cannot be moved.
    """
    runs = Path(os.path.abspath(runs))
    folder, trash = runs / FOLDER / check_experiment(name), runs / TRASH / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"there is no experiment {name!r} in {runs}; python -m mygpt2 runs list shows the runs")
    if (runs / TRASH).is_symlink() or trash.is_symlink():
        raise UserError(f"{trash} is a link to another place; a deleted experiment stays in its folder of runs")
    try:
        trash.mkdir(mode=0o700, parents=True, exist_ok=True)
        to, now = free_place(trash, name)
        os.rename(folder, to)
    except OSError as error:
        raise cannot_write(folder, error) from None
    return Removed(to.name, name, now, to)


def restore(runs: Path, entry: str) -> str:
    """Brings a deleted experiment back under its name, which is returned. UserError where that is taken."""
    runs = Path(os.path.abspath(runs))
    found = next((each for each in removed(runs) if each.entry == entry), None)
    if found is None:
        raise UserError(f"no deleted experiment {entry[:90]!r} in {runs / TRASH / FOLDER}")
    target = runs / FOLDER / found.name
    if os.path.lexists(target):
        raise UserError(f"there is an experiment {found.name!r} again; delete that one first")
    try:
        target.parent.mkdir(exist_ok=True)
        os.rename(found.path, target)
    except OSError as error:
        raise cannot_write(target, error) from None
    return found.name


def empty(runs: Path) -> list[Removed]:
    """Removes all deleted experiments for good; what was removed. UserError where something cannot be.

    Each is put aside by one rename first: one that was only half removed is not restored, and goes the next time.
    """
    runs = Path(os.path.abspath(runs))
    folder, gone = runs / TRASH / FOLDER, removed(runs)
    if folder.is_symlink():
        return []
    try:
        for each in gone:
            os.rename(each.path, folder / f"{GOING}{each.entry}")
        for left in folder.glob(f"{GOING}*"):
            shutil.rmtree(left)
    except OSError as error:
        raise cannot_write(folder, error) from None
    return gone


def removed(runs: Path) -> list[Removed]:
    """Deleted experiments, the latest first."""
    return [
        Removed(path.name, name, when, path)
        for name, when, path in lying(Path(runs) / TRASH / FOLDER)
        if NAME.fullmatch(name)
    ]
