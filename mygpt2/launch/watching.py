"""The launches of a folder of runs that were handed over, with what their engines say: asked while somebody looks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mygpt2.errors import UserError
from mygpt2.launch.asking import ask_engine
from mygpt2.launch.handed import ENDED, GONE, Handed, JobState, Told, is_open, read
from mygpt2.run_dir import RunDir, state_of
from mygpt2.run_dir.mentions import HANDED

EVERY_S = 10.0  # between two questions to an engine, whoever looks
MOST = 200  # records looked at, the latest
Ask = Callable[[Path, str, Sequence[Handed]], Mapping[str, JobState]]


class Watching:
    """`look` answers at once with what is known and has the engines asked in the background; `now` waits for them.

    Each engine is asked once for all its jobs, in a thread of its own, and not while an answer of it is awaited.
    `questions` counts how often an engine was asked, `unanswered` how often it did not say. Usable from any thread.
    """

    def __init__(self, runs: Path, ask: Ask = ask_engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._runs, self._ask, self._clock = runs, ask, clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[int, int], Handed | None]] = {}
        self._jobs: dict[str, tuple[Handed, JobState]] = {}
        self._problems: dict[str, tuple[str, int]] = {}  # by engine: why it did not answer, how often in a row
        self._asked: dict[str, float] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.questions = self.unanswered = 0

    def look(self) -> dict[str, Told]:
        """What is known, by run; of runs that are at work or over nothing is asked."""
        records = self._records()
        for target in {handed.target for handed in records.values()}:
            if self._is_due(target):
                of_it = [each for each in records.values() if each.target == target and self._has_to_be_asked(each)]
                self._begin(target, of_it)
        return {run: self._told(handed) for run, handed in records.items()}

    def now(self) -> dict[str, Told]:
        """As `look`, once every engine has answered or had its time."""
        self.look()
        for thread in list(self._threads.values()):
            thread.join()
        return {run: self._told(handed) for run, handed in self._records().items()}

    def again(self, run: str) -> None:
        """Something was just done to the run's job: what was known of it is out of date."""
        with self._lock:
            self._jobs.pop(run, None)
            self._asked.clear()

    def _records(self) -> dict[str, Handed]:
        """The latest records, each read again once it is another file."""
        found: list[tuple[int, int, str]] = []
        try:
            with os.scandir(self._runs / HANDED) as entries:
                for entry in entries:
                    if entry.name.endswith(".json") and not entry.name.startswith("."):
                        stat = entry.stat()
                        found.append((stat.st_mtime_ns, stat.st_ino, entry.name.removesuffix(".json")))
        except OSError:
            return {}
        records: dict[str, Handed] = {}
        for changed, inode, run in sorted(found, reverse=True)[:MOST]:
            before = self._known.get(run)
            if before is None or before[0] != (changed, inode):
                before = self._known[run] = ((changed, inode), read(self._runs, run))
            if before[1] is not None:
                records[run] = before[1]
        return records

    def _has_to_be_asked(self, handed: Handed) -> bool:
        known = self._jobs.get(handed.run)
        if handed.ended or (known and known[0] == handed and known[1].word in (ENDED, GONE)):
            return False
        return is_open(handed, state_of(RunDir(self._runs / handed.run)))

    def _is_due(self, target: str) -> bool:
        thread, last = self._threads.get(target), self._asked.get(target)
        fresh = last is not None and 0 <= self._clock() - last < EVERY_S
        return not fresh and (thread is None or not thread.is_alive())

    def _begin(self, target: str, handed: list[Handed]) -> None:
        with self._lock:
            if not self._is_due(target):  # another page was quicker
                return
            self._asked[target] = self._clock()
            if not handed:
                return
            self.questions += 1
            work = threading.Thread(target=self._round, args=(target, handed), name=f"ask {target}", daemon=True)
            self._threads[target] = work
            work.start()

    def _round(self, target: str, handed: list[Handed]) -> None:
        try:
            states = self._ask(self._runs, target, handed)
        except UserError as error:
            with self._lock:
                self.unanswered += 1
                self._problems[target] = (str(error), self._problems.get(target, ("", 0))[1] + 1)
                self._asked[target] = self._clock()
            return
        with self._lock:
            self._problems.pop(target, None)
            self._jobs.update({each.run: (each, states[each.run]) for each in handed if each.run in states})
            self._asked[target] = self._clock()  # from its answer on: an engine that is slow is not asked all the time

    def _told(self, handed: Handed) -> Told:
        known = self._jobs.get(handed.run)
        problem, times = self._problems.get(handed.target, ("", 0))
        return Told(handed, known[1] if known and known[0] == handed else None, problem, times)
