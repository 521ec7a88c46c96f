"""Requests to a running trainer: empty files in control/, which it looks for once a step."""

from __future__ import annotations

import contextlib
import os

from mygpt2.errors import UserError
from mygpt2.inside import append_inside
from mygpt2.run_dir.paths import RunDir

REQUESTS = ("stop", "save", "sample")
FOLDER, SIGNAL, AT_STEP = "folder", "signal", "step"  # by which way a stop came, in exit.json; the last: --until
MEANT = (FOLDER, AT_STEP)  # ends that were meant: no scheduler is to start the run again


class ControlFiles:
    """Requests of one run. `stop`: save and end; `save`: save and go on; `sample`: write samples now."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._folder = run, run.control_dir

    def poll(self) -> set[str]:
        """Requests waiting now: one directory listing, some microseconds."""
        try:
            return {name for name in os.listdir(self._folder) if name in REQUESTS}
        except OSError:  # somebody removed the folder, or the disk is away for a moment: nobody asks for anything
            return set()

    def clear(self, name: str) -> None:
        """Takes a request away, once it is being acted on."""
        try:
            os.unlink(self._folder / name)
        except FileNotFoundError:
            return
        except OSError:  # somebody made it a folder
            with contextlib.suppress(OSError):
                os.rmdir(self._folder / name)

    def clear_older(self, than: float) -> None:
        """What was asked before somebody started this attempt was asked of an earlier one; `than` is a clock's time."""
        for name in REQUESTS:
            with contextlib.suppress(OSError):
                if os.lstat(self._folder / name).st_mtime < than:
                    self.clear(name)

    def request(self, name: str) -> None:
        """Asks for something. Asking twice is asking once."""
        if name not in REQUESTS:
            raise UserError(f"request {name!r} is not known; allowed: {', '.join(REQUESTS)}")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = append_inside(self._folder / name, self._run.path)
            os.utime(descriptor)  # asked again: it is newer than the start of the attempt it is meant for
            os.close(descriptor)
        except OSError as error:
            raise UserError(f"cannot write {self._folder / name}: {error.strerror}; check who owns the run") from None
