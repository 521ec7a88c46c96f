"""What a process does before its imports, which take seconds: a Ctrl-C or the launcher's death then ends it at once."""

from __future__ import annotations

import os
import signal
import time

from mygpt2.orphans import STARTED, die_with_launcher
from mygpt2.steady import open_descriptors


def prepare() -> None:
    """For the main module of a command, first of all. Ctrl-C leaves no stack: there is nothing yet to be ended."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):  # launch_train.sh holds them back until here
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    die_with_launcher()
    open_descriptors()
    wait_briefly()
    os.environ.setdefault(STARTED, repr(time.time()))


def wait_briefly() -> None:
    """Lets OpenMP's idle threads sleep after some 0.2 ms, read when torch is imported, unless the user says otherwise.

    GNU's library spins for several milliseconds: on a machine that is busy with something else a waiting thread then
    keeps the one it waits for off the core. A step of tiny with two threads took 90 s beside other load and takes 26.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def interrupt_by_exception() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, where `prepare` took that away."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
