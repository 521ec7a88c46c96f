"""What a folder holds of a kind, counted within a budget: a root may be somebody's whole disk."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mygpt2.errors import UserError
from workbench.context import Context
from workbench.picker.kinds import Kind
from workbench.picker.places import STAGING

# Names looked at for the figures of all folders of a page, and of one of them; the time for all.
TALLY_ENTRIES, TALLY_LEAST, TALLY_SECONDS = 6000, 300, 0.5


@dataclass
class Tally:
    """What a folder holds of a kind, whole or as far as the budget went."""

    files: Counter[str] = field(default_factory=Counter)
    size: int = 0
    whole: bool = True

    @property
    def count(self) -> int:
        return sum(self.files.values())

    def words(self) -> str:
        """`12 parquet files`, `3,000+ text files`."""
        more = "" if self.whole else "+"
        found = [
            f"{count:,}{more} {kind}"
            for kind, count in sorted(self.files.items(), key=lambda each: (-each[1], each[0]))[:3]
        ]
        return f"{', '.join(found)} file{'s' * (self.count != 1)}" if found else "not counted"


def tally_of(context: Context, kind: Kind, folder: Path, most: int = TALLY_ENTRIES, ends: float | None = None) -> Tally:
    """What a folder and those below it hold of a kind, as far as `most` names and the time go."""
    tally, waiting, seen = Tally(), [str(folder)], set[str]()
    ends = time.monotonic() + TALLY_SECONDS if ends is None else ends
    while waiting and most > 0 and time.monotonic() < ends:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in itertools.islice(entries, most):
                    most -= 1
                    if not entry.name.startswith((".", "_")):
                        _count(context, kind, entry, tally, waiting, seen)
        except OSError:
            continue  # closed to this user: nothing in it could be chosen
    tally.whole = not waiting and most > 0
    return tally


def _count(
    context: Context, kind: Kind, entry: os.DirEntry[str], tally: Tally, waiting: list[str], seen: set[str]
) -> None:  # fmt: skip
    """Adds a file to the tally, or a folder to those that wait; a link only where it may be followed, and once."""
    if entry.is_symlink():
        real = os.path.realpath(entry.path)
        if real in seen or not allowed(context, Path(entry.path)):
            return
        seen.add(real)
    if entry.is_dir():
        if kind.whole and (what := kind.whole(Path(entry.path))):
            tally.files[what] += 1
        waiting.append(entry.path)
    elif what := kind.file(entry.name):
        tally.files[what] += 1
        tally.size += entry.stat().st_size


def allowed(context: Context, path: Path) -> bool:
    """Whether a link ends where someone may go."""
    try:
        context.path(str(path), "link")
    except UserError:
        return False
    return path.name != STAGING
