"""Memory and load of the processes and devices of a run, as far as this machine tells."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mygpt2.run_dir import Process

QUERY = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
FRESH_SECONDS = 3.0
GIVE_UP_SECONDS = 10.0


@dataclass(frozen=True)
class Device:
    """One GPU as the driver's own tool describes it. What it does not know is None."""

    name: str
    model: str
    load: float | None  # share of the time
    memory_used: float | None  # bytes
    memory_total: float | None
    celsius: float | None
    watts: float | None


def parse_devices(text: str) -> list[Device]:
    """The lines of `nvidia-smi --query-gpu=... --format=csv,noheader,nounits`; memory there is in MiB."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 7 or not fields[0].isdecimal():
            continue
        load, used, total, celsius, watts = (_number(field) for field in fields[2:])
        found.append(
            Device(f"cuda:{fields[0]}", fields[1], None if load is None else load / 100, _mib(used), _mib(total),
                   celsius, watts)
        )  # fmt: skip
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # "[N/A]"


def _mib(value: float | None) -> float | None:
    return None if value is None else value * 2**20


class DeviceWatch:
    """Asks the driver's tool in the background, at most every few seconds and only while somebody looks."""

    def __init__(self, command: Sequence[str] | None = None) -> None:
        tool = shutil.which("nvidia-smi")
        default = [tool, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"] if tool else None
        self._command = list(command) if command else default
        self._devices: list[Device] = []
        self._asked = -FRESH_SECONDS
        self._lock = threading.Lock()
        self._busy = False

    def devices(self) -> list[Device]:
        """What was known last; never waits. Empty where there is no such device."""
        with self._lock:
            due = self._command and not self._busy and time.monotonic() - self._asked >= FRESH_SECONDS
            if due:
                self._busy, self._asked = True, time.monotonic()
                threading.Thread(target=self._ask, name="devices", daemon=True).start()
            return list(self._devices)

    def _ask(self) -> None:
        found: list[Device] = []
        try:
            done = subprocess.run(self._command or [], capture_output=True, text=True, timeout=GIVE_UP_SECONDS,
                                  stdin=subprocess.DEVNULL, check=True)  # fmt: skip
            found = parse_devices(done.stdout)
        except (OSError, subprocess.SubprocessError):
            found = []
        finally:
            with self._lock:
                self._devices, self._busy = found, False


def resident_bytes(process: Process | None) -> float | None:
    """Memory that a process of this machine holds, or None."""
    if process is None or not process.alive():
        return None
    import psutil

    try:
        return float(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return None
