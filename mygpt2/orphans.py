"""No rank outlives its launcher. Imports nothing heavy: it must run before anything that takes time."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

LAUNCHER = "MYGPT2_LAUNCHER"  # the pid of the process that starts the ranks; torchrun itself does not say
STARTED = "MYGPT2_STARTED"  # when the person started the run: what was asked of it later is meant for this start


def die_with_launcher(env: Mapping[str, str] = os.environ) -> None:
    """Ends this process when its parent does: a launcher killed by SIGKILL would otherwise leave its ranks behind.

    On Linux the kernel does it (PR_SET_PDEATHSIG = 1, prctl(2)); elsewhere a thread watches the parent's pid. Nothing
    happens to a process that no torchrun started.
    """
    if "TORCHELASTIC_RUN_ID" not in env:
        return
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent or _adopted(parent, env.get(LAUNCHER, "")):  # it died before we could ask
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.platform == "linux":
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()


def _adopted(parent: int, launcher: str) -> bool:
    """Whether the parent is not the launcher but whoever adopts orphans.

    Under a plain torchrun nobody says who the launcher is: it runs the same interpreter as its ranks, init does not.
    """
    if launcher.isdecimal():
        return parent != int(launcher)
    try:
        return parent == 1 and not Path("/proc/1/exe").samefile("/proc/self/exe")
    except OSError:  # another user's process, or no /proc
        return parent == 1
