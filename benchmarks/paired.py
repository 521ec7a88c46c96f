"""Runs engines side by side: each is a live child process that does one unit of work when told.

All engines are warm before the first round; a round lets each work once, in turn, so that all see the same machine.
Ratios are taken round by round and their median is reported. A unit during which other processes took more than
`NOISY` of the machine is left out of the clean figures.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NOISY = 0.12


def other_load(before: tuple[int, int, float], after: tuple[int, int, float]) -> float:
    """Share of the machine's CPU time that processes other than this one used between two `cpu_times()`."""
    total = max(after[0] - before[0], 1)
    own = (after[2] - before[2]) * os.sysconf("SC_CLK_TCK")
    return max(0.0, (after[1] - before[1] - own) / total)


def cpu_times() -> tuple[int, int, float]:
    """(all, busy) ticks of the machine and CPU seconds of this process. Linux only; zeros elsewhere."""
    try:
        with open("/proc/stat") as f:
            ticks = [int(x) for x in f.readline().split()[1:9]]
    except OSError:
        return 0, 0, 0.0
    own = os.times()
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4], own.user + own.system


def peak_rss() -> int:
    """Highest resident set of this process, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def serve(work: Callable[[], Any], warm_up: int = 2) -> None:
    """The child's side: warms up, says so, then works once per line on standard input."""
    for _ in range(warm_up):
        work()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        if line.strip() != "go":
            break
        before, began = cpu_times(), time.perf_counter()
        value = work()
        seconds = time.perf_counter() - began
        after = cpu_times()
        answer = {"s": seconds, "cpu": after[2] - before[2], "other": other_load(before, after), "value": value}
        print(json.dumps(answer), flush=True)
    print(json.dumps({"peak_rss": peak_rss()}), flush=True)


@dataclass
class Engine:
    """The parent's side of one child."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_rss: int = 0
    env: dict[str, str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.env
        )
        self._read()

    def go(self) -> None:
        self._tell("go")
        answer = self._read()
        self.seconds.append(answer["s"])
        self.other.append(answer["other"])
        self.cpu.append(answer["cpu"])

    def end(self) -> None:
        self._tell("end")
        self.peak_rss = self._read()["peak_rss"]
        self.process.wait()

    def _tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.name} ended with code {self.process.wait()}: {' '.join(self.command)}")


class Timed(Engine):
    """An engine whose unit of work says its `tokens` and what processor time (`cpu`, s) they took: million tokens/s."""

    def start(self) -> None:
        self.by_clock: list[float] = []
        self.by_cpu: list[float] = []
        super().start()

    def go(self) -> None:
        self._tell("go")
        answer = self._read()
        self.by_clock.append(answer["value"]["tokens"] / answer["s"] / 1e6)
        self.by_cpu.append(answer["value"]["tokens"] / answer["value"]["cpu"] / 1e6)
        self.other.append(answer["other"])


def compare(engines: list[Engine], rounds: int) -> dict[str, Any]:
    """Alternates the engines for `rounds`; the first is the base of all ratios (> 1: faster than the base)."""
    for engine in engines:
        engine.start()
    for number in range(rounds):
        for engine in engines if number % 2 == 0 else engines[::-1]:
            engine.go()
        print(
            f"round {number + 1}/{rounds}: " + "  ".join(f"{e.name} {e.seconds[-1]:.3f} s" for e in engines), flush=True
        )
    for engine in engines:
        engine.end()
    base = engines[0]
    result = {}
    for engine in engines:
        pairs = list(zip(base.seconds, engine.seconds, base.other, engine.other, strict=True))
        clean = [a / b for a, b, x, y in pairs if max(x, y) < NOISY]
        result[engine.name] = {
            "median_s": statistics.median(engine.seconds),
            "ratio": statistics.median(a / b for a, b, _, _ in pairs),
            "ratio_clean": statistics.median(clean) if clean else None,
            "ratio_cpu": statistics.median(a / b for a, b in zip(base.cpu, engine.cpu, strict=True) if b),
            "clean_rounds": len(clean),
            "peak_rss_mb": engine.peak_rss / 1e6,
            "memory_ratio": engine.peak_rss / base.peak_rss,
        }
    return result
