"""The set of checkpoints of a run: which there are, which to resume from, which to delete."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mygpt2.checkpoint.files import FileSystem, discard, is_leftover, original_of, scratch_name, step_name, step_of
from mygpt2.checkpoint.format import BrokenCheckpoint, Checkpoint, load, strip, verify, weights_alone
from mygpt2.checkpoint.layout import Unreadable, UnreadableCheckpoint
from mygpt2.inside import names_inside


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was passed over, and why. `unreadable`: it could not be read just then, and may be whole."""

    path: Path
    reason: str
    unreadable: bool = False


@dataclass(frozen=True)
class Pruned:
    """What a rotation did: steps deleted, and newer checkpoints that did not verify (they are left alone)."""

    deleted: list[int]
    broken: list[Skipped]


def candidates(checkpoints: Path) -> list[Path]:
    """Everything that may be a checkpoint, newest step first; of one step the proper name comes first.

    A folder of checkpoints that is there and cannot be listed is not one without checkpoints: UnreadableCheckpoint.
    """
    try:
        names = names_inside(checkpoints, checkpoints.parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BrokenCheckpoint(f"{checkpoints} {error.strerror}; move the whole run and link to that") from None
        raise UnreadableCheckpoint(
            f"{checkpoints} cannot be read: {error.strerror or error}; try again later"
        ) from None
    known = [(step, original_of(name) is None, name) for name in names if (step := step_of(name)) is not None]
    return [checkpoints / name for _, _, name in sorted(known, reverse=True)]


def steps(checkpoints: Path) -> list[int]:
    """Steps that have a folder under its proper name, ascending; not verified."""
    return sorted({step_of(p.name) or 0 for p in candidates(checkpoints) if original_of(p.name) is None})


def newest(checkpoints: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest checkpoint that verifies, and those passed over on the way to it."""
    skipped: list[Skipped] = []
    for path in candidates(checkpoints):
        problems = verify(path)
        if not problems:
            return path, skipped
        skipped.append(Skipped(path, "; ".join(problems), any(isinstance(each, Unreadable) for each in problems)))
    return None, skipped


def load_newest(checkpoints: Path, *, optimizer: bool = True) -> tuple[Checkpoint | None, list[Skipped]]:
    """`newest` and `load` in one, so that every byte is checked once."""
    skipped: list[Skipped] = []
    for path in candidates(checkpoints):
        try:
            return load(path, optimizer=optimizer), skipped
        except (BrokenCheckpoint, UnreadableCheckpoint) as error:
            skipped.append(Skipped(path, str(error), isinstance(error, UnreadableCheckpoint)))
    return None, skipped


def refuse(checkpoints: Path, skipped: list[Skipped]) -> NoReturn:
    """Why a trainer must not begin anew where checkpoints are, all of which were passed over.

    UnreadableCheckpoint (75) when one may be whole and none could be read, BrokenCheckpoint when all are damaged.
    """
    told = "; ".join(f"{each.path.name}: {each.reason}" for each in skipped[:3])
    if any(each.unreadable for each in skipped):
        raise UnreadableCheckpoint(
            f"{len(skipped)} checkpoints are in {checkpoints} and none can be read just now ({told}); run the same "
            "command when the disk answers"
        )
    raise BrokenCheckpoint(
        f"none of the {len(skipped)} checkpoints in {checkpoints} is whole ({told}); restore one, or train anew under "
        "another --run"
    )


def prune(
    checkpoints: Path,
    keep_last: int,
    keep_every: int = 0,
    best_step: int | None = None,
    *,
    keep_log: int = 0,
    files: FileSystem | None = None,
    verified: Path | None = None,
) -> Pruned:
    """Deletes what the rotation does not keep, after the newest whole checkpoint was read back and verified, which is
    not done again for one that is known to be `verified`.

    Kept: the `keep_last` newest counted from that one, every multiple of `keep_every`, and `best_step`; of the grid
    `keep_log` the others as weights alone.
    If none verifies nothing is deleted. Broken ones newer than it stay as evidence until they are old.
    """
    files = files or FileSystem()
    whole, broken = (verified, []) if verified else newest(checkpoints)
    if whole is None:
        return Pruned([], broken)
    upto = step_of(whole.name) or 0
    known = [step for step in steps(checkpoints) if step <= upto]
    keep = {*known[-keep_last:], upto} | ({best_step} if best_step is not None else set())
    old = [step for step in known if step not in keep and not (keep_every and step % keep_every == 0)]
    doomed = [step for step in old if not on_grid(step, keep_log)]
    for step in old:
        if on_grid(step, keep_log) and not weights_alone(checkpoints / step_name(step)):
            strip(checkpoints / step_name(step), files)
    for step in doomed:
        _delete(files, checkpoints / step_name(step))
    return Pruned(doomed, broken)


def on_grid(step: int, keep_log: int) -> bool:
    """Whether a step is one of 1, 2, 4 ... up to `keep_log`, or a multiple of it; of 0 none is."""
    return keep_log > 0 and (step % keep_log == 0 or (step < keep_log and step & (step - 1) == 0))


def _delete(files: FileSystem, path: Path) -> None:
    """Out of sight by one rename first: a half-deleted checkpoint never has a checkpoint's name."""
    trash = path.with_name(scratch_name("trash"))
    files.rename(path, trash)
    discard(files, trash)


def sweep(checkpoints: Path, *, files: FileSystem | None = None) -> list[str]:
    """Tidies what dead processes left and returns the names dealt with. Call it while holding the run's lock.

    A replaced checkpoint whose successor never took its name, or is broken, gets the name back.
    """
    files = files or FileSystem()
    handled = []
    names = os.listdir(checkpoints) if checkpoints.is_dir() else []
    for name in sorted(names):
        original = original_of(name)
        if original:
            _settle(files, checkpoints / name, checkpoints / original)
        elif is_leftover(name):
            discard(files, checkpoints / name)
        else:
            continue
        handled.append(name)
    return handled


def _settle(files: FileSystem, replaced: Path, successor: Path) -> None:
    """Of a replaced checkpoint and its successor the later whole one stays, under the proper name."""
    problems = verify(successor)
    if not problems:
        discard(files, replaced)
        return
    if any(isinstance(problem, Unreadable) for problem in problems):
        return  # nobody knows which of the two is the good one
    if os.path.lexists(successor):
        _delete(files, successor)
    files.rename(replaced, successor)


def size_bytes(path: Path) -> int:
    """Bytes of the files directly in a checkpoint folder; none where that is a link to another."""
    total = 0
    if path.is_symlink():
        return total
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
