"""One trainer per run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable

from mygpt2.errors import UserError
from mygpt2.run_dir.atomic import read_json
from mygpt2.run_dir.inside import append_inside
from mygpt2.run_dir.liveness import RankState, rank_states
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import Process

PATIENCE_SECONDS = 10.0


class RunLock:
    """Held by rank 0 from before the first write to the end. The system drops it when the process dies.

    Two guards: an flock on the folder's .lock file, and the recorded ranks of earlier attempts, which may outlive their
    rank 0 by a moment; other ranks therefore record themselves only after rank 0 has the lock. Where the file system
    has no flock the second guard stands alone.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._descriptor = -1

    def acquire(
        self,
        *,
        patience: float = PATIENCE_SECONDS,
        on_wait: Callable[[str], None] = lambda owner: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> RunLock:
        """Takes the lock, giving an attempt that is just ending some seconds; `on_wait` hears who is waited for.

        UserError naming the owner's pid if another trainer is at work.
        """
        me = Process.current()
        deadline = clock() + patience
        try:
            descriptor = append_inside(self._run.lock_file)
        except OSError as error:
            raise UserError(f"cannot write in {self._run.path}: {error.strerror}; check who owns the run") from None
        try:
            while (owner := self._owner(descriptor, me)) is not None:
                if clock() >= deadline:
                    raise UserError(_taken(self._run, owner))
                on_wait(owner)
                sleep(0.1)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me.to_json()).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

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
        orphans = [rank for rank in rank_states(self._run) if rank.alive and not _ours(rank, me)]
        if not orphans or orphans[0].process is None:
            return None
        return f"process {orphans[0].process.pid} (rank {orphans[0].rank}) on {orphans[0].process.host}"

    def release(self) -> None:
        """Gives the folder free."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RunLock:
        return self if self._descriptor >= 0 else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _ours(rank: RankState, me: Process) -> bool:
    """Whether a recorded rank is this process, or was started by the launcher that started this one."""
    launcher = Process.of(os.getppid())
    return rank.process == me or ("TORCHELASTIC_RUN_ID" in os.environ and rank.launcher == launcher)


def _taken(run: RunDir, owner: str) -> str:
    return (
        f"run {run.name!r} is being written by {owner}; stop it with: python -m mygpt2 runs stop {run.name} "
        f"--runs {run.path.parent}, or choose another --run"
    )
