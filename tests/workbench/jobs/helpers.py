"""Commands that stand in for a launcher, and waiting for what must come true."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from mygpt2.run_dir import RunDir
from workbench.jobs import JobSpec
from workbench.jobs.records import Job

PYTHON = [sys.executable, "-S", "-E", "-c"]
NOTE = "import sys; open(sys.argv[1], 'a').write('ran\\n'); "
WAITS = NOTE + "import time; time.sleep(600)"
ENDS = NOTE + "sys.exit(int(sys.argv[2]))"


def spec(run: str = "a", code: str = "pass", *words: object, **more: object) -> JobSpec:
    """A run whose command is a few words of Python."""
    return JobSpec(run, (*PYTHON, code, *map(str, words)), **more)  # type: ignore[arg-type]


def job(number: int = 0, state: str = "queued", **more: object) -> Job:
    """A record as the store would hold it."""
    fields = {"spec": spec(f"run-{number}", devices=("cpu",)), "order": float(number), "created": 0.0, **more}
    return Job(f"20260101-000000-{number:08x}", state=state, **fields)  # type: ignore[arg-type]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for a condition; fails if it does not come true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def starts(note: Path) -> int:
    """How often a command with NOTE was started."""
    return len(note.read_text().splitlines()) if note.exists() else 0


def run_dir(runs: Path, name: str = "a") -> RunDir:
    return RunDir(runs / name)
