"""What is handed to a cluster: one description of a launch, from which each engine's own file is written."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

NODE_PORT = 29500  # where the processes of all nodes meet, on the first
DAY, HOUR, MINUTE = 86_400, 3_600, 60


@dataclass(frozen=True)
class LaunchSpec:
    """A run on `nodes` machines of one kind. Paths are those of the machines, `seconds` is the limit of wall time."""

    run: str
    runs: PurePosixPath
    words: tuple[str, ...]  # of `train`: preset and settings, without the run's name and folder
    workdir: PurePosixPath  # the checkout that holds launch_train.sh
    nodes: int = 1
    processes: int = 1  # on each node
    gpus: int = 0  # on each node
    gpu_type: str | None = None
    cpus: int | None = None  # on each node
    memory: int | None = None  # GB on each node
    seconds: int | None = None
    image: str | None = None
    volumes: tuple[tuple[str, str], ...] = ()  # what, and where it is mounted
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()  # the engine's own

    @property
    def command(self) -> tuple[str, ...]:
        """What each node executes, once, in `workdir`. A scheduler queues again what exits 75 or 85."""
        where = ("--runs", str(self.runs), "--run", self.run)
        return ("./launch_train.sh", "--scheduled", "--nproc", str(self.processes), *where, *self.words)

    @property
    def line(self) -> str:
        """`command` for a shell."""
        return shlex.join(self.command)

    @property
    def script(self) -> str:
        """The work of one node as a script; `exec`, so that signals and the exit code are the launcher's own."""
        return f"set -eu\ncd {shlex.quote(str(self.workdir))}\nexec {self.line}\n"

    @property
    def label(self) -> str:
        """The run's name as a DNS label: what Kubernetes and SkyPilot take for a name, with room for a suffix."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.run.lower()).strip("-")
        if plain == self.run and len(plain) <= 40 and plain[0].isalpha():
            return plain
        mark = hashlib.sha256(self.run.encode()).hexdigest()[:6]
        return f"run-{plain[:30].strip('-')}-{mark}".replace("--", "-")

    @property
    def clock(self) -> str | None:
        """The limit of wall time as D-HH:MM:SS."""
        if self.seconds is None:
            return None
        days, rest = divmod(self.seconds, DAY)
        return f"{days}-{rest // HOUR:02}:{rest % HOUR // MINUTE:02}:{rest % MINUTE:02}"


def parse_time(text: str) -> int | None:
    """Seconds of `2-12:00:00`, `12:00:00`, `90m`, `12h` or `2d`; None for anything else, and for no time at all."""
    if found := re.fullmatch(r"(\d{1,4})([mhd])", text):
        return int(found[1]) * {"m": MINUTE, "h": HOUR, "d": DAY}[found[2]] or None
    if found := re.fullmatch(r"(?:(\d{1,3})-)?(\d{1,3}):([0-5]\d):([0-5]\d)", text):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return days * DAY + hours * HOUR + minutes * MINUTE + seconds or None
    return None
