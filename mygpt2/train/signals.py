"""Requests from outside: signals and control files become flags that the loop reads between two steps."""

from __future__ import annotations

import signal
import time
from types import FrameType


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
