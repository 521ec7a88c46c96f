"""Ranks that write one checkpoint together, each its own part, without waiting for one another in a collective.

Rank 0 makes the folder and says its name; every part's rank writes its files there and says their sizes and digests;
when all have, rank 0 writes the manifest and gives the folder its name. They talk through `Notes`, which goes on where
exchanges are broken or in use: parts are written in the background, and when a rank has failed.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mygpt2.checkpoint.files import FileSystem
from mygpt2.checkpoint.format import Entries, write_aside, write_share
from mygpt2.checkpoint.parts import Share

LOOK_S, MOST_LOOK_S = 0.05, 1.0  # how often a note is looked for: less and less, for a thousand ranks may wait
GRACE_S = 10.0  # how long a part is waited for once a rank is known to have failed


class Notes(Protocol):
    """What ranks leave for one another."""

    def write(self, key: str, text: str) -> None: ...

    def read(self, key: str) -> str | None: ...

    def forget(self, key: str) -> None:
        """For what nobody asks any more: there is a note of every rank for every save."""

    def over(self) -> bool:
        """Whether a rank is known to have failed, so that others may not come any more."""


class GivenUp(OSError):
    """A checkpoint that is not made because of another rank's trouble."""


@dataclass(frozen=True)
class Meeting:
    """One checkpoint that ranks write together. `name` is that of no other; `ranks` write its parts, in order."""

    notes: Notes
    name: str
    ranks: range

    def lead(self, checkpoints: Path, step: int, own: Share | None, state: bytes, files: FileSystem) -> Path:
        """Rank 0's part of it: `own`, if it has one, and the whole. OSError for what kept it, on whichever rank."""

        def fill(scratch: Path) -> Entries:
            self.notes.write(self._key("folder"), scratch.name)
            entries: dict[str, Any] = {}
            problems: list[OSError] = []
            try:
                entries |= write_share(scratch, own, files) if own else {}
            except OSError as error:
                problems.append(error)
            for rank in self.ranks:  # all: until they have told, they write into the folder that goes if one failed
                if rank != 0:
                    try:
                        told = json.loads(self._await(str(rank), f"rank {rank}"))
                    except GivenUp as error:
                        problems.append(error)
                        break
                    self.notes.forget(self._key(str(rank)))
                    try:
                        entries |= _checked(rank, told, scratch)
                    except GivenUp as error:
                        problems.append(error)
            if problems:
                raise problems[0]
            self.notes.forget(self._key("folder"))  # all have read it
            return entries

        try:
            return write_aside(checkpoints, step, fill, state, files)
        except BaseException:
            self.give_up()
            raise

    def follow(self, checkpoints: Path, rank: int, share: Share, files: FileSystem) -> None:
        """Another rank's part of it. What goes wrong rank 0 is told, and tells."""
        try:
            folder = self._await("folder", "rank 0")
            if folder:
                entries = write_share(checkpoints / folder, share, files)
                self.notes.write(self._key(str(rank)), json.dumps({"files": entries}))
        except GivenUp:
            return
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            if isinstance(error, FileNotFoundError):
                reason += f" ({checkpoints}, which all ranks must share)"
            self.notes.write(self._key(str(rank)), json.dumps({"problem": reason}))

    def give_up(self) -> None:
        """Rank 0 writes nothing; nobody waits for its folder."""
        if self.notes.read(self._key("folder")) is None:
            self.notes.write(self._key("folder"), "")

    def _await(self, what: str, whose: str) -> str:
        ends, pause = float("inf"), LOOK_S
        while (text := self.notes.read(self._key(what))) is None:
            if self.notes.over():
                ends = min(ends, time.monotonic() + GRACE_S)
            if time.monotonic() > ends:
                raise GivenUp(f"{whose} did not write its part")
            time.sleep(pause)
            pause = min(1.5 * pause, MOST_LOOK_S)
        return text

    def _key(self, what: str) -> str:
        return f"save {self.name} {what}"


def _checked(rank: int, told: Any, scratch: Path) -> Entries:
    """The files of a rank's part. GivenUp where it has told of a problem, or rank 0 does not see them."""
    if "problem" in told:
        raise GivenUp(f"rank {rank}: {told['problem']}")
    entries: Entries = told["files"]
    for name, entry in entries.items():
        found = scratch / name
        if not found.is_file() or found.stat().st_size != entry["bytes"]:
            raise GivenUp(f"rank {rank} wrote {name} where rank 0 does not see it; all ranks must share the folder")
    return entries
