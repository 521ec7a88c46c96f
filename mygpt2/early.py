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
    os.environ.setdefault(STARTED, repr(time.time()))


def interrupt_by_exception() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, where `prepare` took that away."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
