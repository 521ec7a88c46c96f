"""Rename, delete, restore and archive runs: each is one rename of a folder or of a file, done while nobody works on it.

    runs/_trash/<name>-<YYYYMMDD-HHMMSS>/   a deleted run, whole

A process that is killed, or a machine that stops, in the middle of any of these leaves the run whole in one place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mygpt2.errors import TryAgain, UserError, word
from mygpt2.files import cannot_write
from mygpt2.run_dir import mentions
from mygpt2.run_dir.deleted import free_place, lying
from mygpt2.run_dir.holding import held
from mygpt2.run_dir.liveness import state_of
from mygpt2.run_dir.lock import RunLock, holder
from mygpt2.run_dir.marks import change_marks
from mygpt2.run_dir.mentions import TRASH
from mygpt2.run_dir.paths import RunDir, check_name

_GOING = ".going-"  # before a trashed run that is being removed for good: it is no longer whole


@dataclass(frozen=True)
class Trashed:
    """A deleted run. `entry` is its folder in the trash, `time` when it was deleted (seconds), `bytes` its size."""

    entry: str
    name: str
    time: float
    bytes: int
    path: Path


def rename(runs: Path, name: str, new: str) -> RunDir:
    """Gives a run another name, and puts that into everything of the workbench that named it. Its new folder.

    UserError for a run at work, queued or held, and for a name that is malformed, taken, or the same.
    """
    runs = Path(os.path.abspath(runs))
    run, target = RunDir.open(runs, name), RunDir(runs / check_name(new))
    if new == name:
        raise UserError(f"run {name!r} is called that already; give another name")
    with _held(runs), _alone(run) as lock:
        if os.path.lexists(target.path):
            raise UserError(f"there is a {new!r} in {runs} already; choose another name")
        if others := mentions.needed_by(run):
            raise UserError(f"the settings of {_list(others)} name files of run {name!r}, so it has to keep its name")
        try:
            mentions.begin(runs, name, new)
            os.rename(run.path, target.path)
            lock.moved(target)
            with suppress(OSError):  # it has its new name; what names it follows with the next change of a name here
                mentions.settle(runs)
        except OSError as error:
            raise _cannot("rename", run, error) from None
    return target


def delete(runs: Path, name: str) -> Trashed:
    """Moves a run to the trash. UserError for one at work, queued or held, or that a task reads just now."""
    runs = Path(os.path.abspath(runs))
    run = RunDir.open(runs, name)
    with _held(runs), _alone(run) as lock:
        trash = runs / TRASH
        try:
            if trash.is_symlink():
                raise UserError(f"{trash} is a link to another place; a deleted run stays in its folder of runs")
            trash.mkdir(mode=0o700, exist_ok=True)
            to, now = free_place(trash, name)
            os.rename(run.path, to)
            lock.moved(RunDir(to))
        except OSError as error:
            raise _cannot("delete", run, error) from None
    return Trashed(to.name, name, now, size_of(to), to)


def restore(runs: Path, entry: str, name: str | None = None) -> RunDir:
    """Takes a run out of the trash, under the name it had or another. `entry`: its folder there or, for the one that
    was deleted last, the run's name. UserError where there is none, or the name is taken."""
    runs = Path(os.path.abspath(runs))
    with _held(runs):
        found = _entry(runs, entry)
        target = RunDir(runs / check_name(name or found.name))
        if os.path.lexists(target.path):
            raise UserError(
                f"there is a {target.name!r} in {runs} again; restore it under another name: python -m mygpt2 runs "
                f"restore {word(found.entry)} --runs {word(runs)} --as NAME"
            )
        try:
            os.rename(found.path, target.path)
        except OSError as error:
            raise cannot_write(target.path, error) from None
        if target.name != found.name:
            with suppress(OSError):  # it is back; a branch that could not be told says that its parent is gone
                mentions.follow_family(runs, found.name, target)
    return target


def archive(runs: Path, name: str, archived: bool = True) -> bool:
    """Hides a run from lists and pickers, or shows it again; whether that changed anything. UserError at work."""
    run = RunDir.open(runs, name)
    if archived and (state := state_of(run)).alive:
        raise UserError(f"run {name!r} is {state.state}; archive it once it has ended")
    return change_marks(run, archived=True if archived else None)


def trash(runs: Path, *, sizes: bool = True) -> list[Trashed]:
    """What lies in the trash, the latest deleted first. Without sizes nothing inside is looked at."""
    return [
        Trashed(path.name, name, when, size_of(path) if sizes else 0, path)
        for name, when, path in lying(Path(runs) / TRASH)
    ]


def empty_trash(runs: Path, entries: Sequence[str] | None = None) -> list[Trashed]:
    """Removes what lies in the trash for good, all or what is named; what was removed.

    Each is put aside by one rename first: what was only half removed is not restored, and goes the next time. UserError
    where something cannot be removed.
    """
    runs = Path(os.path.abspath(runs))
    folder = runs / TRASH
    if folder.is_symlink():
        return []
    gone = []
    with _held(runs, settled=False):  # a full disk is made room on
        for each in trash(runs):
            if entries is not None and each.entry not in entries:
                continue
            if holder(RunDir(each.path))[0]:
                raise UserError(f"{each.path} is held by a process that still works in it; end that first")
            try:
                os.rename(each.path, folder / f"{_GOING}{each.entry}")
            except OSError as error:
                raise cannot_write(each.path, error) from None
            gone.append(each)
    for left in folder.glob(f"{_GOING}*"):
        try:
            shutil.rmtree(left)
        except FileNotFoundError:
            continue  # another server or command empties the trash too
        except OSError as error:
            raise UserError(f"cannot remove {left}: {error.strerror or error}; check who owns its files") from None
    return gone


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder, links not followed; what goes away meanwhile does not count."""
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


@contextmanager
def _held(runs: Path, settled: bool = True) -> Iterator[None]:
    """No job is queued and no run made, renamed or deleted meanwhile; what was cut short before is completed."""
    try:
        with mentions.queue_held(runs), held(runs):
            if settled:
                mentions.settle(runs)
            yield
    except OSError as error:
        raise cannot_write(runs, error) from None


@contextmanager
def _alone(run: RunDir) -> Iterator[RunLock]:
    """The run with its lock taken, once nobody is at work on it. UserError that says who is."""
    if run.path.is_symlink():
        raise UserError(f"run {run.name!r} is a link to another place; change it there")
    stop = f"stop it first: python -m mygpt2 runs stop {run.name} --runs {word(run.path.parent)}"
    state = state_of(run)
    if state.alive:
        raise UserError(f"run {run.name!r} is {state.state}; {stop}")
    if mentions.queued_as(run.path.parent, run.name):
        raise UserError(f"run {run.name!r} is in the queue; take it out of the queue first")
    if state.state == "queued" and mentions.waits_elsewhere(run.path.parent, run.name):
        raise UserError(f"run {run.name!r} was handed to a cluster and has not begun; {stop}")
    if task := mentions.task_on(run):
        raise UserError(f"run {run.name!r} is being read ({task}); wait for that to end, or stop it")
    try:
        lock = RunLock(run).acquire(patience=0.0, nameless=True)
    except TryAgain:
        raise
    except UserError as error:
        raise UserError(f"run {run.name!r} is held by a process; {stop}" if holder(run)[0] else str(error)) from None
    with lock:
        yield lock


def _entry(runs: Path, entry: str) -> Trashed:
    there = trash(runs, sizes=False)
    exact = (each for each in there if each.entry == entry)  # which another deleted run may have had as its name
    found = next(exact, None) or next((each for each in there if each.name == entry), None)
    if found is None:
        last = f"deleted last: {', '.join(each.entry for each in there[:3])}" if there else "the trash is empty"
        raise UserError(f"no deleted run {entry[:90]!r} in {runs / TRASH}; {last}")
    return found


def _cannot(what: str, run: RunDir, error: OSError) -> UserError:
    problem = cannot_write(run.path, error)
    if isinstance(problem, TryAgain):
        return problem
    return UserError(f"cannot {what} run {run.name!r}: {error.strerror or error}; check who owns {run.path.parent}")


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'runs' if len(names) > 1 else 'run'} {', '.join(names[:3])}{more}"
