"""Progress of long work: a bar, rate and time left on a terminal, and for another program a file.

Where the environment names one (MYGPT2_PROGRESS=FILE), every bar also writes there, whole at every moment:
{"title", "done", "total", "unit", "rate", "seconds_left", "time"}; rate in units a second, null while unknown.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "MYGPT2_PROGRESS"
EVERY_SECONDS = 0.5


class ProgressFile:
    """The progress of one piece of work at a time; at most two writes a second, and one at the end of each piece.

    A file that cannot be written is given up: progress is no reason to fail.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._title = ""
        self._first: tuple[float, float] = (0.0, 0.0)  # time and amount when the piece was first heard of
        self._written = -EVERY_SECONDS

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ProgressFile | None:
        """The file asked for; None if there is none, and on every rank but the first."""
        path = environ.get(VARIABLE)
        return cls(Path(path)) if path and environ.get("RANK", "0") == "0" else None

    def update(self, title: str, done: float, total: float | None, unit: str) -> None:
        """Says how far the work called `title` is."""
        now = self._clock()
        if title != self._title:
            self._title, self._first, self._written = title, (now, done), -EVERY_SECONDS
        if now - self._written < EVERY_SECONDS and done != total:
            return
        self._written = now
        seconds, more = now - self._first[0], done - self._first[1]
        rate = more / seconds if seconds > 0 and more > 0 else None
        left = (total - done) / rate if rate and total is not None and total >= done else None
        record = {"title": title, "done": done, "total": total, "unit": unit, "rate": rate, "seconds_left": left}
        from mygpt2.files import replace_json  # here, as nobody needs it who only wants a bar

        with contextlib.suppress(OSError):
            replace_json(self._path, {**record, "time": now})


class Bar:
    """A bar that appears with the first word of progress and is gone when the work is done. `show` = False: silent."""

    def __init__(self, title: str, unit: str, total: int | None = None, *, show: bool = True, **options: Any) -> None:
        self.title, self._unit, self._total = title, unit, total
        self._done = 0
        self._file = ProgressFile.from_environment() if show else None
        self._bar: Any = None
        self._options = {"unit_scale": True, "leave": False, **options, "disable": None if show else True}

    def to(self, done: int, total: int | None = None) -> None:
        """So much is done, of so much in all."""
        self._total = self._total if total is None else total
        if self._bar is None:
            from tqdm import tqdm

            unit = self._unit if self._unit == "B" else f" {self._unit}"
            self._bar = tqdm(desc=self.title, unit=unit, **self._options)
        self._bar.total = self._total
        self._bar.update(done - self._done)
        self._done = done
        if self._file:
            self._file.update(self.title, done, self._total, self._unit)

    def add(self, more: int) -> None:
        """So much more is done."""
        self.to(self._done + more)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Progress = Callable[[str, int, int, str], None]  # what is done, how much of it, of how much, in which unit


def silent(title: str, done: int, total: int, unit: str) -> None:
    """Progress for those who only want the result."""


class Bars:
    """A bar for each piece of work, one after another, as they are told of; `contextlib.closing` ends the last."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def __call__(self, title: str, done: int, total: int, unit: str) -> None:
        if self._bar is None or self._bar.title != title:
            self.close()
            self._bar = Bar(title, unit)
        self._bar.to(min(done, total), total)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def progress_bar(title: str, unit: str, show: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, all); gone when the work is done."""
    with Bar(title, unit, show=show) as bar:
        yield bar.to
