"""Stand-ins for ranks: real processes with records of their own, and a clock that moves only when somebody sleeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mygpt2.files import replace_json
from mygpt2.run_dir import Process, RunDir

OBEDIENT = "import time; print(flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
POLITE = """
import os, sys, time
print(flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""


@contextmanager
def running(code: str = OBEDIENT, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that has begun; it is gone afterwards, whatever happened. Its command says what it is."""
    words = [sys.executable, "-S", "-c", code, *arguments, "mygpt2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def record_rank(
    run: RunDir, rank: int, pid: int, *, attempt: int = 1, launcher: int | None = None, **more: object
) -> None:
    """The record a rank would have written of itself."""
    process = Process.of(pid)
    assert process is not None
    parent = Process.of(launcher) if launcher else None
    record = {"rank": rank, "attempt": attempt, "device": "cpu", **process.to_json()}
    replace_json(run.rank_file(rank), {**record, "launcher": parent.to_json() if parent else None, **more})


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
