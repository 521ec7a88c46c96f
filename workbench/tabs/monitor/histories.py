"""Events and samples of the runs that somebody looks at: read once, then only what is new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from mygpt2.run_dir import Follower, RunDir, parse_lines

MAX_RUNS = 16
MAX_EVENTS = 20_000
MAX_SAMPLES = 5_000
MAX_TEXT = 20_000  # characters of one sample
SAMPLE_KEYS = ("step", "attempt", "prompt", "text", "seed", "time")


class _History:
    """One run's. Token ids and probabilities of samples are not kept: nobody here looks at them."""

    def __init__(self, run: RunDir) -> None:
        self._events, self._samples = Follower(run.events_file), Follower(run.samples_file)
        self._restarts = (0, 0)
        self.events: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []

    def read(self) -> None:
        events, samples = (parse_lines(f.read())[0] for f in (self._events, self._samples))
        restarts = (self._events.restarts, self._samples.restarts)
        if restarts[0] != self._restarts[0]:
            self.events = []
        if restarts[1] != self._restarts[1]:
            self.samples = []
        self._restarts = restarts
        self.events = (self.events + events)[-MAX_EVENTS:] if events else self.events
        if samples:
            self.samples = (self.samples + [_short(sample) for sample in samples])[-MAX_SAMPLES:]


def _short(sample: dict[str, Any]) -> dict[str, Any]:
    kept = {key: sample.get(key) for key in SAMPLE_KEYS}
    return kept | {key: str(kept[key] or "")[:MAX_TEXT] for key in ("prompt", "text")}


class Histories:
    """The runs looked at last, at most MAX_RUNS of them. Usable from any thread; one per server."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _History] = OrderedDict()
        self._lock = threading.Lock()

    def events(self, run: RunDir) -> list[dict[str, Any]]:
        """All events in the order they were written."""
        return self._read(run).events

    def samples(self, run: RunDir) -> list[dict[str, Any]]:
        """All samples in the order they were written, without their token ids."""
        return self._read(run).samples

    def _read(self, run: RunDir) -> _History:
        key = str(run.path)
        with self._lock:
            history = self._known.pop(key, None) or _History(run)
            self._known[key] = history
            while len(self._known) > MAX_RUNS:
                self._known.popitem(last=False)
            history.read()
            return history
