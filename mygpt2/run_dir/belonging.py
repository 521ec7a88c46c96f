"""Whether a process that a run folder names works on that run: a folder may have been made, or damaged, by somebody."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import Process

_PROGRAM = re.compile(r"mygpt2(\.[\w.]+)?")


def belongs(run: RunDir, process: Process) -> bool:
    """Whether a living process of this machine is a rank or launcher of `run`: only such a one may be sent a signal.

    Its command names this program, and no other run; or it has a file of the run folder open. Where the system does
    not let us look, the process is another user's, and lets us send it nothing either.
    """
    words = _command(process.pid)
    if words is None:
        return True
    if any(_PROGRAM.fullmatch(word) for word in words):
        return _run_named(words) in (None, run.name)
    return _holds_a_file(process.pid, run.path)


def _run_named(words: Sequence[str]) -> str | None:
    """What `--run` says, whichever way it is written."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--run":
            return following
        if word.startswith("--run="):
            return word.removeprefix("--run=")
    return None


def _command(pid: int) -> list[str] | None:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            return None
    import psutil

    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return None


def _holds_a_file(pid: int, folder: Path) -> bool:
    """Whether the process has a file of the folder open: rank 0 its lock, every rank its log."""
    inside = f"{os.path.realpath(folder)}{os.sep}"
    if sys.platform == "linux":
        try:
            handles = [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
        except OSError:
            return False
        return any(_target(handle).startswith(inside) for handle in handles)
    import psutil

    try:
        return any(file.path.startswith(inside) for file in psutil.Process(pid).open_files())
    except psutil.Error:
        return False


def _target(handle: str) -> str:
    try:
        return os.readlink(handle)
    except OSError:
        return ""
