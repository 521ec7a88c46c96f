"""`python runner.py FOLDER COMMAND...`: runs a command and leaves its exit code in FOLDER/exit.json.

A task's command is nobody's child after the server has gone, and only a parent learns an exit code: this small process
stays its parent. SIGTERM and SIGINT are passed on. If it is killed itself, so is the command (on Linux, by the kernel).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1  # prctl(2)


def main(argv: Sequence[str]) -> int:
    """The exit code of the command; 128 + N if a signal N ended it."""
    folder, command = Path(argv[0]), list(argv[1:])
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    code = 128 + signal.SIGTERM
    if not asked:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
        except OSError as error:
            print(f"error: cannot start {command[0]}: {error.strerror or error}", file=sys.stderr, flush=True)
            return _record(folder, 127)
        if asked:  # between the start and now
            child.send_signal(asked[-1])
        ended = child.wait()
        code = ended if ended >= 0 else 128 - ended
    return _record(folder, code)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _record(folder: Path, code: int) -> int:
    scratch = folder / ".exit.json.tmp"
    scratch.write_text(json.dumps({"code": code, "time": time.time()}))
    os.replace(scratch, folder / "exit.json")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
