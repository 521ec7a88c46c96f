"""What can go wrong with a source, told apart by what may be done about it.

`Unreadable` is permanent: the block goes to quarantine. `Outage` is transient: the read is tried again until the
outage budget is spent. Time comes from a `Clock`, so that tests need not wait for it.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SAY_AFTER, SAY_EVERY = 15.0, 60.0  # seconds
_spoken: list[float] = []  # when the last word was
_speaking = threading.Lock()


class Unreadable(Exception):
    """One block cannot be read, now or later: damaged, gone, or not the bytes that the manifest describes."""

    def __init__(self, block: int, reason: str) -> None:
        super().__init__(f"block {block}: {reason}")
        self.block = block
        self.reason = reason


class Outage(Exception):
    """A source does not answer at present.

    `retry_after`: seconds that the source asked for, where it did. `began`: since when by the clock, where it is known.
    """

    def __init__(self, reason: str, retry_after: float | None = None, began: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.began = reason, retry_after, began


class Clock:
    """Monotonic seconds and an interruptible sleep."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Sleep, or return True at once when `stop` is set meanwhile."""
        return stop.wait(seconds)


def _may_speak(now: float) -> bool:
    """Whether nobody of this process said a word on an outage lately."""
    with _speaking:
        if _spoken and 0 <= now - _spoken[-1] < SAY_EVERY:
            return False
        _spoken[:] = [now]
        return True


class OutageClock:
    """How long the outage of one read has lasted, against its budget; begins with the first failure.

    One that lasts, or will, SAY_AFTER seconds is said on the console, and then once in SAY_EVERY for all readers.
    """

    def __init__(self, budget_s: float, clock: Clock) -> None:
        self.budget_s, self._clock = budget_s, clock
        self._since: float | None = None
        self.failures = 0
        self.reason = ""

    def failed(self, reason: str, began: float | None = None) -> None:
        """Note one more failure in a row; `began`: the outage is older than this first failure."""
        if self._since is None:
            self._since = self._clock.now() if began is None else began
        self.failures += 1
        self.reason = reason

    def recovered(self) -> None:
        """A read succeeded: the next failure begins a new outage."""
        self._since, self.failures, self.reason = None, 0, ""

    @property
    def spent_s(self) -> float:
        return 0.0 if self._since is None else self._clock.now() - self._since

    @property
    def expired(self) -> bool:
        return self._since is not None and self.spent_s >= self.budget_s

    def pause_s(self, retry_after: float | None = None) -> float:
        """Seconds until the next try: doubling from half a second to 30, jittered so that ranks do not knock in step.

        Never past the end of the budget; what the source asked for counts as a minimum.
        """
        pause = min(30.0, 0.5 * 2.0 ** min(self.failures, 10)) * random.uniform(0.5, 1.0)
        pause = max(pause, (retry_after or 0.0) * random.uniform(1.0, 1.1))
        pause = max(0.0, min(pause, self.budget_s - self.spent_s))
        if self.spent_s + pause >= SAY_AFTER and _may_speak(self._clock.now()):
            print(f"waiting for data: {self}", file=sys.stderr, flush=True)
        return pause

    def wait_out(
        self,
        ask: Callable[[], T],
        stop: threading.Event,
        waiting: set[OutageClock] | None = None,
        hopeless: Callable[[Outage], bool] = lambda _: False,
    ) -> T:
        """`ask()`, again and again while it raises Outage; `waiting` holds this clock from the first one on.

        The Outage comes out when the budget is spent, when it is `hopeless`, and at once when `stop` is set.
        """
        waiting = set() if waiting is None else waiting
        try:
            while True:
                try:
                    return ask()
                except Outage as fault:
                    self.failed(fault.reason, fault.began)
                    waiting.add(self)
                    if self.expired or hopeless(fault) or self._clock.wait(stop, self.pause_s(fault.retry_after)):
                        raise
        finally:
            waiting.discard(self)

    def __str__(self) -> str:
        return f"{self.reason}, retrying, {self.spent_s:.0f} s of {self.budget_s:.0f} s"
