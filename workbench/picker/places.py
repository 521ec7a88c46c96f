"""Where uploads lie: in a root's folder `uploads`, where somebody made one, else beside the runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mygpt2.errors import UserError

UPLOADS = "uploads"
STAGING = ".incoming"  # within it: what is under way


def place_of(runs: Path, roots: Sequence[Path]) -> Path:
    """The folder that new uploads go to, made if need be. UserError where it would lie outside, or cannot be made."""
    for place in _in_roots(roots):
        if os.access(place, os.W_OK | os.X_OK):
            return place
    own = _beside(runs)
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        inside = own.resolve().is_relative_to(runs.resolve())
    except OSError as error:
        raise UserError(f"{own} cannot be made ({error.strerror or error}); see who may write there") from None
    if not inside:
        raise UserError(f"{own} is a link out of the folder of runs, so nothing is uploaded there; remove the link")
    return own


def all_places(runs: Path, roots: Sequence[Path]) -> list[Path]:
    """Every folder that holds uploads, whether or not it is there."""
    return [*_in_roots(roots), _beside(runs)]


def _beside(runs: Path) -> Path:
    return runs / ".workbench" / UPLOADS


def _in_roots(roots: Sequence[Path]) -> list[Path]:
    """Folders `uploads` of the roots; a link that leads out of its root is none."""
    found = [root / UPLOADS for root in dict.fromkeys(roots)]
    return [place for place in found if place.is_dir() and place.resolve() == place]
