"""One trainer per run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from mygpt2.errors import TryAgain, UserError, word
from mygpt2.files import FULL, cannot_write, read_json, replace_json
from mygpt2.inside import SMALL_BYTES, append_inside, open_inside
from mygpt2.run_dir.liveness import RankState, rank_states, state_of
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import Process, belongs

PATIENCE_SECONDS = 10.0
CLAIM = re.compile(r"\.claim-([1-9]\d{0,8})")


class RunLock:
    """Held by rank 0 from before the first write to the end. The system drops it when the process dies.

    Two guards: an flock on the folder's .lock file, and the recorded ranks of earlier attempts, which may outlive their
    rank 0 by a moment; other ranks therefore record themselves only after rank 0 has the lock. Where the file system
    has no flock, numbered claims stand in for it.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._descriptor = -1
        self._claims: Claims | None = None

    def acquire(
        self,
        *,
        patience: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        nameless: bool = False,
    ) -> RunLock:
        """Takes the lock, giving an attempt that is just ending some seconds. `nameless`: also where the disk is too
        full to say whose it is, for whoever makes room.

        UserError naming the owner's pid if another trainer is at work.
        """
        me = Process.current()
        deadline = clock() + patience
        try:
            descriptor = append_inside(self._run.lock_file)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            while (owner := self._owner(descriptor, me)) is not None:
                if clock() >= deadline:
                    raise UserError(_taken(self._run, owner))
                sleep(0.1)
            os.ftruncate(descriptor, 0)
            try:
                os.pwrite(descriptor, json.dumps(me.to_json()).encode(), 0)
            except OSError as error:
                if not nameless or error.errno not in FULL:
                    raise
        except BaseException as problem:
            self._descriptor = descriptor
            self.release()
            if isinstance(problem, OSError):
                raise self._unwritable(problem) from None
            raise
        self._descriptor = descriptor
        return self

    def _unwritable(self, error: OSError) -> UserError:
        problem = cannot_write(self._run.lock_file, error)
        if isinstance(problem, TryAgain):
            return problem
        return UserError(f"cannot write in {self._run.path}: {error.strerror}; check who owns the run")

    @property
    def lost(self) -> bool:
        """Whether the folder at the run's path is no longer the one that was locked: it was moved, or deleted."""
        try:
            there, held = os.stat(self._run.lock_file), os.fstat(self._descriptor)
        except FileNotFoundError:
            return True
        except OSError:  # the disk is away for a moment
            return False
        return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)

    def _owner(self, descriptor: int, me: Process) -> str | None:
        """Who has the folder, in words; None once it is ours."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = Process.from_json(read_json(self._run.lock_file))
            return f"process {owner.pid} on {owner.host}" if owner else "another process"
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            self._claims = self._claims or Claims(self._run, me)
            if (owner := self._claims.owner()) is not None:
                return f"process {owner.pid} on {owner.host}" if owner.pid else "another process"
        orphans = [rank for rank in rank_states(self._run) if rank.alive and not _ours(rank, me)]
        if not orphans or orphans[0].process is None:
            return None
        return f"process {orphans[0].process.pid} (rank {orphans[0].rank}) on {orphans[0].process.host}"

    def moved(self, run: RunDir) -> None:
        """Whoever holds the lock has given the folder another place."""
        self._run = run
        if self._claims:
            self._claims.moved(run)

    def release(self) -> None:
        """Gives the folder free."""
        if self._claims:
            self._claims.release()
            self._claims = None
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RunLock:
        return self if self._descriptor >= 0 else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(run: RunDir) -> tuple[bool, Process | None]:
    """Whether a trainer holds the folder's lock now, whatever the other files say, and which process it is if known."""
    owner = Process.from_json(read_json(run.lock_file, run.path, most=SMALL_BYTES))
    owner = owner if owner and owner.alive() and belongs(run, owner) else None
    try:
        with open_inside(run.lock_file, run.path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, owner
    except OSError:  # no lock file, or a file system without locks
        return False, None
    return False, None


class Claims:
    """One owner without flock: files .claim-<n>, made by `open` with O_EXCL. The highest number has the folder.

    A number is taken only when the owner of the one before is gone, and counts only while no higher one is there: of
    two that take over from a dead owner one makes the file, and one who was late finds a higher number than his own.
    The numbers never fall, so the highest file stays, even when its owner has given the folder free.
    """

    def __init__(self, run: RunDir, me: Process) -> None:
        self._run, self._me = run, me
        self._number: int | None = None

    def owner(self) -> Process | None:
        """Who has the folder; None once it is ours. A claim whose owner is not written down yet is process 0's."""
        if self._number is not None:
            return None
        highest = max(self._numbers(), default=0)
        if highest and (owner := self._holder(highest)) is not None:
            return owner
        mine = self._file(highest + 1)
        try:
            descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return self.owner()
        try:
            os.write(descriptor, json.dumps(self._me.to_json()).encode())
        finally:
            os.close(descriptor)
        if max(self._numbers(), default=0) > highest + 1:
            mine.unlink(missing_ok=True)
            return self.owner()
        self._number = highest + 1
        for number in self._numbers():
            if number < self._number:
                self._file(number).unlink(missing_ok=True)
        return None

    def moved(self, run: RunDir) -> None:
        self._run = run

    def release(self) -> None:
        if self._number is not None:
            with contextlib.suppress(OSError):  # then whoever comes next finds that the owner is gone
                replace_json(self._file(self._number), {"released": True})
            self._number = None

    def _holder(self, number: int) -> Process | None:
        """Who made a claim, if he still has it. Of another machine only the heartbeat tells."""
        path = self._file(number)
        record = read_json(path, self._run.path)
        found = Process.from_json(record)
        if found is None and record != {
            "released": True
        }:  # being written, or left empty by a process that died at that
            with contextlib.suppress(OSError):
                return Process(0, "", "") if time.time() - path.stat().st_mtime < PATIENCE_SECONDS else None
        if found is None or found.local:
            return found if found and found.alive() else None
        return found if state_of(self._run).alive else None

    def _numbers(self) -> list[int]:
        names = self._run.names(self._run.path)
        return [int(match[1]) for name in names if (match := CLAIM.fullmatch(name))]

    def _file(self, number: int) -> Path:
        return self._run.path / f".claim-{number}"


def _ours(rank: RankState, me: Process) -> bool:
    """Whether a recorded rank is this process, or was started by the launcher that started this one."""
    launcher = Process.of(os.getppid())
    return rank.process == me or ("TORCHELASTIC_RUN_ID" in os.environ and rank.launcher == launcher)


def _taken(run: RunDir, owner: str) -> str:
    return (
        f"run {run.name!r} is being written by {owner}; stop it with: python -m mygpt2 runs stop {run.name} "
        f"--runs {word(run.path.parent)}, or choose another --run"
    )
