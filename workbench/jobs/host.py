"""How busy this machine was while runs were at work: its cores, its memory and its GPUs, every ten seconds.

runs/.workbench/host.jsonl   {"time", "cpu", "memory", "gpu", "gpu_memory"}, shares from 0 to 1
runs/.workbench/host.1.jsonl the part before it

A run folder has what the run itself took; the rest of the machine is nobody's, and is kept here by the server that owns
the queue. Nothing is written, and no tool asked, while no run is at work.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from mygpt2.run_dir import list_runs
from workbench.jobs.gpus import Device, DeviceWatch

EVERY_SECONDS = 10.0
AT_WORK_SECONDS = 30.0  # since a run's status was last written
MOST_BYTES = 4 << 20  # of each of the two files: four days
NAMES = ("host.1.jsonl", "host.jsonl")  # the older first


class HostLog:
    """A chore of the supervisor: a call adds a line, if one is due and a run is at work."""

    def __init__(self, runs: Path, devices: DeviceWatch | None = None, clock: Callable[[], float] = time.time) -> None:
        self._runs, self._devices, self._clock = runs, devices or DeviceWatch(), clock
        self._last = 0.0

    def __call__(self) -> None:
        now = self._clock()
        if now - self._last < EVERY_SECONDS:
            return
        first, self._last = not self._last, now
        busy = psutil.cpu_percent() / 100  # since this thread's call before, of which the first has none
        if first or not any(_changed(run.status_file) > now - AT_WORK_SECONDS for run in list_runs(self._runs)):
            return
        gpus = self._devices.devices()  # as of the last call: the tool is asked in the background
        record = {
            "time": round(now, 1), "cpu": round(busy, 4), "memory": psutil.virtual_memory().percent / 100,
            "gpu": _mean([gpu.load for gpu in gpus]), "gpu_memory": _mean([_filled(gpu) for gpu in gpus]),
        }  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk: there is no picture of that time
            self._append(json.dumps(record, separators=(",", ":")) + "\n")

    def _append(self, line: str) -> None:
        before, file = (self._runs / ".workbench" / name for name in NAMES)
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_size > MOST_BYTES:
                os.replace(file, before)
        with open(file, "a", encoding="ascii") as out:
            out.write(line)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def _filled(gpu: Device) -> float | None:
    return gpu.memory_used / gpu.memory_total if gpu.memory_used is not None and gpu.memory_total else None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
