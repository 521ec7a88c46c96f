"""Which rank holds the others up: every 50 steps the times of all ranks stand side by side."""

from __future__ import annotations

import contextlib
import statistics

import numpy as np

from mygpt2.distributed import World
from mygpt2.files import replace_json
from mygpt2.run_dir import RunDir
from mygpt2.train.record import Recorder

EVERY = 50  # steps
BEHIND = 0.1  # of the median's time: less is noise between machines of one kind
AGAIN = 1.5  # the same rank is named again when it is so many times as far behind


class Stragglers:
    """Call `step` on every rank after every step. Rank 0 writes ranks/speed.json, and names a rank that is behind."""

    def __init__(self, world: World, run: RunDir, recorder: Recorder) -> None:
        self._world, self._file, self._recorder = world, run.ranks_dir / "speed.json", recorder
        self._sums = np.zeros(2)
        self._steps = 0
        self._named: dict[int, float] = {}

    def step(self, step: int, forward_s: float, wait_s: float) -> None:
        """Adds a step's times of this rank; every `EVERY`th step all ranks exchange theirs."""
        if self._world.size == 1:
            return
        self._sums += (forward_s, wait_s)
        self._steps += 1
        if step % EVERY:
            return
        mine = np.round(1e6 * self._sums / self._steps).astype(np.int64)  # microseconds a step
        everyones = 1e-3 * np.stack(self._world.gather(mine))  # (ranks, 2) ms
        self._sums[:], self._steps = 0, 0
        if self._world.lead:
            self._tell(step, everyones)

    def _tell(self, step: int, times: np.ndarray) -> None:
        forward = times[:, 0].tolist()
        slowest = int(times[:, 0].argmax())
        behind = forward[slowest] / max(statistics.median(forward), 1e-3) - 1
        record = {"schema": 1, "step": step, "forward_ms": forward, "wait_ms": times[:, 1].tolist(), "slowest": slowest}
        with contextlib.suppress(OSError):  # a full disk is told of elsewhere, and the next one replaces it anyway
            replace_json(self._file, {**record, "behind": behind})
        if behind < BEHIND or behind < AGAIN * self._named.get(slowest, 0.0):
            return
        self._named[slowest] = behind
        message = (
            f"rank {slowest} holds the others up: its forward passes take {behind:.0%} longer than the median rank's; "
            "see what else runs on its machine, or whether its device is hot"
        )
        self._recorder.event("alert", level="warning", about="ranks", step=step, message=message)
        self._recorder.say(message)
