"""The workbench's queue, seen from below: who owns a folder of runs, which runs wait in it, and putting one there."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mygpt2.config import to_toml
from mygpt2.errors import UserError
from mygpt2.experiments.pieces import Piece
from mygpt2.files import read_json
from mygpt2.inside import open_inside

FOLDER = ".workbench"  # where a workbench over the folder keeps its queue
ACTIVE = ("queued", "waiting", "claimed", "running")  # states of a job that is not over


def owned(runs: Path) -> bool:
    """Whether a workbench is at work over the folder, and starts what is queued."""
    try:
        with open_inside(Path(runs) / FOLDER / "owner.lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none was ever started here, or the file system has no locks
        return False
    return False


def in_queue(runs: Path, name: str) -> bool:
    """Whether a job of the workbench's queue that is not over has this run."""
    return any(_spec(job).get("run") == name and job.get("state") in ACTIVE for job in _jobs(runs))


def _spec(job: Mapping[str, Any]) -> Mapping[str, Any]:
    found = job.get("spec")
    return found if isinstance(found, dict) else {}


def _jobs(runs: Path) -> list[dict[str, Any]]:
    return [job for path in sorted((Path(runs) / FOLDER / "jobs").glob("*.json")) if (job := read_json(path))]


def put(piece: Piece, runs: Path, nproc: int) -> None:
    """Asks the workbench's own program, which stands above this one, to put the run into its queue."""
    words = [sys.executable, "-m", "workbench.jobs", "--runs", str(runs), "--run", piece.run, "--preset", piece.preset]
    words += ["--nproc", str(nproc), *(["--until", str(piece.until)] if piece.until else [])]
    done = subprocess.run(
        words, input=to_toml(piece.config, comments=False).encode(), capture_output=True,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = said[-1].removeprefix("error: ") if said else "it did not say why"
        raise UserError(f"the workbench does not queue {piece.run!r}: {why}")
