"""What a person says of a run beside its name: that it is archived, and which group it belongs to.

Kept in the run's own workbench.json beside what the page adds (star, tags), so that it moves with the folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.files import cannot_write, read_json, replace_json
from mygpt2.inside import SMALL_BYTES
from mygpt2.run_dir.holding import held
from mygpt2.run_dir.paths import RUNS, RunDir, list_runs

GROUP = re.compile(r"\w[\w .+/-]{0,59}")


def read_marks(run: RunDir) -> dict[str, Any]:
    """The record as it is; empty where there is none or it is damaged."""
    return read_json(run.marks_file, run.path, most=SMALL_BYTES) or {}


def change_marks(run: RunDir, **fields: Any) -> bool:
    """Sets fields of the record; None takes one away. Whether that changed anything. UserError where it cannot be."""
    try:
        with held(run.path):
            before = read_marks(run)
            after = {key: value for key, value in {**before, **fields}.items() if value is not None}
            if after == before:
                return False
            replace_json(run.marks_file, {"schema": 1, **after})
            return True
    except OSError as error:
        raise cannot_write(run.marks_file, error) from None


def is_archived(run: RunDir) -> bool:
    """Whether the run is hidden from lists and pickers."""
    return run.marks_file.exists() and read_marks(run).get("archived") is True


def check_group(text: str) -> str:
    """The name of a group; "" is none. UserError for one that is not allowed."""
    name = text.strip()
    if name and not GROUP.fullmatch(name):
        raise UserError(
            f"group {name[:80]!r} is not allowed; use 1 to 60 letters, digits, blanks and . _ + / -, beginning with a "
            "letter or digit; leave it empty for none"
        )
    return name


def set_group(run: RunDir, text: str) -> bool:
    """Puts the run in a group of that name, or in none; whether that changed anything."""
    return change_marks(run, group=check_group(text) or None)


def current_runs(runs: Path | str = RUNS) -> list[RunDir]:
    """The runs that are not archived, by name: what a picker offers."""
    return [run for run in list_runs(runs) if not is_archived(run)]
