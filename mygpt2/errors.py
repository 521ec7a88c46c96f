"""The failures a person can cause or wait out, each with the exit code it ends the program with."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterable

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_DEFECT = 70
EXIT_TRY_AGAIN = 75
EXIT_STOPPED = 85
LONGEST_PATH, LONGEST_NAME = 4095, 255  # bytes, on most systems
TOO_LONG = f"allowed: names of {LONGEST_NAME} bytes in a path of {LONGEST_PATH:,}; give a shorter one"


class UserError(Exception):
    """Something the person gave cannot be used. The message says what was given, what is allowed, what to do next."""

    exit_code = EXIT_USAGE


class TryAgain(UserError):
    """A source stayed out of reach for longer than its budget; the same command may succeed later."""

    exit_code = EXIT_TRY_AGAIN


def shown(path: object) -> str:
    """A path or name for a message: in quotes and escaped where it would break the line or cannot be printed."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def too_long(error: BaseException) -> UserError | None:
    """What to say where the system refused a path for its length, whatever was to be done with it; else None."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    path = str(error.filename)
    return UserError(f"{shown(path[:80])}{'...' if len(path) > 80 else ''} is too long; {TOO_LONG}")


def word(path: object) -> str:
    """A path or name as one word of a command that is printed, so that it can be pasted into a shell."""
    return shlex.quote(str(path))


def first_line(error: BaseException) -> str:
    """What another library's error says, without what follows below it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def listed(names: Iterable[object], most: int = 3) -> str:
    """The first few names for a message, or `none`."""
    found = [shown(name) for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "") or "none"
