"""What every command line of this package shares: one-line errors, and an exit code for every way to end."""

from __future__ import annotations

import argparse
import difflib
import itertools
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import NoReturn

from mygpt2.errors import EXIT_DEFECT, EXIT_OK, UserError
from mygpt2.files import refused
from mygpt2.steady import steady_console

EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program ended by Ctrl-C


LAID_OUT = 7  # columns: lines set in by fewer are examples or tables, and stay as they are
CHOICE = re.compile(r"argument (.+?): invalid choice: (.*) \(choose from (.*)\)", re.DOTALL)
KIND = re.compile(r"argument (.+?): invalid (int|float) value: (.*)", re.DOTALL)
EXPECTED = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors: one line, what was given and where help is."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{_in_our_words(message)}; see {self.prog} --help")


def _in_our_words(message: str) -> str:
    """What argparse says of a value as all else here says it: what was given, what is allowed, what was meant."""
    if found := CHOICE.fullmatch(message):
        name, given, allowed = found[1], found[2].strip("'\""), [word.strip("' ") for word in found[3].split(",")]
        close = difflib.get_close_matches(given, allowed, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        what = f"{name} {given!r} is not known" if name.startswith("-") else f"there is no {name} {given!r}"
        return f"{what}; allowed: {', '.join(allowed)}{meant}"
    if found := KIND.fullmatch(message):
        return f"{found[1]} {found[3]}: expected {EXPECTED[found[2]]}"
    return message


class Help(argparse.RawDescriptionHelpFormatter):
    """Help whose paragraphs are as wide as the terminal, and whose examples and tables stay as they were written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(f"{indent}{line}" for block in _blocks(text) for line in _fitted(block, width - len(indent)))


def _blocks(text: str) -> list[list[str]]:
    """Lines that follow one another with the same indentation."""
    pairs = itertools.groupby(text.splitlines(), key=lambda line: len(line) - len(line.lstrip()) if line else -1)
    return [list(lines) for _, lines in pairs]


def _fitted(block: list[str], width: int) -> list[str]:
    """The lines as they are where they fit, or where their place means something; else broken anew."""
    room = len(block[0]) - len(block[0].lstrip())
    if max(map(len, block)) <= width or 0 < room < LAID_OUT:
        return block
    margin = " " * room
    return textwrap.wrap(" ".join(line.strip() for line in block), max(width, room + 20), initial_indent=margin,
                         subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)  # fmt: skip


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
