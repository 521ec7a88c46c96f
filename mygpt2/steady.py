"""Output that nobody has to read: a terminal that was closed, a pipe whose reader went away, a full disk behind `>`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Steady:
    """A text stream that never raises. Unknown attributes are those of the stream it stands for.

    What cannot be written is lost, and the next line may get through; characters that the console's alphabet lacks are
    written as escapes.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            with contextlib.suppress(OSError, ValueError):  # it flushes first
                reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:  # a stream that cannot be reconfigured
                    self._stream.write(text.encode("ascii", "backslashreplace").decode())
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def give_up(self) -> None:
        """Flushes for the last time; what cannot be written goes nowhere, lest Python's own flush at exit fails."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                try:
                    self._stream.flush()
                except OSError:
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, self._stream.fileno())
                    os.close(nowhere)
                    self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream if self._stream is not None else sys.__stderr__, name)


def open_descriptors() -> None:
    """Opens 0, 1 and 2 where the caller had closed them: the next file opened would otherwise get what is printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@contextmanager
def steady_console(*, stdout: bool = True) -> Iterator[None]:
    """Makes stderr, and stdout unless its reader's going should end the program, streams that never raise."""
    out, err = sys.stdout, sys.stderr
    streams = [Steady(err), *([Steady(out)] if stdout else [])]
    sys.stderr = streams[0]
    if stdout:
        sys.stdout = streams[1]
    try:
        yield
    finally:
        for stream in streams:
            stream.give_up()
        sys.stdout, sys.stderr = out, err
