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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mygpt2.data.checked import say_unwritable
from mygpt2.data.sources.local.seals import REST, WHOLE_FILE, Seal, SealFile, label_of, seal, unread
from mygpt2.data.sources.manifest import Manifest, SourceFile
from mygpt2.data.sources.mixture import Mixture, Part
from mygpt2.errors import TryAgain, UserError

SYNC_BYTES = 512 << 20  # a fifth of a second where the files are in memory, a second from a disk
NAMED = 6  # files, and parts of a file, in a message


@dataclass(frozen=True)
class _File:
    """A file, what it was when the run began (None: not known), and its size and times now (None: it is gone)."""

    number: int
    file: SourceFile
    then: Seal | None
    now: Seal | None

    @property
    def untouched(self) -> bool:
        return self.now is None or (self.then is not None and self.then.state == self.now.state)

    @property
    def written_in_place(self) -> bool:
        """Whether it is the file that a run which goes on had, written to since: not one of a copy elsewhere."""
        if self.then is None or self.now is None:
            return False
        return self.then.stat[-1] == self.now.stat[-1] and not self.untouched


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
        names = enumerate(manifest.files) if manifest.revision is None else ()
        files = [_File(number, file, self._then.get(file.name), unread(file)) for number, file in names]
        files.sort(key=lambda each: each.untouched)
        for each in files:
            if each.then is not None and not each.then.parts and not each.untouched:
                tell(f"{each.file.name} was written to since this run began, before its checksums were known")
        while files and (files[0].file.size <= sync_bytes or files[0].written_in_place):
            sync_bytes -= files[0].file.size
            self._look(files.pop(0), lambda _: False)
        for each in files:  # as the cache knows it, or its times and size
            if each.now is not None and each.then is None:
                known = self._remembered(each.file)
                self._keep(known if known and known.state == each.now.state else each.now)
        if self.changed and resumed and not fork:
            raise UserError(
                f"the data changed since this run read them: {self._places()}; restore the files, or start a new order "
                "from this checkpoint with --data.fork true"
            )
        if self.changed:
            tell(f"the data changed since they were read before: {self._places()}; they are taken as they are now")
        self._thread = threading.Thread(target=self._go_on, args=(files,), name="data-seals", daemon=True)
        if files:
            self._thread.start()

    def held_out(self, sha256: str, name: str) -> None:
        """UserError when the held-out set of a run that goes on is another one, unless it forks."""
        name = f"held-out set {name}"
        now, then = Seal(name, 0, (), {"tokens": sha256}), self._then.get(name)
        if then is not None and then.differences(now) and not self._fork:
            raise UserError(
                "the held-out documents are others than when this run began, so its losses would not compare: a "
                "setting that chooses documents was changed (data.min_score, data.language, data.text_column), or a "
                "file could not be read then or cannot now; restore what was, or go on all the same with "
                "--data.fork true"
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

    def _look(self, each: _File, pause: Callable[[float], bool]) -> None:
        """Read a file and compare it."""
        try:
            now = seal(self._manifest, each.number, pause)
        except OSError:
            return  # reading its blocks will tell
        if now is None:
            return
        then = each.then or Seal(each.file.name, 0, (), {})
        known = then if then.parts else self._remembered(each.file)
        if known is not None and self._resumed and known.state != then.state:
            known = None  # the cache remembers the file from before this run
        parts = known.differences(now) if known else []
        parts = [part for part in parts if (now.name, part) not in self._pardoned]
        if parts:
            self.changed[now.name] = parts
        if not (parts and self._resumed) or self._fork:
            if not then.parts or parts:
                self._keep(now)
            try:
                location = each.file.location
                self._of_folder(location).add(replace(now, name=os.path.basename(location)))
            except OSError as error:
                say_unwritable(self._cache_dir, error)

    def _go_on(self, files: list[_File]) -> None:
        """The files for which the start had no time, at half the speed that the disk has."""
        for each in files:
            before = len(self.changed)
            self._look(each, self._stop.wait)
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

    def _remembered(self, file: SourceFile) -> Seal | None:
        known = self._of_folder(file.location).seals.get(os.path.basename(file.location))
        return replace(known, name=file.name) if known else None

    def _of_folder(self, location: str) -> SealFile:
        """What the cache remembers of the files in the folder of one of them."""
        manifest = self._manifest
        what = [os.path.dirname(location), manifest.kind, manifest.text_column]
        what += sorted(manifest.filters.columns.values()) if manifest.filters else []  # their bytes are parts as well
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
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


class MixtureWatch:
    """The watches over the sources of a mixture, as one."""

    def __init__(self, watches: Sequence[tuple[Part, SourceWatch]]) -> None:
        self._watches = watches

    @property
    def changed(self) -> dict[str, list[str]]:
        """File: parts."""
        each = ((part, watch.changed) for part, watch in self._watches)
        return {f"{part.name}/{name}": parts for part, changed in each for name, parts in changed.items()}

    def blocks(self) -> list[int]:
        """The blocks of which the text changed, as the mixture numbers them."""
        return [part.first + block for part, watch in self._watches for block in watch.blocks()]

    def held_out(self, sha256: str, name: str) -> None:
        """As `SourceWatch.held_out`, of the sets of all sources together."""
        self._watches[0][1].held_out(sha256, name)

    def close(self) -> None:
        for _, watch in self._watches:
            watch.close()


def watch_over(
    manifest: Manifest, cache_dir: Path, run_file: Path, tell: Callable[[str], None], *, resumed: bool,
    fork: bool = False, quarantine: tuple[int, ...] = (), sync_bytes: int = SYNC_BYTES,
) -> SourceWatch | MixtureWatch:  # fmt: skip
    """A SourceWatch, or one for each source of a mixture, which keeps its own file beside `run_file`."""
    if not isinstance(manifest, Mixture):
        return SourceWatch(
            manifest,
            cache_dir,
            run_file,
            tell,
            resumed=resumed,
            fork=fork,
            quarantine=quarantine,
            sync_bytes=sync_bytes,
        )
    watches: list[tuple[Part, SourceWatch]] = []
    try:
        for part in manifest.parts:
            own = tuple(b - part.first for b in quarantine if part.first <= b < part.first + len(part.manifest))
            file = run_file.with_stem(f"{run_file.stem}-{part.name}")
            watch = SourceWatch(
                part.manifest, cache_dir, file, lambda text, name=part.name: tell(f"{name}: {text}"),  # type: ignore[misc]
                resumed=resumed and file.exists(), fork=fork, quarantine=own, sync_bytes=sync_bytes,
            )  # fmt: skip
            watches.append((part, watch))
    except UserError as error:
        MixtureWatch(watches).close()
        raise type(error)(f"data.mix, source {part.name}: {error}") from error
    except BaseException:
        MixtureWatch(watches).close()
        raise
    return MixtureWatch(watches)


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
