"""The own programs of a cluster's engine, each with a limit of time: a controller that is gone holds them for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mygpt2.errors import TryAgain, UserError

MOST_BYTES = 8 << 20  # of an answer
MOST_WORDS = 500  # characters of an engine's words in a sentence


class Missing(UserError):
    """The program is not installed here."""


class NoAnswer(TryAgain):
    """The program did not end in its time, and was ended. What it did until then is not known."""


@dataclass(frozen=True)
class Answer:
    """What a program said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it said of a failure, on one line."""
        return " ".join((self.err or self.out).split())[:MOST_WORDS] or f"it exited {self.code}"


def ask(argv: Sequence[str], seconds: float) -> Answer:
    """Runs a program without a shell or input, and waits for it. Raises Missing, NoAnswer, and UserError where it
    cannot be started.

    It writes to files, not pipes: what it leaves running behind itself, as `sky` does, would hold a pipe open.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except FileNotFoundError:
            raise Missing(f"`{argv[0]}` is not installed here") from None
        except OSError as error:
            raise UserError(f"`{argv[0]}` cannot be started: {error.strerror or error}") from None
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"`{argv[0]}` did not answer within {seconds:.0f} s") from None
        finally:
            if child.returncode is None:
                _end(child)
        return Answer(code, _text(out), _text(err))


def _end(child: subprocess.Popen[bytes]) -> None:
    """The program and what it started, which is in the same session."""
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(MOST_BYTES).decode("utf-8", "replace")
