"""Where everything of a run lies, and how a run gets its name and folder."""

from __future__ import annotations

import datetime
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mygpt2.errors import TryAgain, UserError
from mygpt2.files import cannot_write
from mygpt2.inside import DOCUMENT_BYTES, names_inside, open_inside, read_inside
from mygpt2.run_dir.holding import held

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RUNS = Path("runs")


@dataclass(frozen=True)
class RunDir:
    """Paths of one run folder. Properties ending in `_dir` are folders, those in `_file` are files."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def command_file(self) -> Path:
        return self.path / "command.json"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def samples_file(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def plot_file(self) -> Path:
        return self.path / "loss_plot.png"

    @property
    def notes_file(self) -> Path:
        return self.path / "notes.md"

    @property
    def marks_file(self) -> Path:
        """What a person says of the run: star, tags, group, archived."""
        return self.path / "workbench.json"

    @property
    def exit_file(self) -> Path:
        return self.path / "exit.json"

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    @property
    def ranks_dir(self) -> Path:
        return self.path / "ranks"

    @property
    def trace_dir(self) -> Path:
        return self.path / "trace"

    @property
    def checkpoints_dir(self) -> Path:
        return self.path / "checkpoints"

    @property
    def control_dir(self) -> Path:
        return self.path / "control"

    @property
    def logs_dir(self) -> Path:
        return self.path / "logs"

    @property
    def evals_dir(self) -> Path:
        return self.path / "evals"

    @property
    def attempts_dir(self) -> Path:
        """attempts/<n>/: config.toml, command.json and exit.json of each attempt, kept for ever."""
        return self.path / "attempts"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder of a run; the one that makes it count as a run is made last."""
        return (self.ranks_dir, self.trace_dir, self.checkpoints_dir, self.control_dir, self.logs_dir, self.evals_dir,
                self.attempts_dir)  # fmt: skip

    def rank_file(self, rank: int) -> Path:
        return self.ranks_dir / f"{rank}.json"

    def log_file(self, rank: int) -> Path:
        return self.logs_dir / f"rank-{rank}.log"

    def node_log_file(self, node: int) -> Path:
        """What all ranks of a node say, each line with its rank, where a run has several nodes."""
        return self.logs_dir / f"node-{node}.log"

    def attempt_dir(self, attempt: int) -> Path:
        return self.attempts_dir / str(attempt)

    @classmethod
    def create(
        cls,
        runs: Path | str = RUNS,
        name: str | None = None,
        *,
        preset: str = "run",
        today: datetime.date | None = None,
    ) -> RunDir:
        """Makes a new run folder, readable by its owner only.

        Without a name: <date>-<preset>-<number>, with the first free number even when several start at once.
        UserError for a name that is not allowed, is taken, or a folder that cannot be made.
        """
        runs = Path(runs)
        try:
            runs.mkdir(parents=True, exist_ok=True)
            with held(runs):  # nobody renames a run to this name meanwhile
                path = _claim(runs / check_name(name)) if name is not None else _claim_next(runs, preset, today)
                run = cls(path)
                for folder in run.folders:
                    folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unwritable(runs, error) from None
        return run

    @classmethod
    def open(cls, runs: Path | str = RUNS, name: str = "") -> RunDir:
        """An existing run; UserError with the nearest names if there is none."""
        run = cls(Path(runs) / check_name(name))
        if not run.exists():
            known = [other.name for other in list_runs(runs)]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[-3:]
            hint = f"nearest: {', '.join(near)}" if near else "there is none yet: python -m mygpt2 train starts one"
            raise UserError(f"no run {name!r} in {runs}; {hint}")
        return run

    def read(self, path: Path, most: int = DOCUMENT_BYTES) -> bytes:
        """A small file of the run, never one that a link leads to elsewhere. OSError says why it cannot be read."""
        return read_inside(path, self.path, most=most)

    def reader(self, path: Path) -> BinaryIO:
        """A file of the run opened for reading, of any size, with the same care."""
        return open_inside(path, self.path)

    def names(self, folder: Path) -> list[str]:
        """Names in a folder of the run, sorted; none where it is missing, unreadable, or a link out of the run."""
        try:
            return names_inside(folder, self.path)
        except OSError:
            return []

    def exists(self) -> bool:
        """Whether this is the folder of a run, not merely a folder. One that nobody may look into counts as a run."""
        try:
            names = os.listdir(self.path)
        except PermissionError:
            return True
        except OSError:
            return False
        return not {self.config_file.name, self.status_file.name, self.attempts_dir.name}.isdisjoint(names)

    def prepare(self) -> None:
        """Makes the folders that are missing. UserError for one that is a link or a file: nothing may be written there.

        A process that was killed while it made the folder leaves some of them unmade, and so does a copy without
        empty folders.
        """
        for folder in self.folders:
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
                names_inside(folder, self.path)
            except OSError as error:
                raise cannot_write(folder, error) from None


def check_name(name: str) -> str:
    """The name, or UserError: names are also folder names and appear in commands and addresses."""
    if NAME.fullmatch(name):
        return name
    raise UserError(
        f"run name {name!r} is not allowed; use 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
        + (f", for example {_suggest(name)!r}" if _suggest(name) else "")
    )


def list_runs(runs: Path | str = RUNS) -> list[RunDir]:
    """All runs of a folder by name; an absent folder has none."""
    try:
        names = sorted(name for name in os.listdir(runs) if NAME.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"runs folder {runs} cannot be read: {reason}; check its permissions or choose another --runs"
        ) from None
    return [run for name in names if (run := RunDir(Path(runs) / name)).exists()]


def _unwritable(runs: Path, error: OSError) -> UserError:
    problem = cannot_write(Path(error.filename or runs), error)
    if isinstance(problem, TryAgain):
        return problem
    return UserError(
        f"cannot make a run folder in {runs}: {error.strerror or error}; choose a writable folder with --runs"
    )


def _claim(path: Path) -> Path:
    """The folder, made now, or left half made by a process that was killed at that: it holds nothing of anybody."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir() or (RunDir(path).exists()):
            raise UserError(
                f"run {path.name!r} exists in {path.parent}; go on with it (--resume auto) or choose another --run"
            ) from None
        strangers = sorted(set(os.listdir(path)).difference(folder.name for folder in RunDir(path).folders))
        if strangers:
            raise UserError(
                f"{path} exists and is not a run: it holds {', '.join(strangers[:3])}; choose another --run"
            ) from None
    return path


def _claim_next(runs: Path, preset: str, today: datetime.date | None) -> Path:
    day = (today or datetime.date.today()).isoformat()
    stem = f"{day}-{_suggest(preset)[:40] or 'run'}"
    number = 1
    while True:
        path = runs / f"{stem}-{number:03d}"
        try:
            path.mkdir(mode=0o700)  # mkdir is the lock: of two that try, one succeeds
            return path
        except FileExistsError:
            number += 1


def _suggest(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64]
