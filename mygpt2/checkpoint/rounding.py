"""What decides how the sums of a run are rounded, kept in its checkpoints: whoever trains a part of it again gets the
same bits with the same ranks, threads, precision, micro-batch and compiler alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any


def rounding(state: Mapping[str, Any], step: int, **how: Any) -> dict[str, Any]:
    """For the checkpoints of a run that goes on at `step` from `state` (empty where it begins): `how` it is trained
    from there, and how it was before. Of what an earlier version trained nothing is known."""
    known = [each for each in rounded(state) if each["after"] < step]
    if not known or {**known[-1], **how} != known[-1]:
        known.append({"after": step, **how})
    return {"ranks": how["ranks"], "rounding": known}


def rounded(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How a checkpoint's run was trained: each way with the step "after" which it was; none of an earlier version."""
    known = state.get("rounding")
    found = known if isinstance(known, list) else []
    return [each for each in found if isinstance(each, dict) and isinstance(each.get("after"), int)]


def one_way(known: Sequence[Mapping[str, Any]], begin: int) -> Mapping[str, Any] | None:
    """How all steps after `begin` were trained; None where that is not known, or changed within them."""
    before = [each for each, following in pairwise([*known, None]) if following and following["after"] <= begin]
    left = known[len(before) :]
    return left[0] if len(left) == 1 and left[0]["after"] <= begin else None
