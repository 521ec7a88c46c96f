"""What a trainer writes into its run folder. Rank 0 owns a RunWriter; every rank calls `write_rank` once."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mygpt2.errors import EXIT_USAGE, UserError
from mygpt2.files import cannot_write, encode_json, overwrite, replace_file, replace_json
from mygpt2.inside import SMALL_BYTES
from mygpt2.run_dir.command import describe_command
from mygpt2.run_dir.lines import LineWriter
from mygpt2.run_dir.liveness import ENDED, rank_states, state_of
from mygpt2.run_dir.lock import RunLock
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import Process
from mygpt2.terminal import printable

SCHEMA = 1
STATES = ("queued", "starting", "running", "saving", "stopped", "finished", "failed")
METRIC_KEYS = (
    "step", "tokens", "epoch", "loss", "lr", "grad_norm", "tokens_per_second", "step_ms", "data_wait_ms", "mfu",
    "memory_bytes",
)  # fmt: skip
CHANGED = b"# changed "
HEARTBEAT_SECONDS = 2.0
RESERVED_BYTES = 4096  # kept for exit.json
STATUS_SECONDS = 0.25  # steps quicker than this do not each rewrite status.json


class FolderLost(UserError):
    """The run's folder is not where it was: whatever would be written now would land in another run's."""


def next_attempt(run: RunDir) -> int:
    """The number of the attempt that is about to begin: 1 for a new run."""
    with contextlib.suppress(OSError):
        known = [int(name) for name in os.listdir(run.attempts_dir) if name.isdecimal() and len(name) < 10]
        return 1 + max(known, default=0)
    return 1


def write_rank(run: RunDir, rank: int, *, world_size: int, device: str, attempt: int) -> None:
    """Records which process is this rank, and its launcher if torchrun started it."""
    launcher = Process.of(os.getppid()) if "TORCHELASTIC_RUN_ID" in os.environ else None
    record = {
        "schema": SCHEMA,
        "rank": rank,
        "world_size": world_size,
        "attempt": attempt,
        **Process.current().to_json(),
        "device": device,
        "launcher": launcher.to_json() if launcher else None,
    }
    try:
        run.ranks_dir.mkdir(mode=0o700, exist_ok=True)
        replace_json(run.rank_file(rank), record)
    except OSError as error:
        raise cannot_write(run.rank_file(rank), error) from None


def write_queued(run: RunDir, message: str = "", state: str = "queued", step: int = 0) -> None:
    """Marks a prepared run as waiting for its turn, or as `stopped` before its first step until somebody starts it."""
    now = time.time()
    record = {"schema": SCHEMA, "state": state, "phase": state, "step": step, "tokens": 0, "attempt": 0}
    replace_json(run.status_file, {**record, "heartbeat": now, "progress": now, "eta": None, "message": message})


def write_end(run: RunDir, word: str, code: int, reason: str) -> None:
    """Writes down the end of the last attempt for a trainer that did not: exit.json first, then status.json."""
    now, status = time.time(), state_of(run).status
    attempt = status.get("attempt")
    record = {"schema": SCHEMA, "attempt": attempt, "state": word, "code": code, "reason": reason}
    record |= {"step": status.get("step"), "time": now}
    if attempt:
        replace_json(run.attempt_dir(attempt) / "exit.json", record)
    replace_json(run.exit_file, record, durable=True)
    status |= {"state": word, "phase": word, "eta": None, "message": reason, "heartbeat": now, "progress": now}
    replace_json(run.status_file, status)


class RunWriter:
    """Config, command, status, metrics, events, samples and exit of one attempt, for the holder of the run's lock.

    With `held` a later attempt becomes part of the run with `begin`. Until then config.toml, command.json and exit.json
    stay those of the attempt before, and if it ends with a refusal (exit 2) the run is as if nobody had asked.
    With the `lock` that holds the folder, metrics and status raise FolderLost once another folder, or none, is there.

    Nothing here raises for a full disk: status falls back to touching the file (a heartbeat all the same), lines wait
    in memory. `problem` says so as long as it lasts.
    """

    def __init__(
        self,
        run: RunDir,
        attempt: int,
        *,
        held: bool = False,
        lock: RunLock | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run, self.attempt = run, attempt
        self._clock, self._run_lock = clock, lock
        self._folder = run.attempt_dir(attempt)
        self._held: dict[Path, bytes] = {}
        self._notes: list[bytes] = []
        self._reserve = run.path / ".exit.json"
        self._begun = not (held and attempt > 1 and run.config_file.is_file())
        run.prepare()
        try:
            self._before = run.read(run.status_file) if state_of(run).state in ENDED else None
            self._folder.mkdir(mode=0o700, exist_ok=True)
            replace_file(self._reserve, b" " * RESERVED_BYTES)
            if self._begun:
                run.exit_file.unlink(missing_ok=True)
            _forget_dead_ranks(run, attempt)
            self._metrics, self._events, self._samples = (
                LineWriter(path) for path in (run.metrics_file, run.events_file, run.samples_file)
            )
        except OSError as error:
            raise cannot_write(Path(error.filename or self._folder), error) from None
        now = clock()
        self._status: dict[str, Any] = {
            "schema": SCHEMA, "state": "starting", "phase": "starting", "step": 0, "steps": None, "tokens": 0,
            "attempt": attempt, "heartbeat": now, "progress": now, "started": now, "eta": None, "loss": None,
            "message": "",
        }  # fmt: skip
        self._status_problem: str | None = None
        self._written = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._write_status()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def problem(self) -> str | None:
        """Why something could not be written just now, or None."""
        return self._status_problem or self._metrics.problem or self._events.problem or self._samples.problem

    @property
    def lines(self) -> int:
        """Lines given to metrics, events and samples in this attempt."""
        return self._metrics.lines + self._events.lines + self._samples.lines

    @property
    def dropped(self) -> int:
        """Those of them for which there was no room, neither on the disk nor in memory."""
        return self._metrics.dropped + self._events.dropped + self._samples.dropped

    def config(self, toml: str) -> None:
        """The fully resolved configuration, in this attempt's folder and, once it has begun, as config.toml.

        What earlier attempts noted of their changes stays in it.
        """
        with contextlib.suppress(OSError):
            known = self.run.read(self.run.config_file, SMALL_BYTES).splitlines()
            self._notes = [line for line in known if line.startswith(CHANGED)]
        self._keep(self.run.config_file, toml.encode())

    def changed(self, step: int, changes: Sequence[str]) -> None:
        """Notes in config.toml what differs from the attempts before: alone it no longer repeats the run."""
        note = f"after step {step} (attempts/{self.attempt}/config.toml): "
        self._notes += [b"%s%s" % (CHANGED, printable(note + change).encode()) for change in changes]

    def command(self, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """How this attempt was started, secrets blotted out."""
        record = {"schema": SCHEMA, "attempt": self.attempt, "time": self._clock(), **describe_command(argv, environ)}
        self._keep(self.run.command_file, encode_json(record))

    def _keep(self, path: Path, data: bytes) -> None:
        """Writes a file of the attempt and of the run. The attempt cannot do without: TryAgain or UserError."""
        try:
            replace_file(self._folder / path.name, data)
            if not self._begun:
                self._held[path] = data
                return
            notes = self._notes if path == self.run.config_file else []
            replace_file(path, b"".join(note + b"\n" for note in notes) + data, durable=True)
        except OSError as error:
            raise cannot_write(path, error) from None

    def begin(self) -> None:
        """The attempt is ready to train: what it was asked is the run's from now on."""
        if not self._begun:
            self._begun = True
            for path, data in self._held.items():
                self._keep(path, data)
            self.run.exit_file.unlink(missing_ok=True)

    def status(self, **fields: Any) -> None:
        """Merges fields into status.json: state, phase, step, steps, tokens, eta, loss, message, or others.

        A change of state or phase is written at once, the rest at most every STATUS_SECONDS and by the heartbeat.
        """
        if fields.get("state", "running") not in STATES:
            raise ValueError(f"state {fields['state']!r} is not one of {STATES}")
        self._check_folder()
        now = self._clock()
        with self._lock:
            before = {**self._status}
            self._status.update(fields)
            changed = {key for key in ("state", "phase", "step", "tokens") if before[key] != self._status[key]}
            if changed:
                self._status["progress"] = now
            due = bool(changed & {"state", "phase"}) or now - self._written >= STATUS_SECONDS
        if due:
            self._write_status()

    def metrics(self, **values: Any) -> None:
        """One line of metrics.jsonl. Keys that were not measured are null; schema, attempt and time are added."""
        self._check_folder()
        row = dict.fromkeys(METRIC_KEYS) | values
        self._metrics.append({"schema": SCHEMA, "attempt": self.attempt, **row, "time": self._clock()})

    def event(self, kind: str, **values: Any) -> None:
        """One line of events.jsonl: kind is eval, save, save_failed, alert, resume, sample, start, stop, ..."""
        self._events.append({"schema": SCHEMA, "attempt": self.attempt, "kind": kind, **values, "time": self._clock()})

    def sample(self, **values: Any) -> None:
        """One line of samples.jsonl: step, prompt, text, seed and what else describes it."""
        self._samples.append({"schema": SCHEMA, "attempt": self.attempt, **values, "time": self._clock()})

    def start_heartbeat(self, seconds: float = HEARTBEAT_SECONDS) -> None:
        """Beats from a thread until `close`, however long a step takes.

        A heartbeat says that the process lives; `progress`, the time of the last change, says whether it gets on.
        """
        self._thread = threading.Thread(target=self._beat, args=(seconds,), name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self._write_status()

    def _lost(self) -> bool:
        return self._run_lock is not None and self._run_lock.lost

    def _check_folder(self) -> None:
        if self._lost():
            raise FolderLost(
                f"the folder of run {self.run.name!r} was moved or deleted while it trained; put it back as "
                f"{self.run.path}, and the same command goes on from its last checkpoint"
            )

    def _write_status(self) -> None:
        if self._lost():  # what is there now is another run's
            return
        with self._lock:
            self._written = self._status["heartbeat"] = self._clock()
            try:
                replace_json(self.run.status_file, self._status)
                self._status_problem = None
            except OSError as error:
                self._status_problem = os.strerror(error.errno or 0)
                with contextlib.suppress(OSError):  # needs no space; without the file there is nothing to keep alive
                    os.utime(self.run.status_file)

    def finish(
        self, state: str, code: int, reason: str = "", *, rank: int | None = None, asked: str | None = None
    ) -> None:
        """The end of the attempt: exit.json first, then the final status, then everything is closed.

        `rank` is the one that met what ended it, `asked` by which way a stop came, see `control`. A full disk keeps
        neither file from telling the truth: both have room.
        """
        if self._lost():
            self.event("stop", state=state, code=code, message=reason)  # into the folder that it was, wherever that is
            self.close()
            return
        if code == EXIT_USAGE and not self._begun and self._before is not None:
            self._refuse(reason)
            return
        step = self._status["step"]
        record = {"schema": SCHEMA, "attempt": self.attempt, "state": state, "code": code, "reason": reason}
        record |= {"rank": rank, "step": step, "time": self._clock()} | ({"asked": asked} if asked else {})
        with contextlib.suppress(OSError):  # a full disk; the run's own tells the same
            replace_json(self._folder / "exit.json", record, durable=True)
        with contextlib.suppress(OSError):  # the folder has gone
            self._write_exit(encode_json(record))
        self.status(state=state, phase=state, message=reason, rank=rank, eta=None)
        if self._status_problem:
            with contextlib.suppress(OSError):
                overwrite(self.run.status_file, encode_json(self._status))
        self.close()

    def _write_exit(self, data: bytes) -> None:
        try:
            replace_file(self.run.exit_file, data, durable=True)
            self._reserve.unlink(missing_ok=True)
        except OSError:
            overwrite(self._reserve, data)
            os.replace(self._reserve, self.run.exit_file)

    def _refuse(self, reason: str) -> None:
        """Ends an attempt that never began: the run is what it was, and says why it was left alone."""
        record = {"schema": SCHEMA, "attempt": self.attempt, "state": "refused", "code": EXIT_USAGE, "reason": reason}
        self.event(
            "alert", level="error", message=f"attempt {self.attempt} was refused, the run is as it was: {reason}"
        )
        self.close()
        with contextlib.suppress(OSError):
            self._reserve.unlink()
        with contextlib.suppress(OSError):  # a full disk: the event tells the same
            replace_json(self._folder / "exit.json", {**record, "time": self._clock()})
        with contextlib.suppress(OSError):  # then the run reads as lost, and its files are whole
            replace_file(self.run.status_file, self._before or b"", durable=True)

    def close(self) -> None:
        """Stops the heartbeat and closes the files. Without `finish` the run will read as lost."""
        self._ended.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        for lines in (self._metrics, self._events, self._samples):
            lines.close()


def _forget_dead_ranks(run: RunDir, attempt: int) -> None:
    """Removes records of earlier attempts' processes: this attempt may have fewer ranks."""
    for rank in rank_states(run):
        if rank.attempt != attempt and not (rank.process and rank.process.alive()):
            run.rank_file(rank.rank).unlink(missing_ok=True)
