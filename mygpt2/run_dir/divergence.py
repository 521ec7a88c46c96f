"""Whether the loss of a run came to anything: beside guessing every token alike, and beside its own first loss."""

from __future__ import annotations

import math
import statistics

from mygpt2.records import number, whole
from mygpt2.run_dir.lines import TAIL_BYTES, Follower, parse_lines, tail_lines
from mygpt2.run_dir.liveness import RunState
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.settings import vocabulary_of

WORSE = 1.2  # times the loss of guessing every token alike: only a broken model gets there
WORSE_THAN_START = (1.5, 1.0)  # a run that began below that, from weights of another: times its first loss, and more
LAST = 10  # steps that are its end
AT_THE_END = 1.1  # at the end less is enough: nobody trains for a loss that guessing has


def limit(start: float | None, vocabulary: int | None) -> float | None:
    """The loss beyond which a run diverges, by what guessing costs and by its own first loss."""
    of_guessing = [WORSE * math.log(vocabulary)] if vocabulary and vocabulary > 1 else []
    of_start = [WORSE_THAN_START[0] * start + WORSE_THAN_START[1]] if start is not None else []
    return min([*of_guessing, *of_start], default=None)


def beside(start: float | None, vocabulary: int | None) -> str:
    """What a loss is to be held against, in words."""
    guess = f"guessing every token alike costs {math.log(vocabulary):.3g}" if vocabulary and vocabulary > 1 else ""
    began = f"this run began at {start:.3g}" if start is not None else ""
    return ", and ".join(part for part in (guess, began) if part)


def came_to_nothing(run: RunDir) -> str:
    """Why the loss at the end of a run is no result, in a sentence; "" for an ordinary run."""
    first = parse_lines(Follower(run.metrics_file).read(1)[:1])[0]
    rows = parse_lines(tail_lines(run.metrics_file, TAIL_BYTES)[0])[0]
    attempt = max((whole(row.get("attempt")) or 0 for row in rows), default=0)
    losses = [number(row.get("loss")) for row in rows if (whole(row.get("attempt")) or 0) == attempt]
    known = [loss for loss in losses[-LAST:] if loss is not None]
    if not known:
        return ""
    start, vocabulary = number(first[0].get("loss")) if first else None, vocabulary_of(run)
    loss, guess = statistics.median(known), math.log(vocabulary) if vocabulary and vocabulary > 1 else None
    if not (guess and loss > AT_THE_END * guess) and not (start is not None and loss > 1.05 * start + 0.1):
        return ""
    of = f" as the median of its last {len(known)} steps" if len(known) > 1 else ""
    return f"its loss at the end, {loss:.4g}{of}, is no result: {beside(start, vocabulary)}"


def diverged(run: RunDir, state: RunState) -> str:
    """Why a run that has ended is no result, as `came_to_nothing` says it; "" also for one that is not there yet, or
    that failed: its reason says why."""
    return came_to_nothing(run) if state.state in ("finished", "stopped", "lost") else ""
