"""What the bytes of local files were when a run began, and whether they still are.

The first SYNC_BYTES are read before training begins, the rest beside it. A run that goes on compares with what it kept
in its folder; a new run with what the cache folder remembers of the files, and only says what changed. What the hub has
is known by its commit and needs none of this.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mygpt2.data.checked import say_unwritable
from mygpt2.data.sources.local.seals import REST, WHOLE_FILE, Seal, SealFile, label_of, seal, unread
from mygpt2.data.sources.manifest import Manifest
from mygpt2.errors import TryAgain, UserError

SYNC_BYTES = 512 << 20  # a fifth of a second where the files are in memory, a second from a disk
NAMED = 6  # files, and parts of a file, in a message


class SourceWatch:
    """Compares the files of a source with what they were, and keeps what they are. One for a run: on rank 0."""

    def __init__(
        self,
        manifest: Manifest,
        cache_dir: Path,
        run_file: Path,
        tell: Callable[[str], None],
        *,
        resumed: bool,
        fork: bool = False,
        quarantine: tuple[int, ...] = (),
        sync_bytes: int = SYNC_BYTES,
    ) -> None:
        """Reads the first `sync_bytes`. UserError when a run that goes on would do so on other data, unless it forks.

        `tell` is given a sentence on what else changed. Blocks in `quarantine` are not trained on and may be anything.
        """
        self._manifest, self._cache_dir, self._tell = manifest, cache_dir, tell
        self._resumed, self._fork = resumed, fork
        self._kept: SealFile | None = _of_run(run_file)
        self._then = dict(self._kept.seals) if resumed else {}
        self._pardoned = {label_of(manifest, block) for block in quarantine} if manifest.revision is None else set()
        self._folders: dict[str, SealFile] = {}  # of the cache
        self.changed: dict[str, list[str]] = {}  # file: parts
        self._stop = threading.Event()
        if resumed and self._kept.damaged:
            tell(f"{self._kept.damaged} lines of {run_file} are damaged: what they said cannot be compared")
        numbers = list(range(len(manifest.files))) if manifest.revision is None else []
        numbers.sort(key=self._looks_unchanged)
        for number in numbers:
            self._suspect(number)
        while numbers and (manifest.files[numbers[0]].size <= sync_bytes or self._written_in_place(numbers[0])):
            sync_bytes -= manifest.files[numbers[0]].size
            self._look(numbers.pop(0), lambda _: False)
        for number in numbers:
            self._begin(number)
        if self.changed and resumed and not fork:
            raise UserError(
                f"the data changed since this run read them: {self._places()}; restore the files, or start a new order "
                "from this checkpoint with --data.fork true"
            )
        if self.changed:
            tell(f"the data changed since they were read before: {self._places()}; they are taken as they are now")
        self._thread = threading.Thread(target=self._go_on, args=(numbers,), name="data-seals", daemon=True)
        if numbers:
            self._thread.start()

    def held_out(self, sha256: str, name: str) -> None:
        """UserError when the held-out set of a run that goes on is another one, unless it forks."""
        name = f"held-out set {name}"
        now, then = Seal(name, 0, (), {"tokens": sha256}), self._then.get(name)
        if then is not None and then.differences(now) and not self._fork:
            raise UserError(
                "the held-out documents are others than when this run began, so its losses would not compare: a file "
                "could not be read then or cannot now; restore it, or go on all the same with --data.fork true"
            )
        self._keep(now)

    def blocks(self) -> list[int]:
        """The blocks of which the text changed."""
        labels = {(name, part) for name, parts in self.changed.items() for part in parts}
        files = {name for name, parts in self.changed.items() if not {REST}.issuperset(parts)}
        numbers = [n for n in range(len(self._manifest)) if {f.name for f in self._manifest.files_of(n)} & files]
        return [n for n in numbers if label_of(self._manifest, n) in labels or self._as_a_whole(n)]

    def _as_a_whole(self, block: int) -> bool:
        """Whether the file of a block has another size or no parts, so that no part can be told from another."""
        parts = [part for f in self._manifest.files_of(block) for part in self.changed.get(f.name, ())]
        return any(part == WHOLE_FILE or part.endswith(" now") for part in parts)

    def close(self) -> None:
        """Stop reading; what was read is kept."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _looks_unchanged(self, number: int) -> bool:
        file = self._manifest.files[number]
        then, now = self._then.get(file.name), unread(file)
        return now is None or (then is not None and (then.size, then.stat) == (now.size, now.stat))

    def _written_in_place(self, number: int) -> bool:
        """Whether it is the file that a run which goes on had, written to since: not one of a copy elsewhere."""
        file = self._manifest.files[number]
        then, now = self._then.get(file.name), unread(file)
        same = then is not None and now is not None and then.stat[-1] == now.stat[-1]
        return same and not self._looks_unchanged(number)

    def _suspect(self, number: int) -> None:
        """Say where a file was written to of which only its times and size are known."""
        file = self._manifest.files[number]
        then = self._then.get(file.name)
        if then is not None and not then.parts and not self._looks_unchanged(number):
            self._tell(f"{file.name} was written to since this run began, before its checksums were known")

    def _begin(self, number: int) -> None:
        """Note a file down that was not read yet: as the cache knows it, or its times and size."""
        file = self._manifest.files[number]
        now = unread(file)
        if now is not None and file.name not in self._then:
            known = self._remembered(file.name, file.location)
            self._keep(known if known and (known.size, known.stat) == (now.size, now.stat) else now)

    def _look(self, number: int, pause: Callable[[float], bool]) -> None:
        """Read a file and compare it."""
        file = self._manifest.files[number]
        try:
            now = seal(self._manifest, number, pause)
        except OSError:
            return  # reading its blocks will tell
        if now is None:
            return
        then = self._then.get(file.name) or Seal(file.name, 0, (), {})
        known = then if then.parts else self._remembered(file.name, file.location)
        if known is not None and self._resumed and (known.size, known.stat) != (then.size, then.stat):
            known = None  # the cache remembers the file from before this run
        parts = known.differences(now) if known else []
        parts = [part for part in parts if (file.name, part) not in self._pardoned]
        if parts:
            self.changed[file.name] = parts
        if not (parts and self._resumed) or self._fork:
            if not then.parts or parts:
                self._keep(now)
            self._remember(now, file.location)

    def _go_on(self, numbers: list[int]) -> None:
        """The files for which the start had no time, at half the speed that the disk has."""
        for number in numbers:
            before = len(self.changed)
            self._look(number, self._stop.wait)
            if self._stop.is_set():
                return
            if len(self.changed) > before:
                self._tell(f"the data changed since they were read before: {self._places()}")

    def _keep(self, new: Seal) -> None:
        try:
            if self._kept is not None:
                self._kept.add(new)
        except OSError as error:
            self._tell(f"the checksums of the data cannot be kept in the run folder ({error.strerror or error})")
            self._kept = None

    def _remembered(self, name: str, location: str) -> Seal | None:
        known = self._of_folder(location).seals.get(os.path.basename(location))
        return replace(known, name=name) if known else None

    def _remember(self, now: Seal, location: str) -> None:
        try:
            self._of_folder(location).add(replace(now, name=os.path.basename(location)))
        except OSError as error:
            say_unwritable(self._cache_dir, error)

    def _of_folder(self, location: str) -> SealFile:
        """What the cache remembers of the files in the folder of one of them."""
        what = json.dumps([os.path.dirname(location), self._manifest.kind, self._manifest.text_column])
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        if name not in self._folders:
            path = self._cache_dir / "seals" / name
            try:
                self._folders[name] = SealFile(path)
            except OSError:  # not readable just now: nothing is remembered
                self._folders[name] = SealFile(path, b"")
        return self._folders[name]

    def _places(self) -> str:
        """`a.parquet: row group 3, row group 9; b.jsonl: bytes 0 to 65535`."""
        told = [f"{name}: {_some(parts)}" for name, parts in sorted(self.changed.items())]
        return "; ".join(told[:NAMED]) + (f"; and {len(told) - NAMED} more files" if len(told) > NAMED else "")


def _of_run(path: Path) -> SealFile:
    """What a run knows of its data. TryAgain when it cannot be read, which is not to be taken for nothing."""
    try:
        return SealFile(path)
    except OSError as error:
        raise TryAgain(
            f"{path} cannot be read ({error.strerror or error}), so the data cannot be compared with what they were; "
            "start the same command again when the disk answers"
        ) from error


def _some(parts: list[str]) -> str:
    return ", ".join(parts[:NAMED]) + (f" and {len(parts) - NAMED} more parts" if len(parts) > NAMED else "")
