"""`python task_parent.py FOLDER [--turn LOCK]... -- COMMAND...`: runs a task's command, leaves its exit code in FOLDER.

A task's command is nobody's child after the server has gone, and only a parent learns an exit code: this small process
stays its parent. SIGTERM and SIGINT are passed on. If it is killed itself, so is the command (on Linux, by the kernel).

With --turn it waits until it holds that lock, which then is the command's until it ends, however it ends: so tasks of a
device wait for each other without a server, and one that waits is stopped like any other.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)
WAITS = "waits for the evaluations before it"


class _Asked(Exception):
    """A signal came while there was no command yet to pass it on to."""


def main(argv: Sequence[str]) -> int:
    """The exit code of the command; 128 + N if a signal N ended it."""
    split = list(argv).index("--")
    folder, command = Path(argv[0]), list(argv[split + 1 :])
    child: subprocess.Popen[bytes] | None = None
    starting = False
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)
        elif not starting:
            raise _Asked

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        turns = [_turn(folder, path) for path in argv[2:split:2]]
        starting = True
    except _Asked:
        return _record(folder, 128 + asked[0])
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent, pass_fds=turns)
    except OSError as error:
        print(f"error: cannot start {command[0]}: {error.strerror or error}", file=sys.stderr, flush=True)
        return _record(folder, 127)
    if asked:  # between the start and now
        child.send_signal(asked[-1])
    ended = child.wait()
    return _record(folder, ended if ended >= 0 else 128 - ended)


def _turn(folder: Path, path: str) -> int:
    """The lock's descriptor, once it is held."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waits = {"title": WAITS, "done": 0, "total": None, "unit": "", "rate": None, "seconds_left": None}
        _write(folder / "progress.json", {**waits, "time": time.time()})
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _record(folder: Path, code: int) -> int:
    _write(folder / "exit.json", {"code": code, "time": time.time()})
    return code


def _write(path: Path, record: dict[str, Any]) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(record))
    os.replace(scratch, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
