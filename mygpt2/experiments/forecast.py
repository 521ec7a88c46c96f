"""A forecast is frozen before what it is about has begun, and scored afterwards.

The file is made once, whole, by a link that fails where it exists, and never written again. It holds the cells it was
made from with their hash, and a hash of itself: what was changed later does not count, and neither does a forecast that
was made when the training that it foretells had begun.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.errors import UserError
from mygpt2.experiments.fit import Cells
from mygpt2.files import cannot_write, encode_json, read_json
from mygpt2.records import number

SCHEMA = 1
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
FAR = 3.0  # times the largest size or budget, beyond which a law of small models is a guess, and is called one


@dataclass(frozen=True)
class Frozen:
    """A forecast as its file holds it. `sound` is False where the file was changed after it was made."""

    path: Path
    record: dict[str, Any]
    sound: bool

    @property
    def made(self) -> float:
        return float(self.record["made"])


def freeze(path: Path, forecast: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], *, begun: str | None) -> Frozen:
    """Writes the forecast unless there is one, and gives the one there is.

    `begun` says since when what it foretells is at work, which makes it no forecast; None where it is not.
    UserError when it cannot be written, or when what has the name is no forecast.
    """
    record: dict[str, Any] = json.loads(encode_json({
        "schema": SCHEMA, "made": time.time(), "after_the_fact": begun, **forecast, "cells": list(cells),
        "cells_sha256": digest(cells),
    }))  # fmt: skip
    record["sha256"] = digest(record)
    try:
        path.parent.mkdir(exist_ok=True)
        _create(path, encode_json(record))
    except FileExistsError:
        pass
    except OSError as error:
        raise cannot_write(path, error) from None
    found = read(path)
    if found is None:
        raise UserError(f"{path} is no forecast; move it away, and the next command makes one")
    return found


def read(path: Path) -> Frozen | None:
    """The forecast of a file; None where there is none, or something else."""
    record = read_json(path)
    if record is None or number(record.get("made")) is None or not isinstance(record.get("loss"), dict):
        return None
    rest = {key: value for key, value in record.items() if key != "sha256"}
    sound = record.get("sha256") == digest(rest) and record.get("cells_sha256") == digest(record.get("cells"))
    return Frozen(path, record, sound)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, however it is laid out in a file."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _create(path: Path, data: bytes) -> None:
    """Makes a file that is whole from the first moment on; FileExistsError where there is one."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(scratch, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with open(path, "xb") as file:  # where there are no links: whole but for a power cut just now
                file.write(data)
    finally:
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()


# Scoring


@dataclass(frozen=True)
class Score:
    """What was measured against what was foretold, in nats per token. `level` is the interval's, None of bounds that
    have none; `why_not` says why it does not count."""

    measured: float
    error: float | None  # measured - foretold
    inside: bool
    level: float | None
    why_not: str

    @property
    def words(self) -> str:
        place = "inside" if self.inside else "outside"
        off = "" if self.error is None else f", {self.error:+.4f} from the forecast"
        what = "bounds" if self.level is None else f"{100 * self.level:.0f} % interval"
        counts = f"; it does not count: {self.why_not}" if self.why_not else ""
        return f"measured {self.measured:.4f}{off}, {place} the {what}{counts}"

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "counts": not self.why_not, "words": self.words}


def score(frozen: Frozen, measured: float, *, began: float | None, token_sha256: str) -> Score:
    """The score of a forecast by the loss that was measured, by training that began at `began` (None: not known).

    UserError for losses of other texts, which do not compare.
    """
    text = (frozen.record.get("protocol") or {}).get("token_sha256")
    if text != token_sha256:
        raise UserError(
            f"{frozen.path} foretells a loss on token stream {text} and what was measured is on {token_sha256}; losses "
            "of other texts do not compare"
        )
    told = frozen.record["loss"]
    value, low, high = (number(told.get(key)) for key in ("value", "low", "high"))
    why_not = ""
    if frozen.record.get("after_the_fact"):
        why_not = str(frozen.record["after_the_fact"])
    elif not frozen.sound:
        why_not = "the file was changed after it was made"
    elif began is None or began <= frozen.made:
        why_not = "the training began before it" if began is not None else "when the training began is not known"
    inside = (low is None or low <= measured) and (high is None or measured <= high)  # None: no bound on that side
    error = None if value is None else measured - value
    return Score(measured, error, inside, number(frozen.record.get("level")), why_not)


# Where the cells do not decide a law


def bounds(cells: Cells, n: float, d: float) -> tuple[float, float]:
    """(low, high) of the loss at n and d from too few cells for a law: what any law of this form keeps.

    Each term falls with log N or log D, and ever more slowly; so no larger model or longer training does worse than the
    best cell within it, and none gains more per doubling than the last two cells of its row and column did. Nothing is
    said below the smallest cell. The chance of the cells is not in it: these are bounds, not an interval of 80 %.
    """
    within = (cells.n <= n) & (cells.d <= d)
    if not within.any():
        return 0.0, math.inf
    high = float(cells.loss[within].min())
    size, budget = cells.n[within].max(), cells.d[within & (cells.n == cells.n[within].max())].max()
    corner = cells.loss[(cells.n == size) & (cells.d == budget)].min()
    gains = (
        _gain(cells.n, cells.loss, cells.d == budget, size, n),
        _gain(cells.d, cells.loss, cells.n == size, budget, d),
    )
    if None in gains:
        return 0.0, high
    return max(0.0, float(corner - sum(gain for gain in gains if gain is not None))), high


def _gain(axis: np.ndarray, loss: np.ndarray, row: np.ndarray, last: float, to: float) -> float | None:
    """What the loss falls from `last` to `to` at the slope of the row's last two cells in log; None for one cell."""
    if to <= last:
        return 0.0
    before = axis[row & (axis < last)]
    if not len(before):
        return None
    one, two = (loss[row & (axis == at)].min() for at in (before.max(), last))
    return max(0.0, float(one - two)) * math.log(to / last) / math.log(last / before.max())


def caution(cells: Cells, n: float, d: float) -> str:
    """What to say of a forecast far beyond the cells; empty for one that is near."""
    by_n, by_d = n / cells.n.max(), d / cells.d.max()
    if max(by_n, by_d) <= FAR:
        return ""
    return (
        f"{by_n:,.0f} times the parameters and {by_d:,.0f} times the tokens of the largest cell: the interval is that "
        "of the law, and nobody knows whether the law holds so far"
    )
