"""What a person adds to a run: a note, tags, a star. Files of the run folder, like everything else."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from mygpt2.errors import UserError
from mygpt2.files import replace_file
from mygpt2.run_dir import RunDir, open_inside
from mygpt2.run_dir.marks import change_marks, read_marks

MAX_NOTE = 100_000  # characters
MAX_TAGS, MAX_TAG = 20, 40
TAG = re.compile(r"[\w][\w.+/-]{0,39}")


@dataclass(frozen=True)
class Labels:
    """`note` is notes.md as it is."""

    star: bool = False
    tags: tuple[str, ...] = ()
    note: str = ""


def labels_file(run: RunDir) -> Path:
    return run.marks_file


def read_labels(run: RunDir) -> Labels:
    """Never raises: a damaged file has no labels."""
    record = read_marks(run)
    tags = record.get("tags")
    kept = [tag for tag in tags if isinstance(tag, str) and TAG.fullmatch(tag)] if isinstance(tags, list) else []
    return Labels(record.get("star") is True, tuple(kept[:MAX_TAGS]), read_note(run))


def read_note(run: RunDir) -> str:
    """notes.md, at most MAX_NOTE characters of it."""
    try:
        with open_inside(run.notes_file, run.path) as file:
            data = file.read(4 * MAX_NOTE)  # the longest character has four bytes
    except OSError:
        return ""
    return data.decode("utf-8", "replace").replace("\r\n", "\n")[:MAX_NOTE]


def foreign_note(run: RunDir) -> str:
    """Why notes.md is not for the page to write, which has only a part of it or other letters; "" where it is."""
    try:
        with open_inside(run.notes_file, run.path) as file:
            data = file.read(4 * MAX_NOTE + 1)
        length = len(data.decode("utf-8").replace("\r\n", "\n"))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"notes.md of {run.name} cannot be read: {error.strerror or error}; look at the file itself"
    except UnicodeDecodeError:
        if len(data) <= 4 * MAX_NOTE:
            return f"notes.md of {run.name} is not text in UTF-8; edit the file itself"
        length = len(data)
    if length <= MAX_NOTE:
        return ""
    return f"notes.md of {run.name} has more than the {MAX_NOTE:,} characters that the page edits; edit the file itself"


def note_digest(text: str) -> str:
    """Tells whether a note is still the one that was shown."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_note(run: RunDir, text: str, shown: str, before: str | None = None) -> bool:
    """Replaces notes.md if `text` says something new. `shown` is the digest of the note it was typed over, `before`
    what the same person wrote there meanwhile, if anything.

    UserError when somebody else has changed it since, or it is too long; the file then stays as it is.
    """
    text = text.replace("\r\n", "\n")
    if foreign := foreign_note(run):
        raise UserError(foreign)
    if len(text) > MAX_NOTE:
        raise UserError(f"the note has {len(text):,} characters; at most {MAX_NOTE:,} are kept")
    now = read_note(run)
    if now == text:
        return False
    if note_digest(now) != shown and (before is None or now != before.replace("\r\n", "\n")):
        raise UserError(
            f"the note of {run.name} was changed elsewhere since it was shown here; copy yours, choose the run again"
        )
    _write(run, run.notes_file, text)
    return True


def parse_tags(text: str) -> tuple[str, ...]:
    """Tags typed with commas or spaces between them. UserError for what is not a tag."""
    words = [word for word in re.split(r"[\s,]+", text.strip()) if word]
    for word in words:
        if not TAG.fullmatch(word):
            raise UserError(f"tag {word[:60]!r} is not allowed; use letters, digits and . _ + / - (at most {MAX_TAG})")
    tags = tuple(dict.fromkeys(words))
    if len(tags) > MAX_TAGS:
        raise UserError(f"{len(tags)} tags are too many; at most {MAX_TAGS}")
    return tags


def write_tags(run: RunDir, text: str) -> bool:
    """Sets the tags; whether that changed anything."""
    return change_marks(run, tags=list(parse_tags(text)))


def toggle_star(run: RunDir) -> bool:
    """Turns the star on or off and says which."""
    star = not read_labels(run).star
    change_marks(run, star=star)
    return star


def _write(run: RunDir, path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode("utf-8", errors="replace"), durable=True)
    except OSError as error:
        raise UserError(_unwritable(run, error)) from None


def _unwritable(run: RunDir, error: OSError) -> str:
    return f"cannot write in {run.path}: {error.strerror or error}; check who owns the run and the room on the disk"
