"""What every command line of this package shares: one-line errors, and an exit code for every way to end."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from mygpt2.errors import EXIT_DEFECT, EXIT_OK, UserError
from mygpt2.files import refused
from mygpt2.steady import steady_console

EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program ended by Ctrl-C


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors: one line, what was given and where help is."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code: 0 done, 2 usage, 75 try again, 85 stopped, 70 a defect, 130 interrupted.

    A UserError is one `error:` line per problem and no traceback; anything else unexpected is a traceback.
    """
    with steady_console(stdout=False):
        return _guarded(command)


def _guarded(command: Callable[[], int | None]) -> int:
    try:
        return int(command() or EXIT_OK)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as with `| head`. Python would flush again at exit and complain: give it nowhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except SystemExit as end:  # argparse, after --help
        if isinstance(end.code, str):
            raise
        return end.code or EXIT_OK
    except Exception as error:
        if problem := refused(error):
            print(f"error: {problem}", file=sys.stderr)
            return problem.exit_code
        traceback.print_exc()
        return EXIT_DEFECT
