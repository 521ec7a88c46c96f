"""Output that nobody has to read: a terminal that was closed, a pipe whose reader went away, a full disk behind `>`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

FOR_A_WHILE = (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN)  # what is written then is lost, later lines may get through


class Steady:
    """A text stream that never raises. Unknown attributes are those of the stream it stands for.

    Characters that the console's alphabet lacks are written as escapes. A stream that has gone leads to the null
    device from then on, so that neither a library nor the flush at exit meets the broken one again.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
        except OSError as error:
            self._lost(error)
        except UnicodeEncodeError:  # a stream that cannot be reconfigured
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text.encode("ascii", "backslashreplace").decode())  # type: ignore[union-attr]
        except ValueError:  # closed
            self._stream = None
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            self._lost(error)
        except ValueError:
            self._stream = None

    def give_up(self) -> None:
        """Flushes for the last time; what cannot be written is dropped, lest Python's own flush at exit fails on it."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError:
            self._to_nowhere()
        except ValueError:
            self._stream = None

    def _lost(self, error: OSError) -> None:
        if error.errno not in FOR_A_WHILE:
            self._to_nowhere()

    def _to_nowhere(self) -> None:
        stream, self._stream = self._stream, None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)

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
    steady_out, steady_err = Steady(out), Steady(err)
    if stdout:
        sys.stdout = steady_out  # type: ignore[assignment]
    sys.stderr = steady_err  # type: ignore[assignment]
    try:
        yield
    finally:
        if stdout:
            steady_out.give_up()
        steady_err.give_up()
        sys.stdout, sys.stderr = out, err
