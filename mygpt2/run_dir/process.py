"""Processes told apart by pid and start time, because pids are reused, and whether one works on a run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.run_dir.paths import RunDir

if TYPE_CHECKING:
    import subprocess


@dataclass(frozen=True)
class Process:
    """One process of one boot of one machine. `start` is opaque; equal strings mean the same process."""

    pid: int
    start: str
    host: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process with this pid now, or None."""
        start = start_of(pid)
        return cls(pid, start, socket.gethostname()) if start else None

    @classmethod
    def current(cls) -> Process:
        found = cls.of(os.getpid())
        if found is None:
            raise RuntimeError("the start time of this process is not readable; is /proc mounted?")
        return found

    @classmethod
    def from_json(cls, record: Any) -> Process | None:
        """From a record of the run folder; None for anything that is not one."""
        with contextlib.suppress(KeyError, TypeError):
            pid = record["pid"]
            if type(pid) is int and 1 < pid < 2**31:
                return cls(pid, str(record["start"]), str(record["host"]))
        return None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def local(self) -> bool:
        """Whether this machine can see the process at all."""
        return self.host == socket.gethostname()

    def alive(self) -> bool:
        """Whether it still runs. Always False for another machine's: only its heartbeat can tell."""
        return self.local and start_of(self.pid) == self.start

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal to this very process; False if it is gone. PermissionError is the caller's.

        Where the system has process descriptors the pid cannot be reused between the check and the signal.
        """
        try:
            handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        except ProcessLookupError:
            return False
        except OSError:
            handle = None
        try:
            if not self.alive():
                return False
            if handle is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            if handle is not None:
                os.close(handle)


def start_of(pid: int) -> str | None:
    """When a process started, in a form that no other process of this machine shares; None if it does not run.

    A zombie counts as gone: it holds no file and does no work.
    """
    return _start_linux(pid) if sys.platform == "linux" else _start_portable(pid)


def _start_linux(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # field 3 (state) and on; the command may hold anything, even ")"
    state, ticks = fields[0], fields[19]  # fields 3 and 22 of proc(5)
    return None if state in "ZX" else f"{boot}:{ticks}"


def _start_portable(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def signature(pid: int) -> str | None:
    """A short name-safe digest of a process's start, for file names."""
    start = start_of(pid)
    return hashlib.sha256(start.encode()).hexdigest()[:8] if start else None


def descendants(process: Process) -> list[Process]:
    """Everything a process started, directly or not, that still runs."""
    import psutil

    with contextlib.suppress(psutil.Error):
        if process.alive():
            children = psutil.Process(process.pid).children(recursive=True)
            return [found for child in children if (found := Process.of(child.pid))]
    return []


def kill_all(child: subprocess.Popen[bytes]) -> None:
    """Ends a child and all below it at once, where there is nothing to save. Waits until they are gone."""
    import psutil

    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(child.pid).children(recursive=True)
    for process in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    child.kill()
    child.wait()
    psutil.wait_procs(below, timeout=10)


_PROGRAM = re.compile(r"mygpt2(\.[\w.]+)?")


def belongs(run: RunDir, process: Process) -> bool:
    """Whether a living process of this machine is a rank or launcher of `run`: only such a one may be sent a signal.

    Its command names this program, and no other run; or it has a file of the run folder open. Where the system does
    not let us look, the process is another user's, and lets us send it nothing either.
    """
    words = _command(process.pid)
    if words is None:
        return True
    if any(_PROGRAM.fullmatch(word) for word in words):
        return _run_named(words) in (None, run.name)
    return _holds_a_file(process.pid, run.path)


def _run_named(words: Sequence[str]) -> str | None:
    """What `--run` says, whichever way it is written."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--run":
            return following
        if word.startswith("--run="):
            return word.removeprefix("--run=")
    return None


def _command(pid: int) -> list[str] | None:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            return None
    import psutil

    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return None


def _holds_a_file(pid: int, folder: Path) -> bool:
    """Whether the process has a file of the folder open: rank 0 its lock, every rank its log."""
    inside = f"{os.path.realpath(folder)}{os.sep}"
    if sys.platform == "linux":
        try:
            handles = [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
        except OSError:
            return False
        return any(_target(handle).startswith(inside) for handle in handles)
    import psutil

    try:
        return any(file.path.startswith(inside) for file in psutil.Process(pid).open_files())
    except psutil.Error:
        return False


def _target(handle: str) -> str:
    try:
        return os.readlink(handle)
    except OSError:
        return ""
