"""The board: what ends one rank ends all of them, soon, with one explanation and time for the first to save.

Ranks talk in collectives, and a rank that fails cannot know which one the others are in: an exchange of flags reaches
them only between two steps. So the failing rank writes its sentence into the rendezvous store, which works while every
collective is broken, and shuts its connections: the others' collective fails at once, and they find the sentence there.
Whoever dies without a word (SIGKILL, out of memory) shuts its connections by dying.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from mygpt2.errors import EXIT_DEFECT, EXIT_STOPPED, TryAgain, UserError
from mygpt2.failures import Failure, PeerFailed, Stopped, failure_of

NOBODY = -1  # the rank of a failure that nobody put a name to
LOOK_S = 0.5  # how often a rank looks at the board
COME_S, LEAVE_S = 3.0, 12.0  # until a rank that computes is interrupted, until one that hangs is ended
SILENCE_S = 3.0  # how long a broken exchange waits for an explanation
CONNECT_S = 10.0
BROKEN = re.compile(r"gloo/.*\.cc:\d+|NCCL")  # how the libraries beneath torch say that an exchange failed
TORCH = os.path.dirname(torch.__file__)


@dataclass(frozen=True)
class RankInfo:
    """Which rank of how many this process is, as torchrun (or SLURM's srun with the same variables) says."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restart: int = 0
    elastic: bool = False
    group: int | None = None  # torchrun's number of this machine

    @property
    def node(self) -> int:
        """The machine's number: of machines with unequally many ranks only torchrun knows it."""
        return self.rank // self.local_size if self.group is None else self.group

    @property
    def spans_nodes(self) -> bool:
        return self.local_size < self.size

    @property
    def together(self) -> range:
        """The ranks of this machine."""
        return range(self.rank - self.local_rank, self.rank - self.local_rank + self.local_size)

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> RankInfo:
        if "RANK" not in env or "WORLD_SIZE" not in env:
            return cls()
        try:
            size = int(env["WORLD_SIZE"])
            return cls(
                rank=int(env["RANK"]),
                size=size,
                local_rank=int(env.get("LOCAL_RANK", "0")),
                local_size=int(env.get("LOCAL_WORLD_SIZE", str(size))),
                restart=int(env.get("MYGPT2_RESTART") or env.get("TORCHELASTIC_RESTART_COUNT", "0")),
                elastic="TORCHELASTIC_RUN_ID" in env,
                group=int(env["GROUP_RANK"]) if "GROUP_RANK" in env else None,
            )
        except ValueError as problem:
            raise UserError(
                f"RANK, WORLD_SIZE, LOCAL_RANK and the restart counts must be integers ({problem}); "
                "start the ranks with torchrun or ./launch_train.sh"
            ) from None


class Board:
    """Of the ranks of one attempt. `dead` names a rank that is known to have died, `stuck` is called before a rank is
    ended whose main thread does not come back; both are for whoever knows the run folder."""

    def __init__(self, store: dist.Store, info: RankInfo) -> None:
        self.store, self.rank, self.size, self.lead = store, info.rank, info.size, info.rank == 0
        self.dead: Callable[[], Failure | None] = lambda: None
        self.stuck: Callable[[Failure], None] = lambda failure: None
        self.patient = False  # something is being saved: nobody interrupts that
        self.host = False  # of the store
        self._check: Callable[[], None] = lambda: None
        self._ends = float("inf")
        self._connections: set[int] = set()
        self._before: set[int] | None = None  # sockets that were open before those to the other ranks; while connecting
        self._failure: Failure | None = None
        self._reading = threading.RLock()  # a signal may come while it is held
        self._known = threading.Event()  # the main thread knows that it is over
        self._over = threading.Event()
        self._main = threading.main_thread().ident
        self._watcher = threading.Thread(target=self._watch, name="board", daemon=True)

    @classmethod
    def join(cls, info: RankInfo, env: Mapping[str, str], timeout: timedelta, check: Callable[[], None]) -> Board:
        """The board of this attempt, once every rank is there. `check` may raise while they come.

        torchrun keeps one store over its in-place restarts, and gloo finds the dead attempt's addresses in it
        (pytorch/pytorch#135712): without the prefix about half of the restarts fail.
        """
        ends = time.monotonic() + timeout.total_seconds()
        board = cls(dist.PrefixStore(f"attempt{info.restart}", _connect(info, env, ends, check)), info)
        board.host = info.rank == 0 and not _has_agent(env)
        with one_fate(board):
            board.store.set_timeout(timeout)
            board._check, board._ends = check, ends
            if (problem := board._meet("joined")) is not None:
                raise problem
            if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGUSR2"):
                signal.signal(signal.SIGUSR2, board._interrupted)
            board._watcher.start()
        return board

    def _meet(self, where: str) -> BaseException | None:
        """Waits until every rank is there. Unlike in a collective, the end of one is heard meanwhile.

        A rank that must end while it waits takes back that it came, and no other goes on without it. Where all had
        come already, and are going on, the problem is returned instead: it can wait until all have gone on.
        """
        self.store.add(where, 1)
        try:
            while (there := self.store.add(where, 0)) < self.size:
                self._check()
                if (failure := self.read()) is not None:
                    raise PeerFailed(failure)
                if time.monotonic() > self._ends:
                    raise TryAgain(f"only {there} of {self.size} ranks came; start all of them")
                time.sleep(0.02)
        except BaseException as problem:
            if self.store.add(where, -1) < self.size - 1:
                raise
            self.store.add(where, 1)
            return problem
        return None

    def connect(self, make: Callable[[], None], what: str = "ready") -> None:
        """Runs `make`, which opens connections to the other ranks, and notes them. It cannot be interrupted, so nobody
        begins before all are ready. Each time of an attempt has its own `what`."""
        problem = self._meet(what)
        self._before = _sockets()
        make()
        self._connections |= _sockets() - self._before
        self._before = None
        if problem is not None:
            raise problem

    def read(self) -> Failure | None:
        """Why it is over, if it is."""
        with contextlib.suppress(RuntimeError, OSError), self._reading:  # the store may have gone with its host
            if self._failure is None and self.store.check(["failure"]):
                self._failure = Failure.from_json(self.store.get("failure"))
        return self._failure

    def explain(self, problem: BaseException) -> Failure:
        """The failure behind an exception: another rank's if that was first, else this one's, of which the others hear.

        From here on there is no exchange any more.
        """
        self._known.set()
        own = failure_of(problem, self.rank, self.size)
        failure = self.read() or self._silent(problem)
        if failure is None or failure.rank == self.rank:
            failure = own
        with contextlib.suppress(RuntimeError, OSError):
            self.store.compare_set("failure", "", failure.to_json())
            failure = self.read() or failure
            if self.lead:
                self.store.set("lead knows", "1")
        self._hang_up()
        return failure

    def _silent(self, problem: BaseException) -> Failure | None:
        """Who may be behind an exception that only says that an exchange, or the launcher, has ended."""
        broken = isinstance(problem, dist.DistError) or (
            type(problem) is RuntimeError and BROKEN.search(str(problem)) is not None and _raised_by_torch(problem)
        )
        if not broken and not isinstance(problem, Stopped):
            return None
        ends = time.monotonic() + (SILENCE_S if broken else 0.0)
        while (failure := self.read() or self.dead()) is None and time.monotonic() < ends:
            time.sleep(0.05)
        if failure is None and broken:
            return Failure(
                NOBODY, EXIT_DEFECT, "another rank ended without a word, perhaps killed for lack of memory", silent=True
            )
        return failure

    def first(self, what: str) -> bool:
        """Whether this rank is the first to do something that only one has to do."""
        with contextlib.suppress(RuntimeError, OSError):
            return bool(self.store.add(what, 1) == 1)
        return True

    def close(self) -> None:
        """The end of this rank. After a failure the first rank is waited for: while all ranks live, torchrun does not
        send the signals that would end its last save."""
        failure = self.read()
        if self.lead:
            with contextlib.suppress(RuntimeError, OSError):
                self.store.set("over", "1")
        elif failure is not None:
            self._wait_for_lead()
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()
        with contextlib.suppress(RuntimeError, OSError):
            self.store.add("left", 1)
            ends = time.monotonic() + LEAVE_S
            others = self.size - (failure is not None and failure.silent)
            while self.host and self.store.add("left", 0) < others and time.monotonic() < ends:
                time.sleep(0.02)  # the store goes with this process, and the others still ask it

    def _wait_for_lead(self) -> None:
        ends = time.monotonic() + LEAVE_S
        with contextlib.suppress(RuntimeError, OSError):
            while not self.store.check(["over"]):
                lead = self.dead()
                if (lead and lead.rank == 0) or (time.monotonic() > ends and not self.store.check(["lead knows"])):
                    return
                time.sleep(0.05)

    def gone(self) -> set[int]:
        """Ranks of which nothing is to be had any more: dead, or interrupted for the second time."""
        known = (self.read(), self.dead())
        return {each.rank for each in known if each and (each.silent or each.code == EXIT_STOPPED)} - {NOBODY}

    # Ranks that do not notice by themselves

    def _watch(self) -> None:
        while (failure := self.read()) is None:
            if self._over.wait(LOOK_S):
                return
        if self._known.wait(LOOK_S):
            return
        self._hang_up()
        if self._known.wait(COME_S) or self._over.is_set():
            return
        while self.patient:
            if self._over.wait(LOOK_S):
                return
        if hasattr(signal, "SIGUSR2") and self._main is not None:
            signal.pthread_kill(self._main, signal.SIGUSR2)
        if self._known.wait(LEAVE_S - COME_S) or self._over.is_set():
            return
        self.stuck(failure)
        os._exit(failure.code)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        failure = self.read()
        if failure is not None and not self._known.is_set() and not self._over.is_set():
            raise PeerFailed(failure)

    def _hang_up(self) -> None:
        """Shuts the connections: whoever waits at their other end, or here, gets an error instead."""
        connections, self._connections = self._connections, set()
        if self._before is not None:  # they are being opened, which would last until the other ranks come
            connections |= _sockets() - self._before
        for descriptor in connections:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as ours:
                ours.getpeername()  # OSError for a socket that listens: gloo would abort
                ours.shutdown(socket.SHUT_RDWR)
        if dist.is_available() and dist.is_initialized() and dist.get_backend() == "nccl":
            dist.distributed_c10d._abort_process_group()


@contextlib.contextmanager
def one_fate(board: Board | None) -> Iterator[None]:
    """What ends one rank in here ends all: the others get PeerFailed with its words, wherever they are. Without a
    board there are no others."""
    try:
        yield
    except BaseException as problem:
        failure = board.explain(problem) if board else None
        if board and failure and failure.rank != board.rank:
            raise PeerFailed(failure) from problem
        raise


def join(
    info: RankInfo, *, timeout_s: float, env: Mapping[str, str] = os.environ, check: Callable[[], None] = lambda: None
) -> Board | None:
    """Meets the other ranks at the board, before there are devices and groups; None for a single process."""
    return Board.join(info, env, timedelta(seconds=timeout_s), check) if info.size > 1 else None


def _raised_by_torch(problem: BaseException) -> bool:
    """Whether it comes out of the exchange, and was not raised by whoever may use the same words."""
    frames = list(traceback.walk_tb(problem.__traceback__))
    return bool(frames) and frames[-1][0].f_code.co_filename.startswith(TORCH)


def _connect(info: RankInfo, env: Mapping[str, str], ends: float, check: Callable[[], None]) -> dist.TCPStore:
    """The rendezvous store: torchrun's, or the first rank's. Ranks may start before it does."""
    host = "127.0.0.1" if info.local_size == info.size else env["MASTER_ADDR"]  # a machine may not know its own name
    while True:
        check()
        try:
            return dist.TCPStore(
                host, int(env["MASTER_PORT"]), info.size, is_master=info.rank == 0 and not _has_agent(env),
                timeout=timedelta(seconds=CONNECT_S), wait_for_workers=False, multi_tenant=True,
            )  # fmt: skip
        except (dist.DistNetworkError, dist.DistStoreError) as problem:
            if time.monotonic() > ends:
                raise TryAgain(f"no rendezvous at {host}:{env['MASTER_PORT']}: {problem}") from None


def _has_agent(env: Mapping[str, str]) -> bool:
    """Whether torchrun keeps the store."""
    return env.get("TORCHELASTIC_USE_AGENT_STORE", "") == "True"


def _sockets() -> set[int]:
    """Descriptors of this process's sockets; empty where the system does not list them."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir("/dev/fd" if not Path("/proc/self/fd").is_dir() else "/proc/self/fd"):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    found.add(int(name))
    return found
