"""Requests from outside: signals and control files become flags that the loop reads between two steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple


class Asked(NamedTuple):
    """What at least one rank was asked, the same on every rank."""

    stop: bool
    save: bool
    sample: bool


class Requests:
    """`stop`: finish the step, save, end. `save`: save and go on. `sample`: sample and go on."""

    def __init__(self) -> None:
        self.stop = False
        self.save = False
        self.sample = False
        self._interrupted = 0.0

    def listen(self) -> None:
        """SIGTERM and SIGINT ask to stop, SIGUSR1 to save. A second Ctrl-C, two seconds later or more, ends at once."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_interrupt)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, self._on_save)

    def agree(self, total: Callable[[list[int]], list[int]], *others: bool) -> tuple[Asked, list[int]]:
        """What the ranks were asked until now, and how many of them hold each of `others`, by one exchange.

        `total` sums lists of flags over the ranks. `save` and `sample` are taken back here, and only if they took part
        in the exchange: a signal that arrives in the middle of it waits for the next one.
        """
        sent = Asked(self.stop, self.save, self.sample)
        stop, save, sample, *counts = total([int(flag) for flag in (*sent, *others)])
        if sent.save:
            self.save = False
        if sent.sample:
            self.sample = False
        return Asked(stop > 0, save > 0, sample > 0), counts

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop = True

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        # A terminal sends SIGINT to torchrun and its ranks together and torchrun sends it again: that is one request.
        now = time.monotonic()
        if self.stop and now - self._interrupted > 2.0:
            raise KeyboardInterrupt
        if not self.stop:
            self._interrupted = now
        self.stop = True
