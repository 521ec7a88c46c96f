"""The likeliest cause of a step that stands out, in one sentence, or that none is seen. Pure.

A step's loss is measured before its update: a rate or a gradient acts from the step after on. What is looked for, in
this order: a few odd rows; what was changed on purpose as the run went on or branched; a rate that rose at once; a
large update just before; a loss above that of guessing. Two that hold at once are both told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.experiments.rows import Shares

Floats = NDArray[Any]
BEFORE = 4  # steps before an episode in which a cause may lie
JUMP = 1.2  # times the rate of the step before; schedules change by less, but for the first steps of a warm-up
LARGE = 4.0  # times the usual gradient norm
USUAL = 32  # steps whose median is usual
GUESSING = 1.05  # times the loss of guessing every token alike
KINDS = ("resume", "branch", "skipped")  # of events.jsonl


@dataclass(frozen=True)
class Cause:
    """`kind`: documents, settings, branch, resume, skipped, rate, gradient or diverging. `text`: what was seen."""

    kind: str
    text: str


def of_rows(found: Shares | None, repeated: str = "") -> Cause | None:
    """Of a few odd rows. `repeated`: the document that they share, in words."""
    if found is None or not found.of_few or found.explained is None:
        return None
    which = "one row" if found.odd == 1 else f"{found.odd:,} rows"
    more = f", all of {repeated}" if repeated else ""
    each = "it explains" if found.odd == 1 else "they explain"
    share = "" if not np.isfinite(found.excess) else f"; {each} {min(1.0, found.explained):.0%} of the excess"
    return Cause("documents", f"{which} of {found.rows:,} with an unusual text{more}{share}")


def of_events(events: Sequence[Mapping[str, Any]], first: int) -> list[Cause]:
    """Of what happened up to BEFORE steps before the episode's first step; `events` as events.jsonl has them.

    A resume says the step of its checkpoint: the next one is the first that is new.
    """
    found = []
    for event in events:
        step, kind = event.get("step"), event.get("kind")
        if type(step) is not int or kind not in KINDS or not first - BEFORE <= step <= first:
            continue
        changes = event.get("changes")
        if isinstance(changes, Mapping) and changes:
            how = "branches off" if kind == "branch" else "went on"
            found.append(Cause("settings", f"the run {how} from step {step:,} with {_changes(changes)}"))
        elif kind == "branch":
            found.append(Cause("branch", f"the run branches off from step {step:,}, with nothing changed on purpose"))
        elif kind == "resume":
            found.append(Cause("resume", f"the run was resumed at step {step:,}, with nothing changed on purpose"))
        else:
            found.append(Cause("skipped", f"step {step:,} was skipped, its gradient was not finite"))
    order = ("settings", "branch", "resume", "skipped")
    return sorted(found, key=lambda cause: order.index(cause.kind))


def _changes(changes: Mapping[str, Any]) -> str:
    told = []
    for name, pair in list(changes.items())[:3]:
        then, now = pair if isinstance(pair, list | tuple) and len(pair) == 2 else ("?", pair)
        told.append(f"{str(name)[:60]} {str(then)[:40]} → {str(now)[:40]}")
    return ", ".join(told) + (f" and {len(changes) - 3} more changes" if len(changes) > 3 else "")


def of_rate(step: NDArray[np.int64], rate: Floats, first: int, warmup: int) -> Cause | None:
    """Of a learning rate that rose at once, up to BEFORE steps before the episode, and not in the warm-up."""
    for place in np.flatnonzero((step[1:] >= first - BEFORE) & (step[1:] <= first) & (step[1:] > warmup + 1)) + 1:
        then, now = float(rate[place - 1]), float(rate[place])
        if then > 0 and now > JUMP * then:
            return Cause("rate", f"the learning rate rose from {then:.3g} to {now:.3g} at step {step[place]:,}")
    return None


def of_gradient(step: NDArray[np.int64], norm: Floats, first: int) -> Cause | None:
    """Of an update just before the episode whose gradient was many times as long as usual."""
    before = norm[(step < first - BEFORE) & (step >= first - BEFORE - USUAL)]
    before = before[np.isfinite(before)]
    near = np.flatnonzero((step < first) & (step >= first - BEFORE) & np.isfinite(norm))
    if len(before) < USUAL // 2 or not len(near):
        return None
    usual, worst = float(np.median(before)), near[int(np.argmax(norm[near]))]
    if usual <= 0 or norm[worst] < LARGE * usual:
        return None
    return Cause(
        "gradient",
        f"the update of step {step[worst]:,} before it came from a gradient of norm {norm[worst]:.3g}, "
        f"{norm[worst] / usual:.0f} times the usual {usual:.3g}",
    )


def of_guessing(loss: float, vocabulary: int | None) -> Cause | None:
    """Of a model that has diverged: its loss is above that of guessing every id alike."""
    if vocabulary is None or not np.isfinite(loss) or loss <= GUESSING * np.log(vocabulary):
        return None
    return Cause(
        "diverging",
        f"the run diverges: guessing among {vocabulary:,} ids alike has a loss of {np.log(vocabulary):.2f}; a lower "
        "learning rate or a longer warm-up usually helps",
    )


def sentence(causes: Sequence[Cause], found: Shares | None) -> str:
    """The likeliest cause first, another one beside it; or that none is seen, and where the excess lies."""
    if causes:
        also = f" Also near: {causes[1].text}." if len(causes) > 1 else ""
        return f"Likeliest cause: {causes[0].text}.{also}"
    none = "No cause is seen: no event, no rate that rose and no large gradient lies near"
    if found is None:
        return f"{none}, and the rows of the batch are not known."
    if found.explained is None:
        return f"{none}, and its rows are as those of the steps before."
    worst = "worst row explains" if found.counted == 1 else f"{found.counted:,} worst rows explain"
    return f"{none}; the {worst} {_share(found.explained)} of the excess, the rest is spread over the batch."


def _share(share: float) -> str:
    return f"{max(0.0, min(1.0, share)):.0%}"
