"""What the files of a run say together: how far it is in its present attempt, and whether its loss came to anything."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from mygpt2.config.earlier import renewed
from mygpt2.config.fields import settings
from mygpt2.config.load import LATER
from mygpt2.config.summary import vocabulary_size
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.records import number, whole
from mygpt2.run_dir import Follower, RunDir, RunState, parse_lines
from mygpt2.run_dir.lines import tail_lines

TAIL_BYTES = 8192  # of metrics.jsonl; one line has some 300
WORSE = 1.2  # times the loss of guessing every token alike: only a broken model gets there
WORSE_THAN_START = (1.5, 1.0)  # a run that began below that, from weights of another: times its first loss, and more
LAST = 10  # steps that are its end
AT_THE_END = 1.1  # at the end less is enough: nobody trains for a loss that guessing has


def starting(state: RunState, launched: bool) -> RunState:
    """The state, or "starting" while a launcher is at work that has no ranks yet: at first, or between two attempts.

    A branch says "stopped" until somebody starts it, and has had no attempt then.
    """
    unbegun = state.state == "stopped" and state.status.get("attempt") == 0
    if launched and (unbegun or state.state in ("queued", "lost")):
        return replace(state, state="starting", reason="the launcher is at work")
    return state


def launching(state: RunState) -> bool:
    """Whether it starts without having said so itself: what its status says is of before."""
    return state.state == "starting" and state.status.get("state") != "starting"


def current(status: Mapping[str, Any], row: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last row of metrics, or nothing while it is of an earlier attempt than the status: that one went back."""
    attempt, of_row = whole((status or {}).get("attempt")), whole((row or {}).get("attempt"))
    return {} if attempt is not None and of_row is not None and of_row < attempt else dict(row or {})


def reached(run: RunDir, status: Mapping[str, Any], row: Mapping[str, Any] | None) -> int | None:
    """The step a run is at, by its last row and its status; as it goes on again, that of its newest checkpoint."""
    step, now = whole(current(status, row).get("step")), whole(status.get("step"))
    if step is not None:
        return step if now is None else max(step, now)
    if row and not now and status.get("phase") == "starting":  # the attempt has not said yet where it begins
        from mygpt2.checkpoint.store import steps

        return max(steps(run.checkpoints_dir), default=0)
    return now


def vocabulary_of(run: RunDir) -> int | None:
    """Ids of the run's tokenizer where its name says it; a file that a configuration names is not opened."""
    spec = tokenizer_of(run)
    return vocabulary_size(spec) if spec.partition(":")[0] == "gpt2" else None


def tokenizer_of(run: RunDir) -> str:
    """What the run's configuration says of its tokenizer; "" where that is not known."""
    spec = settings_of(run).get("data.tokenizer")
    return spec if isinstance(spec, str) else ""


def settings_of(run: RunDir) -> Mapping[str, Any]:
    """Every setting of the run by section.key, unset ones left out; empty where its configuration cannot be read.

    The same object for as long as the file is the same.
    """
    try:
        state = run.config_file.stat()
    except OSError:
        return {}
    return _settings_in(run, state.st_mtime_ns, state.st_size)


def muon_times(run: RunDir) -> float | None:
    """How many times the logged learning rate, which is AdamW's, Muon's is; None for a run without Muon."""
    settings = settings_of(run)
    lr, muon = number(settings.get("optimizer.lr")), number(settings.get("optimizer.muon_lr"))
    return muon / lr if settings.get("optimizer.name") == "muon" and lr and muon else None


@lru_cache(maxsize=4096)
def _settings_in(run: RunDir, changed: int, size: int) -> Mapping[str, Any]:
    try:
        data = run.read(run.config_file, MAX_BYTES)
        plain = _plain(data)
        tables = from_toml(data) if plain is None else plain
    except (OSError, ValueError):
        return {}
    sections = {name: table for name, table in renewed(tables).items() if isinstance(table, dict)}
    later = {f"{section}.{key}": _default(section, key) for section, key in LATER if section in sections}
    before = {name: value for name, value in later.items() if value is not None}  # what a run from before them had
    return before | {f"{name}.{key}": value for name, table in sections.items() for key, value in table.items()}


def _default(section: str, key: str) -> Any:
    return settings()[f"{section}.{key}"].default


def _plain(data: bytes) -> dict[str, dict[str, Any]] | None:
    """A configuration as a trainer writes it, a value to a line, in a tenth of the time TOML takes; None for others."""
    tables: dict[str, dict[str, Any]] = {}
    table: dict[str, Any] | None = None
    read = json.JSONDecoder().raw_decode  # what is a value in both languages is the same value in both
    try:
        for line in data.decode("utf-8").splitlines():
            if not line or line[0] == "#":
                continue
            if line[0] == "[":
                if not line[1:-1].isidentifier() or line[-1] != "]" or line[1:-1] in tables:
                    return None
                table = tables[line[1:-1]] = {}
                continue
            key, equals, text = line.partition(" = ")
            value, end = read(text)
            if table is None or not equals or not key.isidentifier() or key in table or not _ends(text[end:]):
                return None
            if isinstance(value, dict) or value is None or "\\/" in text:
                return None
            table[key] = value
    except (ValueError, RecursionError):
        return None
    return tables


def _ends(rest: str) -> bool:
    return not rest or rest.lstrip(" ")[:1] in ("", "#")


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
