"""What a rank prints also goes to its log file; only rank 0 speaks on the terminal."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


class _Tee:
    """A text stream that also writes to a log, line by line. Unknown attributes are the first stream's."""

    def __init__(self, shown: TextIO | None, like: TextIO, log: TextIO):
        self._shown, self._like, self._log = shown, like, log

    def write(self, text: str) -> int:
        if self._shown:
            self._shown.write(text)
        try:
            self._log.write(text)
        except (OSError, ValueError):  # a full disk or a log closed at exit must not end the training
            return len(text)
        return len(text)

    def flush(self) -> None:
        for stream in (self._shown, self._log):
            try:
                if stream:
                    stream.flush()
            except (OSError, ValueError):
                continue

    def __getattr__(self, name: str) -> object:
        return getattr(self._like, name)


@contextmanager
def logged(path: Path, *, show: bool) -> Iterator[None]:
    """Copies stdout and stderr to `path`; with show=False stdout goes there alone. A crash leaves its stack there."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    out, err = sys.stdout, sys.stderr
    with open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace") as log:
        sys.stdout = _Tee(out if show else None, out, log)
        sys.stderr = _Tee(err, err, log)
        faulthandler.enable(log)
        try:
            yield
        finally:
            faulthandler.disable()
            sys.stdout, sys.stderr = out, err
