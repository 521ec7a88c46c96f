"""Detached processes: they outlive the server, hold nothing of it, and can be found again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

import mygpt2
from mygpt2.run_dir import Process, RunDir, open_inside
from mygpt2.run_dir.command import is_secret_name

JOB, TASK, PROGRESS = "MYGPT2_JOB", "MYGPT2_TASK", "MYGPT2_PROGRESS"
HUB_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
TRACKER_SECRETS = ("WANDB_API_KEY",)
_TORCHRUN = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "MYGPT2_RESTART",
)  # fmt: skip


def child_environment(
    added: Mapping[str, str], *, secrets: Iterable[str] = HUB_SECRETS, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """This process's environment without secrets the child has no use for, without marks of other jobs, and with ours.

    The engine is importable from any folder, as launch_train.sh makes it.
    """
    source = os.environ if environ is None else environ
    wanted = set(secrets)
    kept = {
        name: value
        for name, value in source.items()
        if (name in wanted or not is_secret_name(name))
        and name not in (JOB, TASK, PROGRESS, *_TORCHRUN)
        and not name.startswith(("TORCHELASTIC_", "GRADIO_"))
    }
    root = str(Path(mygpt2.__file__).resolve().parents[1])
    paths = [part for part in kept.get("PYTHONPATH", "").split(os.pathsep) if part and part != root]
    return {**kept, "PYTHONPATH": os.pathsep.join([root, *paths]), "PYTHONUNBUFFERED": "1", **added}


@contextlib.contextmanager
def held(log: Path) -> Iterator[int]:
    """The log, open and locked: `log_is_held` is true from here on, and as long as anybody started with it runs."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # no flock there: the marks in the environment remain
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits for somebody who only looks, for a moment
        yield descriptor
    finally:
        os.close(descriptor)


def start_held(
    argv: Sequence[str], log: int, environment: Mapping[str, str], folder: Path | str
) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own, its output in a log of `held`. OSError where that is not possible.

    Its stdout keeps the lock until the command and every rank it started are gone, whoever died meanwhile.
    """
    return subprocess.Popen(
        list(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=dict(environment),
        start_new_session=True, close_fds=True,
    )  # fmt: skip


def start_detached(
    argv: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path | str
) -> subprocess.Popen[bytes]:
    """`start_held` with a log that is locked just before the child exists."""
    with held(log) as descriptor:
        return start_held(argv, descriptor, environment, folder)


def log_is_held(log: Path) -> bool:
    """Whether a process started with this log still runs. Of several that look at once none takes another for it."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def marked(name: str, value: str) -> list[Process]:
    """Processes of this user whose environment says NAME=value, oldest first."""
    found: list[tuple[float, Process]] = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if candidate.environ().get(name) == value and (process := Process.of(candidate.pid)):
                found.append((candidate.create_time(), process))
    return [process for _, process in sorted(found, key=lambda item: (item[0], item[1].pid))]


def tail(
    log: Path, lines: int = 40, end: int | None = None, within: int = 1 << 16, root: Path | None = None
) -> list[str]:
    """The last lines of a log, up to byte `end` if given. Empty for a log that is not there, or not inside `root`."""
    try:
        with open_inside(log, root) as file:
            size = file.seek(0, os.SEEK_END)
            end = size if end is None else min(end, size)
            file.seek(max(0, end - within))
            text = file.read(min(end, within)).decode("utf-8", "replace")
    except OSError:
        return []
    # A bar rewrites its line: what it said last is the line.
    return (
        [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.removesuffix("\n").split("\n")][-lines:] if text else []
    )


def log_of(run: RunDir, rank: int, lines: int = 40, end: int | None = None) -> list[str]:
    """The last lines of a rank's log, or of what it said in its node's."""
    name = run.log_file(rank).name
    if name in (names := run.names(run.logs_dir)):
        return tail(run.log_file(rank), lines, end, root=run.path)
    for node in (each for each in names if each.startswith("node-")):
        own = f"rank {rank}: "
        if said := [
            line for line in tail(run.logs_dir / node, 10_000, within=1 << 20, root=run.path) if line.startswith(own)
        ]:
            return [line.removeprefix(own) for line in said[-lines:]]
    return []
