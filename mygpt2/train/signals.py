"""Requests from outside: signals and control files become flags that the loop reads between two steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from mygpt2.failures import Stopped


class Asked(NamedTuple):
    """What at least one rank was asked, the same on every rank."""

    stop: bool
    save: bool
    sample: bool


class Requests:
    """`stop`: finish the step, save, end. `save`: save and go on. `sample`: sample and go on. `until`: the step after
    which to stop, where that was asked for from the beginning."""

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        self.stop = False
        self.save = False
        self.sample = False
        self.in_folder = False  # the stop came by the run's folder, not by a signal
        self._interrupted = 0.0
        self._at_once = False

    def listen(self) -> None:
        """SIGTERM, SIGINT and SIGHUP ask to stop, SIGUSR1 to save. A second Ctrl-C, two seconds later or more, ends at
        once. A closed terminal (SIGHUP) is a stop, saved like any other, except where it was to be ignored: `nohup`."""
        signal.signal(signal.SIGTERM, self._on_stop)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_stop)
        signal.signal(signal.SIGINT, self._on_interrupt)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, self._on_save)

    def met(self, step: int) -> bool:
        """Whether a run at this step is where it was to stop from the beginning."""
        return self.until is not None and step >= self.until

    def check(self) -> None:
        """Raises Stopped where a stop was asked for."""
        if self.stop:
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While there is nothing to finish and nothing to save a stop ends the work where it stands, by Stopped."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def agree(self, total: Callable[[list[int]], list[int]], *others: int) -> tuple[Asked, list[int]]:
        """What the ranks were asked until now, and the sums of each of `others` over them, by one exchange.

        `total` sums lists of numbers over the ranks. `save` and `sample` are taken back here, and only if they took
        part in the exchange: a signal that arrives in the middle of it waits for the next one.
        """
        sent = Asked(self.stop, self.save, self.sample)
        stop, save, sample, *counts = total([int(flag) for flag in (*sent, *others)])
        if sent.save:
            self.save = False
        if sent.sample:
            self.sample = False
        return Asked(stop > 0, save > 0, sample > 0), counts

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self.stop = True
        if self._at_once:
            self._at_once = False
            raise Stopped

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        # A terminal sends SIGINT to torchrun and its ranks together and torchrun sends it again: that is one request.
        now = time.monotonic()
        if self.stop and now - self._interrupted > 2.0:
            raise KeyboardInterrupt
        if not self.stop:
            self._interrupted = now
        self._ask_to_stop()
