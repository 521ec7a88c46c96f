"""`python -m workbench.tabs.compare.turn --lock FILE [--device cuda:N] -- COMMAND...`: one evaluation at a time.

It waits until it holds the lock and then becomes the command, which keeps the lock until it ends, however it ends. So
the order holds without a server, and a task that waits is stopped like any other.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence

from mygpt2.progress import ProgressFile
from workbench.jobs.spawn import device_environment

WAITS = "waits for the evaluations before it"


def main(words: Sequence[str]) -> None:
    split = list(words).index("--")
    options = dict(zip(words[:split:2], words[1:split:2], strict=True))
    command = list(words[split + 1 :])
    lock = os.open(options["--lock"], os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if progress := ProgressFile.from_environment():
            progress.update(WAITS, 0, None, "")
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)
    os.execve(command[0], command, {**os.environ, **device_environment([options.get("--device", "")])})


if __name__ == "__main__":
    main(sys.argv[1:])
