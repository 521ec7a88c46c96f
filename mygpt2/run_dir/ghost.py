"""Ghosts: logs of other programs that stand among the runs without weights, to be drawn beside them.

A ghost is a run folder with metrics.jsonl, events.jsonl, status.json and ghost.json, which marks it. It has no
configuration and no checkpoint, and nobody trains in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mygpt2.errors import UserError
from mygpt2.files import read_json
from mygpt2.inside import SMALL_BYTES
from mygpt2.run_dir.paths import RunDir

FILE = "ghost.json"
UNKNOWN = "protocol unknown"
MOST_WORDS = 80  # characters of a protocol's or a tokenizer's name


@dataclass(frozen=True)
class Ghost:
    """`log`: the file's name; `sha256` of its bytes, "" of a folder. `protocol`, `tokenizer`: as they were given, ""
    where they are not known. `steps`: how many were read. `notes`: what was wrong with the log, in words."""

    log: str
    sha256: str
    protocol: str
    tokenizer: str
    steps: int
    notes: tuple[str, ...]

    @property
    def told(self) -> str:
        """Its protocol, or that it is not known."""
        return f"protocol {self.protocol}" if self.protocol else UNKNOWN

    def to_json(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self)}


def ghost_of(run: RunDir) -> Ghost | None:
    """None for a run of this program. A marker that is damaged still marks: then nothing is known of the log."""
    if not (run.path / FILE).exists():
        return None
    found = read_json(run.path / FILE, run.path, most=SMALL_BYTES) or {}
    words = {key: str(found.get(key) or "")[:500] for key in ("log", "sha256", "protocol", "tokenizer")}
    steps, notes = found.get("steps"), found.get("notes")
    return Ghost(
        **words, steps=steps if type(steps) is int else 0,
        notes=tuple(str(note)[:500] for note in notes[:50]) if isinstance(notes, list) else (),
    )  # fmt: skip


def check_weights(run: RunDir) -> None:
    """UserError for a ghost, by whatever needs weights or settings."""
    if (found := ghost_of(run)) is not None:
        raise UserError(
            f"run {run.name!r} is an imported log ({found.log or 'of another program'}, {found.told}) without weights "
            "and settings: it can be drawn and searched for ripples, not sampled, compared, judged or gone on with; "
            "choose a run of this program"
        )
