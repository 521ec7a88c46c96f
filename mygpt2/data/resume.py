"""Where a loader begins: at nothing, at a checkpoint's cursor, or at a fork of its order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mygpt2.data.batch import CURSOR_FIELDS, SCHEMA
from mygpt2.errors import UserError

# What a lane's rows depend on. The batch only says how many of them make a step.
_ROWS = (
    "data", "tokenizer", "lanes", "window", "first", "share", "block_size", "seed", "order", "validation",
    "max_document_chars",
)  # fmt: skip


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys of two loader fingerprints that differ."""
    return [key for key in {**now, **then} if then.get(key) != now.get(key)]


def check_state(state: Mapping[str, Any] | None, fingerprint: Mapping[str, Any], fork: bool) -> None:
    """UserError when the checkpoint's batches would not go on from `state` and nobody asked for a fork."""
    if state is None:
        return
    then = state["fingerprint"]
    changed = differences(then, fingerprint)
    if not changed or fork:
        return
    if state["schema"] != SCHEMA:
        raise UserError(
            "the checkpoint's data order cannot go on: it is of an earlier version, which had another; start a new "
            "order from this checkpoint with --data.fork true"
        )
    details = "; ".join(f"{key} was {_short(then.get(key))}, is {_short(fingerprint.get(key))}" for key in changed)
    raise UserError(
        f"the checkpoint's data order cannot go on: {details}; give the former data and settings, or start a new order "
        "from this checkpoint with --data.fork true"
    )


def starting_cursor(state: Mapping[str, Any] | None, fingerprint: Mapping[str, Any]) -> tuple[np.ndarray, list[int]]:
    """(cursor (V, 5), quarantine) to begin with.

    A fork keeps the place where every lane still gives the same rows (only the batch changed). Otherwise it begins
    anew; with the same data, in an epoch that was not begun yet, so that it is another permutation of it.
    """
    cursor = np.zeros((int(fingerprint["lanes"]), len(CURSOR_FIELDS)), np.int64)
    if state is None:
        return cursor, []
    changed = set(differences(state["fingerprint"], fingerprint))
    saved = np.asarray(state["cursor"], np.int64).reshape(-1, len(CURSOR_FIELDS))
    if "data" in changed:
        return cursor, []
    quarantine = sorted(int(block) for block in state["quarantine"])
    if changed.isdisjoint(_ROWS):
        return saved.copy(), quarantine
    cursor[:, 0] = saved[:, 0].max() + 1
    return cursor, quarantine


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "..."
