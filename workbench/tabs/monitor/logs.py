"""The end of a log that may be growing: complete lines after a byte offset, and the line that is being written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.inside import names_inside
from mygpt2.run_dir import RunDir, open_inside

FIRST_BYTES = 256 << 10  # of a log that is opened
MAX_BYTES = 256 << 10  # of one answer; what lies before it is skipped, and the reader is told
MAX_LINE = 2_000  # characters
OPEN_LINE_BYTES = 16 << 10  # of the unfinished last line; progress bars rewrite theirs without ever ending it
LAUNCHER = "launcher"
_RANK = re.compile(r"rank-(\d{1,6})\.log")
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def log_files(run: RunDir, launcher: Path | None = None) -> dict[str, Path]:
    """Logs of a run by the name the page knows them by: ranks in order, then the launcher's, then others."""
    try:
        names = names_inside(run.logs_dir, run.path)
    except OSError:
        names = []
    names = [name for name in names if (run.logs_dir / name).is_file() and not (run.logs_dir / name).is_symlink()]
    ranks = sorted((int(found[1]), name) for name in names if (found := _RANK.fullmatch(name)))
    files = {f"rank {number}": run.logs_dir / name for number, name in ranks}
    if launcher is not None and launcher.is_file():
        files[LAUNCHER] = launcher
    others = [name for name in sorted(names) if name.endswith(".log") and not _RANK.fullmatch(name)]
    return files | {name.removesuffix(".log"): run.logs_dir / name for name in others}


def choose(files: dict[str, Path], wanted: str) -> str:
    """The log asked for if there is one of that name, else the first that has something in it; "" for none."""
    if wanted in files:
        return wanted
    return next((name for name, path in files.items() if _size(path)), next(iter(files), ""))


def read_log(path: Path, offset: int | None = None, root: Path | None = None) -> dict[str, Any]:
    """{"lines", "open", "offset", "fresh", "skipped"} after `offset`; None: the end of the log.

    lines: complete lines, without escapes and without what carriage returns have overwritten. open: the line that is
    being written. fresh: this is not a continuation of what the reader has. skipped: bytes left out before the lines.
    `root`: the run's folder, which no link leads out of. UserError for a log that cannot be read.
    """
    try:
        with open_inside(path, root) as file:
            size = os.fstat(file.fileno()).st_size
            fresh = offset is None or offset > size or offset < 0
            start = max(0, size - FIRST_BYTES) if fresh else int(offset or 0)
            skipped = start if fresh else 0
            if size - start > MAX_BYTES:
                skipped, start = size - MAX_BYTES - (0 if fresh else start), size - MAX_BYTES
            file.seek(start)
            data = file.read(size - start)
    except FileNotFoundError:
        return {"lines": [], "open": "", "offset": 0, "fresh": True, "skipped": 0}
    except OSError as error:
        raise UserError(f"log {path.name} cannot be read: {error.strerror or error}") from None
    end = data.rfind(b"\n") + 1
    complete, rest = data[:end].split(b"\n")[:-1], data[end:]
    if skipped and complete and start:
        skipped += len(complete[0]) + 1
        complete = complete[1:]  # the first is a torn one
    consumed = start + end
    if len(rest) > OPEN_LINE_BYTES:  # the part that the last carriage return overwrote needs no second reading
        consumed += max(rest.rfind(b"\r"), len(rest) - OPEN_LINE_BYTES)
        rest = rest[max(rest.rfind(b"\r"), len(rest) - OPEN_LINE_BYTES) :]
    return {
        "lines": [clean(line) for line in complete],
        "open": clean(rest),
        "offset": consumed,
        "fresh": fresh,
        "skipped": skipped,
    }


def clean(line: bytes) -> str:
    """A line as a terminal would have left it: the last rewriting of it, without colours, of bounded length."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    kept = next((part for part in reversed(text.split("\r")) if part.strip()), "")
    kept = _CONTROLS.sub("", _ESCAPES.sub("", kept))
    return kept if len(kept) <= MAX_LINE else f"{kept[:MAX_LINE]} … ({len(kept) - MAX_LINE:,} characters more)"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
