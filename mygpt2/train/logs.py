"""What a rank prints also goes to its log file, or its node's; only rank 0 speaks on the terminal."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from mygpt2.files import cannot_write
from mygpt2.steady import Steady

Log = Steady


class _Tee:
    """A text stream that also writes to a log, line by line. Neither is vital, nor keeps the other from getting it."""

    def __init__(self, shown: TextIO | None, like: TextIO, log: Log):
        self._like = like
        self._streams = [stream for stream in (Steady(shown) if shown else None, log) if stream]

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._like, name)


class _Named:
    """A text file to which several processes add: whole lines, each after the name of who says it."""

    def __init__(self, file: TextIO, name: str):
        self._file, self._name, self._begun = file, name, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._file.write(f"{self._name}: {line}\n")  # which the file, buffered by the line, writes in one piece
        return len(text)

    def flush(self) -> None:
        self._file.flush()

    def end(self) -> None:
        """Writes the line that nobody ended."""
        if self._begun:
            self.write("\n")


@contextmanager
def logged(path: Path, *, show: bool, name: str = "") -> Iterator[Log]:
    """Copies stdout and stderr to `path`; with show=False stdout goes there alone. A crash leaves its stack there.
    `name` stands before each line where several processes write to the file.

    TryAgain or UserError when the log cannot be opened; later a disk that is full costs lines, not the training.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise cannot_write(path, error) from None
    out, err = sys.stdout, sys.stderr
    named = _Named(file, name) if name else None
    log = Steady(cast(TextIO, named) if named else file)
    sys.stdout = _Tee(out if show else None, out, log)
    sys.stderr = _Tee(err, err, log)
    faulthandler.enable(file)
    try:
        yield log
    finally:
        faulthandler.disable()
        sys.stdout, sys.stderr = out, err
        with contextlib.suppress(OSError):
            if named:
                named.end()
        log.give_up()
        with contextlib.suppress(OSError):
            file.close()
