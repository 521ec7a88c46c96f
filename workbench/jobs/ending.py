"""How a launch ended, told from the run folder."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from mygpt2.errors import EXIT_DEFECT, EXIT_OK, EXIT_STOPPED, EXIT_TRY_AGAIN, EXIT_USAGE
from mygpt2.files import read_json
from mygpt2.records import whole
from mygpt2.run_dir import RunDir, last_record, next_attempt
from mygpt2.run_dir.stop import KILLED
from workbench.jobs.reading import reached
from workbench.jobs.spawn import tail


@dataclass(frozen=True)
class End:
    """state: finished, stopped, failed, again (exit 75) or died (without a word). code is None where unknown."""

    state: str
    code: int | None
    reason: str


def last_attempt(run: RunDir) -> int:
    """The number of the run's last attempt; 0 for none."""
    return next_attempt(run) - 1


def last_step(run: RunDir) -> int:
    """The step a run has got to in its last attempt."""
    return reached(run, read_json(run.status_file) or {}, last_record(run.metrics_file)) or 0


def how_it_ended(run: RunDir, attempt_before: int, code: int | None, log: Path) -> End:
    """What became of a launch whose launcher is gone, `attempt_before` being the run's last attempt before it.

    exit.json of a newer attempt is believed first: a stopped torchrun may exit with anything. `code` is the launcher's
    own, negative for a signal, None if another server started it.
    """
    record = read_json(run.exit_file) or {}
    attempt, recorded = whole(record.get("attempt")), whole(record.get("code"))
    if attempt is not None and attempt > attempt_before and recorded is not None:
        states = {EXIT_OK: "finished", EXIT_STOPPED: "stopped", EXIT_TRY_AGAIN: "again", KILLED: "stopped"}
        return End(states.get(recorded, "failed"), recorded, str(record.get("reason", "")))
    said = [line.removeprefix("error: ").removeprefix("launch: ") for line in tail(log) if _tells(line)]
    reason = said[-1] if said else ""
    if code == EXIT_OK or (code is None and last_attempt(run) == attempt_before and record.get("code") == EXIT_OK):
        return End("finished", EXIT_OK, reason or "there was nothing left to do")
    if code == EXIT_STOPPED:
        return End("stopped", code, "stopped before it began")
    if code == EXIT_TRY_AGAIN:
        return End("again", code, reason)
    if code in (EXIT_USAGE, EXIT_DEFECT) or (code or 0) > 0:
        return End("failed", code, reason or f"the launcher exited {code}")
    how = f"was killed by {signal.Signals(-code).name}" if code else "is gone without a word"
    return End("died", code, f"the launcher {how}")


def _tells(line: str) -> bool:
    return line.startswith(("error: ", "launch: ")) and not line.startswith("launch: run ")
